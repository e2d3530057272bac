"""Fetched models on the disk, shared between revisions and between processes.

    CACHE/<key>/            a whole model; its modification time is when it was last asked for
    CACHE/<key>.partial/    one that is being fetched, or whose fetch was cut off: the next try goes on with it
    CACHE/<key>.lock        held (flock) while an entry is filled or evicted; the kernel lets go when its holder dies

A model gets to its destination by hard links (by copies where these cannot be), so evicting an entry takes nothing
from a model server that runs from it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

PARTIAL = ".partial"
LOCK = ".lock"
LINKED = "linked.json"
"""In a destination's own directory: what was put into the destination, to be taken away by the next model."""


def key(identity: str) -> str:
    """The name of the entry for what `identity` stands for."""
    return hashlib.sha256(identity.encode()).hexdigest()[:40]


class Cache:
    """The entries below one directory. `limit` is in bytes; None keeps everything."""

    def __init__(self, directory: Path, limit: int | None = None) -> None:
        self.directory = directory
        self.limit = limit

    def entry(self, name: str, fill: Callable[[Path], Path]) -> Path:
        """The directory of entry `name`. One process fills it, others wait.

        `fill(directory)` may find what an earlier call of it left there, and returns the part of it to keep.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        with self._locked(name):
            if not path.is_dir():
                partial = self.directory / (name + PARTIAL)
                partial.mkdir(exist_ok=True)
                fill(partial).rename(path)
                shutil.rmtree(partial, ignore_errors=True)
            os.utime(path)
        self.evict(keep=name)
        return path

    def link(self, name: str, fill: Callable[[Path], Path], destination: Path, home: Path) -> None:
        """Put entry `name` into `destination`. Asked for again if another process evicts it in between.

        `home` is a directory of the destination's own, for the note of what was put there.
        """
        while True:
            entry = self.entry(name, fill)
            try:
                _replace(entry, destination, home)
            except FileNotFoundError:
                if entry.is_dir():
                    raise
            else:
                return

    def evict(self, keep: str) -> None:
        """Remove the entries used longest ago until the rest fits. One that a process is busy with stays."""
        if self.limit is None:
            return
        entries = sorted(
            (path for path in self.directory.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
        )
        total = sum(_size(path) for path in entries)
        for path in entries:
            name = path.name.removesuffix(PARTIAL)
            if total <= self.limit or name == keep:
                continue
            with contextlib.suppress(BlockingIOError, FileNotFoundError), self._locked(name, wait=False):
                total -= _size(path)
                # Renamed first: half an entry must never look like a whole one.
                gone = path if path.name.endswith(PARTIAL) else path.rename(self.directory / (name + PARTIAL))
                shutil.rmtree(gone)

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Lock files are never removed: a lock on an unlinked file keeps nobody out."""
        with (self.directory / (name + LOCK)).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield


def _replace(entry: Path, destination: Path, home: Path) -> None:
    """Make `destination` hold the files of `entry` and none of those that an earlier call put there."""
    home.mkdir(parents=True, exist_ok=True)
    note = home / LINKED
    before = json.loads(note.read_text()) if note.exists() else []
    files = [path.relative_to(entry) for path in sorted(entry.rglob("*")) if not path.is_dir()]
    note.write_text(json.dumps(sorted({*before, *map(str, files)})))
    for stale in {*before} - {str(file) for file in files}:
        (destination / stale).unlink(missing_ok=True)
    for file in files:
        _link(entry / file, destination / file)
    note.write_text(json.dumps([str(file) for file in files]))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, fresh, follow_symlinks=False)
    except OSError as error:
        # Another file system, one without links, or more links than it allows.
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            raise
        shutil.copy2(source, fresh)
    fresh.replace(target)
    # When both are links to one file already, rename does nothing and leaves the first name.
    fresh.unlink(missing_ok=True)


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total


def symlink(source: Path, destination: Path) -> None:
    """Make `destination` a directory of symbolic links to the files of `source` (or to the one file that it is)."""
    destination.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir() if source.is_dir() else [source]:
        link = destination / path.name
        if link.is_symlink():
            link.unlink()
        link.symlink_to(path.absolute())
