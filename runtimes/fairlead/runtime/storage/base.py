"""What a storage provider is, and the options that all of them take.

A provider does two things. `identity` gives a text that changes when what lies at the address changes: it names the
cache entry, and makes it safe to go on with a part that an earlier try left behind. `download` fills a directory, and
is called again with the same directory, parts and all, when it raised.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fairlead.api.names import MODEL_CACHE_ENV, MODEL_CACHE_LIMIT_ENV
from fairlead.runtime.storage.archives import ArchiveLimits
from fairlead.runtime.storage.mirrors import Mirrors
from fairlead.runtime.storage.secrets import spelled_out

PART_SUFFIX = ".part"
"""Of a file that is not whole yet."""


class Progress(NamedTuple):
    """Bytes of the whole model that lie on the disk, of `total` where that is known."""

    done: int
    total: int | None


@dataclass(frozen=True)
class FetchOptions:
    """How to fetch. The defaults suit a pod; `environment` brings credentials (see credentials.py)."""

    sha256: str | None = None
    """Of the one file at the address, in hex. `#sha256=…` at the end of the address says the same."""
    cache: Path | None = None
    """A directory that revisions and processes share. Without one, parts and finished models stay in the destination."""
    cache_limit: int | None = None
    """Bytes that the cache may take; the entries used longest ago go first."""
    mirrors: Mirrors = field(default_factory=Mirrors)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    timeout: float = 60.0
    """Seconds without a byte before a connection counts as dead."""
    attempts: int = 5
    """Tries in a row that bring no byte before it gives up."""
    backoff: float = 0.5
    """Seconds before the second try; doubled, with jitter, for each further one, to 30 at most."""
    archive_limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    progress: Callable[[Progress], None] | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> FetchOptions:
        """Options as a pod's environment gives them. ValueError names a variable that cannot be read."""
        environment = spelled_out(os.environ if environment is None else environment)
        cache, limit = environment.get(MODEL_CACHE_ENV), environment.get(MODEL_CACHE_LIMIT_ENV)
        return cls(
            cache=Path(cache) if cache else None,
            cache_limit=size_of(limit) if limit else None,
            mirrors=Mirrors.from_environment(environment),
            environment=environment,
        )

    def report(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(Progress(done, total))


def size_of(text: str) -> int:
    """`20Gi`, `500M`, `1073741824` -> bytes. ValueError otherwise."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    try:
        return int(float(text.removesuffix(unit)) * units.get(unit, 1))
    except ValueError:
        raise ValueError(f"{text!r} is not a size; write it like 20Gi") from None


class Provider(ABC):
    """One kind of storage. Instances live for one fetch."""

    def __init__(self, uri: str, options: FetchOptions) -> None:
        self.uri = uri
        self.options = options

    def in_place(self, destination: Path) -> Path | None:
        """Where the model lies already, if it needs no fetching. It may be `destination` itself, when that is a mount."""
        return None

    @abstractmethod
    def identity(self) -> str:
        """A text that changes when the content does. Raises StorageError."""

    @abstractmethod
    def download(self, directory: Path) -> None:
        """Put the model's files into `directory`, which may hold parts of an earlier try. Raises StorageError."""
