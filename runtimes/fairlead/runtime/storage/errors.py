"""What can go wrong between a model's address and its files, as one line that a person can act on.

StorageError          gives up: not found, forbidden, disk full, checksum mismatch, unsafe archive, …
└── TransientError    worth another try: connection dropped, timed out, the server is overloaded
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


class StorageError(Exception):
    """`uri` could not be fetched: `reason` says what was wrong, `hint` what to do about it."""

    def __init__(self, uri: str, reason: str, hint: str = "") -> None:
        super().__init__(uri, reason, hint)
        self.uri = redact(uri)
        self.reason = " ".join(reason.split())
        self.hint = " ".join(hint.split())

    def __str__(self) -> str:
        text = f"cannot fetch {self.uri}: {self.reason}"
        return f"{text}; {self.hint}" if self.hint else text


class TransientError(StorageError):
    """The same request may well succeed in a moment. `retry_after` is what the server asked for, in seconds."""

    def __init__(self, uri: str, reason: str, hint: str = "", retry_after: float = 0.0) -> None:
        super().__init__(uri, reason, hint)
        self.retry_after = retry_after


def redact(uri: str) -> str:
    """The address without what may be secret in it: user, password, and a query such as a signature."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    query = "…" if parts.query else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def disk_error(uri: str, error: OSError, directory: Path) -> StorageError:
    """What an OSError while writing below `directory` means. Anything that is not about the disk is named as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space(uri, directory)
    if error.errno == errno.EFBIG:
        return StorageError(
            uri, f"a file in {directory} would be larger than this process may write", "raise `ulimit -f`"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            uri, f"{error.filename or directory} is not writable: {error.strerror}", "use another directory"
        )
    return StorageError(uri, f"{error.strerror or error} ({error.filename or directory})")


def no_space(uri: str, directory: Path, needed: int | None = None) -> StorageError:
    free = shutil.disk_usage(directory).free
    need = f", {size_text(needed)} needed" if needed is not None else ""
    return StorageError(
        uri,
        f"no space left on the disk of {directory} ({size_text(free)} free{need})",
        "free some or give the volume more",
    )


def size_text(size: float) -> str:
    """1536 -> `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
