"""Unpacking archives that strangers made: nothing lands outside the directory, and no small file becomes a full disk.

Links are refused altogether: a model has no need of them, and most escapes are made of them. Sizes are counted as the
bytes come out; what the archive says of itself is not believed.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import zstandard

from fairlead.runtime.storage.errors import StorageError, disk_error, size_text

SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
CHUNK = 1 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class ArchiveLimits:
    total: int = 256 << 30
    """Bytes after unpacking."""
    ratio: int = 200
    """Bytes after unpacking for each byte of the archive, once more than `ratio_from` have come out."""
    ratio_from: int = 64 << 20
    count: int = 100_000
    """Files and directories."""


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, directory: Path, uri: str, limits: ArchiveLimits) -> None:
    """Unpack into `directory`. Raises StorageError, and leaves what came out so far for the caller to throw away."""
    guard = _Guard(uri, archive.name, archive.stat().st_size, limits)
    try:
        members = (
            _zip_members(archive, guard) if archive.name.lower().endswith(".zip") else _tar_members(archive, guard)
        )
        for name, source in members:
            _write(name, source, directory, guard)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        raise guard.error(f"is damaged or not of its kind ({error})", "pack it again") from error
    except OSError as error:
        # gzip and bz2 report damaged data as an OSError without a number.
        if error.errno is None:
            raise guard.error(f"is damaged ({error})", "pack it again") from error
        raise disk_error(uri, error, directory) from error


def unpack_layer(layer: Path, directory: Path, below: str, uri: str, limits: ArchiveLimits) -> None:
    """Apply one layer of a container image to `directory`, of which only what the image has in `below` counts.

    A layer may replace and remove (`.wh.NAME`, `.wh..wh..opq`: all of a directory) what the ones before it have brought.
    """
    guard = _Guard(uri, layer.name, layer.stat().st_size, limits)
    try:
        with _open_tar(layer) as tar:
            for name, source in _members(tar, guard, below):
                path = PurePosixPath(name)
                if path.name == _OPAQUE:
                    _remove(directory / path.parent)
                elif path.name.startswith(_WHITEOUT):
                    _remove(directory / path.parent / path.name.removeprefix(_WHITEOUT))
                else:
                    if source is not None:
                        _remove(directory / path)
                    _write(name, source, directory, guard)
    except (tarfile.TarError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise guard.error(f"is damaged or not of its kind ({error})", "push it again") from error
    except OSError as error:
        raise disk_error(uri, error, directory) from error


class _Guard:
    """Counts what comes out of one archive and says no in time."""

    def __init__(self, uri: str, archive: str, packed: int, limits: ArchiveLimits) -> None:
        self.uri = uri
        self.archive = archive
        self.packed = max(packed, 1)
        self.limits = limits
        self.total = 0
        self.count = 0

    def error(self, reason: str, hint: str = "unpack it yourself and serve the directory") -> StorageError:
        return StorageError(self.uri, f"the archive {self.archive} {reason}", hint)

    def member(self, name: str) -> None:
        self.count += 1
        if self.count > self.limits.count:
            raise self.error(f"holds more than {self.limits.count} files")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise self.error(f"would write outside its directory: {name!r}", "do not trust it")

    def unpacked(self, count: int) -> None:
        self.total += count
        if self.total > self.limits.total:
            raise self.error(f"unpacks to more than {size_text(self.limits.total)}")
        if self.total > self.limits.ratio_from and self.total > self.packed * self.limits.ratio:
            raise self.error(f"unpacks to more than {self.limits.ratio} times its size: it looks like an archive bomb")


def _write(name: str, source: IO[bytes] | None, directory: Path, guard: _Guard) -> None:
    target = directory / name
    if source is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # O_EXCL: a name that comes twice, or that differs only in how it is written, never overwrites.
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except FileExistsError as error:
        raise guard.error(f"holds {name!r} twice") from error
    with os.fdopen(descriptor, "wb") as sink, source:
        while chunk := source.read(CHUNK):
            guard.unpacked(len(chunk))
            sink.write(chunk)


def _tar_members(archive: Path, guard: _Guard) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(archive) as tar:
        yield from _members(tar, guard)


def _members(tar: tarfile.TarFile, guard: _Guard, below: str | None = None) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Files (open) and directories (None), by name; with `below`, only what is there, by its name there."""
    for member in tar:
        name = member.name if below is None else _name_below(member.name, below)
        if name is None:
            continue
        guard.member(name)
        if member.issym() or member.islnk():
            raise guard.error(f"holds a link: {member.name!r}", "pack it with links followed: tar --dereference")
        if member.isdir():
            yield name, None
        elif member.isreg():
            yield name, tar.extractfile(member)
        else:
            raise guard.error(f"holds a device or pipe: {member.name!r}", "do not trust it")


def _name_below(name: str, below: str) -> str | None:
    """`./models/a/b`, `models` -> `a/b`; None if it is elsewhere."""
    parts = PurePosixPath(name.lstrip("/")).parts
    return "/".join(parts[1:]) if len(parts) > 1 and parts[0] == below else None


@contextmanager
def _open_tar(layer: Path) -> Iterator[tarfile.TarFile]:
    """Of any compression that registries carry; zstd only Python 3.14 knows by itself."""
    with layer.open("rb") as file:
        zstd = file.read(4) == _ZSTD
        file.seek(0)
        if not zstd:
            with tarfile.open(fileobj=file) as tar:
                yield tar
            return
        with zstandard.ZstdDecompressor().stream_reader(file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            yield tar


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _zip_members(archive: Path, guard: _Guard) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as pack:
        for member in pack.infolist():
            guard.member(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise guard.error(f"holds a link: {member.filename!r}", "pack the files themselves")
            if member.flag_bits & 0x1:
                raise guard.error("is encrypted")
            yield member.filename, None if member.is_dir() else pack.open(member)
