"""Models that lie on a mounted file system: `file://`, bare paths, and `pvc://`, whose volume is mounted already.

Nothing is copied. An archive is unpacked, as one from a server would be.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fairlead.runtime.storage.archives import is_archive
from fairlead.runtime.storage.base import Provider
from fairlead.runtime.storage.errors import StorageError

PVC_MOUNT = Path("/mnt/pvc")
"""Where KServe mounts a claim in its storage initializer."""


class LocalProvider(Provider):
    """`file:///models/a`, `/models/a`, `models/a`."""

    def path(self) -> Path:
        if not self.uri.startswith("file:"):
            return Path(self.uri)
        parts = urlsplit(self.uri)
        if parts.netloc not in ("", "localhost"):
            raise StorageError(
                self.uri,
                f"{parts.netloc!r} is taken for a host",
                f"write three slashes: file:///{parts.netloc}{parts.path}",
            )
        return Path(unquote(parts.path))

    def in_place(self, destination: Path) -> Path | None:
        path = self.path()
        self._check(path)
        return None if path.is_file() and is_archive(path.name) else path

    def identity(self) -> str:
        status = self.path().stat()
        return f"{self.path()} {status.st_size} {status.st_mtime_ns}"

    def download(self, directory: Path) -> None:
        archive = self.path()
        target = directory / archive.name
        target.unlink(missing_ok=True)
        target.symlink_to(archive.absolute())

    def _check(self, path: Path) -> None:
        if not path.exists():
            raise StorageError(self.uri, f"{path} does not exist", _nearest(path))
        if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
            raise StorageError(
                self.uri, f"{path} is not readable by user {os.getuid()}", "change its mode or its owner"
            )
        if path.is_dir() and not any(path.iterdir()):
            raise StorageError(self.uri, f"{path} is empty", "put the model's files there")


class PvcProvider(LocalProvider):
    """`pvc://claim/path`. Whoever made the pod chose where the claim is mounted, whole or only `path` of it."""

    def in_place(self, destination: Path) -> Path | None:
        claim, _, inside = self.uri.removeprefix("pvc://").partition("/")
        mounts = (PVC_MOUNT / claim, PVC_MOUNT, destination)
        whole = [mount / inside for mount in mounts if (mount / inside).exists()]
        part = [destination] if destination.is_dir() and any(destination.iterdir()) else []
        if not whole + part:
            raise StorageError(
                self.uri,
                f"the claim {claim!r} is mounted neither at {PVC_MOUNT} nor at {destination}, or has no {inside!r}",
                "pvc:// works only in a pod that mounts the claim",
            )
        path = (whole + part)[0]
        self._check(path)
        return path


def _nearest(path: Path) -> str:
    """What does exist, so that a typo shows: the deepest parent that does, and a few names in it."""
    parent = next((above for above in path.absolute().parents if above.is_dir()), Path("/"))
    try:
        names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))[:8]
    except OSError:
        return f"{parent} is the last part that exists"
    return f"{parent} holds {', '.join(names)}" if names else f"{parent} is empty"
