"""`hf://owner/model[:revision]`: a repository of the Hugging Face Hub, or of a mirror of it (HF_ENDPOINT)."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairlead.runtime.storage.base import FetchOptions, Provider
from fairlead.runtime.storage.credentials import effective
from fairlead.runtime.storage.errors import StorageError, TransientError
from fairlead.runtime.storage.retrying import retrying

REPORT_EVERY = 1.0
"""Seconds between two looks at how much of the repository is there."""


class HfProvider(Provider):
    def __init__(self, uri: str, options: FetchOptions) -> None:
        super().__init__(uri, options)
        owner, slash, rest = uri.removeprefix("hf://").partition("/")
        name, _, revision = rest.replace("@", ":").partition(":")
        if not owner or not slash or not name or "/" in name:
            raise StorageError(uri, "it names no repository", "write hf://owner/model or hf://owner/model:revision")
        self.repository = f"{owner}/{name}"
        self.revision = revision or None
        self._commit = ""
        self._size: int | None = None

    def identity(self) -> str:
        """The commit that the revision stands for now."""
        api = self._hub().HfApi(**self._access())

        def ask() -> Any:
            return api.model_info(self.repository, revision=self.revision, files_metadata=True)

        found = retrying(self.options, self._translated, ask)
        self._commit = str(found.sha)
        sizes = [getattr(file, "size", None) for file in found.siblings or ()]
        known = [size for size in sizes if size is not None]
        self._size = sum(known) if len(known) == len(sizes) else None
        return self._commit

    def download(self, directory: Path) -> None:
        hub = self._hub()

        def fetch() -> None:
            # Its own state, with which it resumes, goes to .cache below the directory, and away at the end.
            hub.snapshot_download(self.repository, revision=self._commit, local_dir=directory, **self._access())

        with self._reporting(directory):
            retrying(self.options, self._translated, fetch)
        shutil.rmtree(directory / ".cache", ignore_errors=True)
        self.options.report(_size(directory), self._size)

    @contextlib.contextmanager
    def _reporting(self, directory: Path) -> Iterator[None]:
        """The library shows bars or nothing: what lies in the directory tells as well."""
        ended = threading.Event()

        def report() -> None:
            while not ended.wait(REPORT_EVERY):
                self.options.report(_size(directory), self._size)

        watcher = threading.Thread(target=report, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _hub(self) -> Any:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        try:
            return importlib.import_module("huggingface_hub")
        except ModuleNotFoundError as error:
            raise StorageError(self.uri, "huggingface_hub is not installed", "pip install 'fairlead[hf]'") from error

    def _access(self) -> dict[str, Any]:
        env = effective(self.options.environment)
        # False: not even a token that lies in a home directory.
        return {"token": env.get("HF_TOKEN") or False, "endpoint": env.get("HF_ENDPOINT") or None}

    def _translated(self, error: Exception) -> Exception:
        names = {kind.__name__ for kind in type(error).__mro__}
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "RevisionNotFoundError" in names:
            return StorageError(
                self.uri, f"not found: {self.repository} has no revision {self.revision!r}", "check the revision"
            )
        if "GatedRepoError" in names:
            return StorageError(
                self.uri, f"forbidden: {self.repository} is gated", "accept its terms and give HF_TOKEN in a Secret"
            )
        if "RepositoryNotFoundError" in names:
            return StorageError(
                self.uri,
                f"not found: there is no {self.repository}, or it is private",
                "check the name; for a private one give HF_TOKEN in a Secret",
            )
        if "OSError" in names and isinstance(error, OSError) and error.filename:
            return error
        return TransientError(self.uri, text)


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed when it was whole
            total += path.stat().st_size if path.is_file() else 0
    return total
