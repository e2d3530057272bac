"""Object stores through fsspec: what `s3://`, `gs://` and `az://` share.

An address is one object or a prefix ("directory"); below a prefix, all objects are fetched, a few at a time, each
resumed where it broke off. What differs between the stores is their credentials and their errors.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import threading
from abc import abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

from fairlead.runtime.storage.base import PART_SUFFIX, FetchOptions, Provider
from fairlead.runtime.storage.errors import StorageError, TransientError, disk_error, no_space
from fairlead.runtime.storage.retrying import retrying
from fairlead.runtime.storage.verify import md5

BLOCK = 8 << 20
PARALLEL = 4


class Blob(NamedTuple):
    path: str
    """In the store, with the bucket."""
    name: str
    """Below the model's directory."""
    size: int
    version: str
    md5: str = ""
    """In base64, where the store tells it."""


class ObjectProvider(Provider):
    module: ClassVar[str]
    """The fsspec implementation's module."""
    extra: ClassVar[str]
    not_found: ClassVar[frozenset[str]] = frozenset(
        {"FileNotFoundError", "NoSuchBucket", "NoSuchKey", "ResourceNotFoundError"}
    )
    forbidden: ClassVar[frozenset[str]] = frozenset(
        {"PermissionError", "NoCredentialsError", "ClientAuthenticationError"}
    )
    """Names of exceptions: their classes belong to libraries that may not be there."""

    def __init__(self, uri: str, options: FetchOptions) -> None:
        super().__init__(uri, options)
        self._lock = threading.Lock()
        self._done = 0
        self._blobs: list[Blob] | None = None

    @abstractmethod
    def filesystem(self, module: Any) -> Any:
        """The fsspec file system, with credentials. ValueError where these cannot be read."""

    @abstractmethod
    def root(self) -> str:
        """`bucket/path` of the address."""

    def identity(self) -> str:
        return "\n".join(f"{blob.name} {blob.size} {blob.version}" for blob in self.blobs())

    def download(self, directory: Path) -> None:
        blobs = self.blobs()
        self._done = 0
        missing = sum(blob.size for blob in blobs) - sum(_have(directory / blob.name) for blob in blobs)
        if missing > shutil.disk_usage(directory).free:
            raise no_space(self.uri, directory, missing)

        def fetch(blob: Blob) -> None:
            retrying(self.options, self._translated, lambda: self._download(blob, directory / blob.name))

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(fetch, blobs))  # listed: the first error is raised here

    def blobs(self) -> list[Blob]:
        """The objects at the address, sorted. Raises StorageError if there is none."""
        if self._blobs is None:
            self._blobs = retrying(self.options, self._translated, self._list)
        return self._blobs

    def _list(self) -> list[Blob]:
        root = self.root().rstrip("/")
        found = self._fs().find(root, detail=True)
        blobs = [self._blob(root, path, detail) for path, detail in found.items() if detail.get("type") == "file"]
        # Stores let users make empty objects named like directories.
        blobs = sorted(blob for blob in blobs if not blob.path.endswith("/"))
        if not blobs:
            raise StorageError(
                self.uri, "not found: there is no object of this name, and none below it", "check the address"
            )
        return blobs

    def _blob(self, root: str, path: str, detail: dict[str, Any]) -> Blob:
        name = path[len(root) :].strip("/") or PurePosixPath(path).name
        if ".." in PurePosixPath(name).parts:
            raise StorageError(
                self.uri, f"the object {path!r} would be written outside the model's directory", "rename it"
            )
        version = (
            detail.get("ETag")
            or detail.get("etag")
            or detail.get("md5Hash")
            or detail.get("generation")
            or detail.get("LastModified")
        )
        return Blob(path, name, int(detail["size"]), str(version or ""), str(detail.get("md5Hash") or ""))

    def _download(self, blob: Blob, target: Path) -> None:
        if target.exists():
            self._report(blob.size)
            return
        part = target.with_name(target.name + PART_SUFFIX)
        with self._disk(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            have = part.stat().st_size if part.exists() else 0
            if have > blob.size:
                part.unlink()
                have = 0
        self._report(have)
        while have < blob.size:
            # One range at a time: a part that is there stays good, whatever happens to the next.
            chunk = self._fs().cat_file(blob.path, start=have, end=min(have + BLOCK, blob.size))
            if not chunk:
                raise TransientError(self.uri, f"{blob.name} ended after {have} of {blob.size} bytes")
            with self._disk(target.parent), part.open("ab") as sink:
                sink.write(chunk)
            have += len(chunk)
            self._report(len(chunk))
        with self._disk(target.parent):
            part.touch()
            self._check(blob, part)
            part.rename(target)

    def _check(self, blob: Blob, part: Path) -> None:
        """Against the store's own checksum; a part that is not right is fetched again from its beginning."""
        if blob.md5 and md5(part) != blob.md5:
            part.unlink()
            raise TransientError(self.uri, f"checksum mismatch: {blob.name} did not arrive as the store has it")

    @contextmanager
    def _disk(self, directory: Path) -> Iterator[None]:
        """Errors of the disk are told apart from those of the store, many of which are OSErrors too."""
        try:
            yield
        except OSError as error:
            raise disk_error(self.uri, error, directory) from error

    def _report(self, more: int) -> None:
        with self._lock:
            self._done += more
            self.options.report(self._done, sum(blob.size for blob in self.blobs()))

    def _fs(self) -> Any:
        with self._lock:
            if not hasattr(self, "_filesystem"):
                try:
                    module = importlib.import_module(self.module)
                except ModuleNotFoundError as error:
                    raise StorageError(
                        self.uri, f"{self.module} is not installed", f"pip install 'fairlead[{self.extra}]'"
                    ) from error
                try:
                    self._filesystem = self.filesystem(module)
                except ValueError as error:
                    raise StorageError(self.uri, str(error), "correct the credentials") from error
            return self._filesystem

    def _translated(self, error: Exception) -> StorageError:
        """A store's error in our words."""
        causes = [error, *(cause for cause in (error.__cause__, error.__context__) if cause)]
        names = {kind.__name__ for kind in type(error).__mro__} | {type(cause).__name__ for cause in causes}
        # Azure's go on with request ids and XML.
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        if names & self.not_found:
            return StorageError(self.uri, f"not found: {text}", "check the address")
        if names & self.forbidden or any(getattr(cause, "status_code", None) in (401, 403) for cause in causes):
            return StorageError(self.uri, f"forbidden: {text}", self.credentials_hint())
        if isinstance(error, (ConnectionError, TimeoutError, asyncio.TimeoutError)) or names & _CONNECTION_ERRORS:
            return TransientError(self.uri, f"the connection failed: {text}", "check the endpoint and the network")
        return TransientError(self.uri, text)

    def credentials_hint(self) -> str:
        return "give the service account's Secret the credentials"


_CONNECTION_ERRORS = {
    "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "HTTPClientError",
    "ClientConnectorError", "ClientError", "ServiceRequestError", "ServiceResponseError", "IncompleteReadError",
}  # fmt: skip


def _have(target: Path) -> int:
    part = target.with_name(target.name + PART_SUFFIX)
    return next((path.stat().st_size for path in (target, part) if path.exists()), 0)
