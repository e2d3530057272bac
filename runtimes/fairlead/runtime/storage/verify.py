"""Is this the file that was meant?"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from fairlead.runtime.storage.errors import StorageError


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5(path: Path) -> str:
    """In base64, as Google's storage has it: good against accidents, not against people."""
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()).decode()


def check_sha256(uri: str, path: Path, expected: str) -> None:
    """Raises StorageError unless the file at `path` has the digest `expected`."""
    if path.is_dir():
        raise StorageError(uri, "a directory has no sha256", "give the digest of one file")
    actual = sha256(path)
    if actual != expected.lower():
        raise StorageError(
            uri,
            f"checksum mismatch: sha256 is {actual}, {expected.lower()} was expected",
            "the file was changed, or the digest is of another",
        )
