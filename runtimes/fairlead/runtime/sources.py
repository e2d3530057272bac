"""Where models come from: makes the factories that the repository loads, and fetches what lies elsewhere."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fairlead.api.names import STORAGE_SPEC_PLACEHOLDER
from fairlead.runtime import handoff
from fairlead.runtime.errors import LoadError
from fairlead.runtime.model import Model
from fairlead.runtime.operations.startup import STARTUP
from fairlead.runtime.repository import ModelFactory
from fairlead.runtime.settings import Settings
from fairlead.runtime.storage.errors import redact

log = logging.getLogger(__name__)

LOCAL_SCHEMES = ("", "file", "pvc")
PRELOAD_ENV = "FAIRLEAD_PRELOAD"
"""Modules, separated by commas, to import while the model is fetched: an image for one framework names it."""

_PRELOAD_BY_SUFFIX = {
    ".skops": ("fairlead.runtime.frameworks.skops",),
    ".joblib": ("sklearn", "joblib"),
    ".pkl": ("sklearn",),
    ".onnx": ("onnxruntime",),
    ".ubj": ("xgboost",),
    ".pt2": ("torch",),
    ".safetensors": ("torch",),
}


class Source:
    """The model that the settings name. Fetching begins when this is made, so that imports go on meanwhile."""

    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._path: Path | None = None
        self._fetch: Fetch | None = None
        if settings.storage_uri:
            self._fetch = Fetch(settings.storage_uri, settings.model_dir)
            _preload(settings.storage_uri, environment)

    def fetched(self) -> Path:
        """Where the model's files are. Blocks until they are there. Raises LoadError."""
        if self._path is None:
            self._path = self._fetch.result() if self._fetch is not None else self._settings.model_dir
            STARTUP.done("download")
        return self._path

    def __call__(self) -> Model:
        """The model, not loaded yet. Blocks until it is fetched. Raises LoadError."""
        return open_model(self.fetched(), self._settings.model_name, self._settings)


class Fetch:
    """A model on its way here: remote ones in a child process, which has an interpreter lock, and the credentials, of its own."""

    def __init__(self, uri: str, destination: Path) -> None:
        self._uri = uri
        self._destination = destination
        self._child: subprocess.Popen[str] | None = None
        credentials = handoff.take()
        try:
            if uri.startswith(STORAGE_SPEC_PLACEHOLDER) or urlsplit(uri).scheme not in LOCAL_SCHEMES:
                self._child = self._start(credentials)
        finally:
            if credentials is not None:
                os.close(credentials)

    def _start(self, credentials: int | None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "fairlead.runtime.storage", self._uri, str(self._destination)]
        if credentials is None:
            return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        environment = {**os.environ, handoff.FILE_ENV: str(credentials)}
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=[credentials], env=environment)

    def result(self) -> Path:
        if self._child is None:
            from fairlead.runtime.storage import StorageError, fetch

            try:
                return fetch(self._uri, self._destination)
            except StorageError as error:
                raise LoadError(str(error)) from error
        _, errors = self._child.communicate()
        if self._child.returncode == 0:
            return self._destination
        if self._child.returncode < 0:
            raise LoadError(
                f"fetching {redact(self._uri)} was killed by signal {-self._child.returncode}; "
                "if it was for want of memory, give the container more"
            )
        lines = errors.strip().splitlines()
        raise LoadError(
            lines[-1] if lines else f"fetching {redact(self._uri)} ended with code {self._child.returncode}"
        )


def _preload(uri: str, environment: Mapping[str, str]) -> None:
    named = [name.strip() for name in environment.get(PRELOAD_ENV, "").split(",") if name.strip()]
    modules = named or _PRELOAD_BY_SUFFIX.get(Path(urlsplit(uri).path).suffix, ())

    def load() -> None:
        import importlib

        from fairlead.runtime.frameworks.postponed import postponed

        for module in modules:
            try:
                with postponed(module):
                    importlib.import_module(module)
            except ImportError as error:
                log.debug("%s is not preloaded: %s", module, error)

    if modules:
        threading.Thread(target=load, name="preload", daemon=True).start()


def open_model(path: Path, name: str, settings: Settings) -> Model:
    """The class that the settings name, or the framework's model for what lies at `path`."""
    from fairlead.runtime.remote import connect

    return connect(_open(path, name, settings), settings)


def _open(path: Path, name: str, settings: Settings) -> Model:
    from fairlead.runtime.frameworks import LoadOptions, custom, load

    if settings.model_class is not None:
        if settings.model_class.endswith(".py"):
            return custom.from_file(Path(settings.model_class), name)
        target = custom.resolve(settings.model_class)
        if not _takes_weights(target):
            return custom.as_model(target, name)

    options = LoadOptions.from_environment()
    if settings.allow_pickle is not None:
        options = dataclasses.replace(options, allow_pickle=settings.allow_pickle)
    if settings.framework is not None:
        options = dataclasses.replace(options, framework=settings.framework)
    if settings.model_class is not None:
        options = dataclasses.replace(options, model_class=settings.model_class)
    return load(path, name, options)


def _takes_weights(target: Any) -> bool:
    """A torch.nn.Module: no model by itself, but the class that weights in the model's directory are for."""
    return isinstance(target, type) and any(base.__module__ == "torch.nn.modules.module" for base in target.__mro__)


def directory_of_models(settings: Settings, name: str) -> ModelFactory | None:
    """The factory of a model in the repository directory, for the repository API."""
    directory = settings.repository_dir
    if directory is None or not name or name.startswith(".") or "/" in name or not (directory / name).exists():
        return None
    return lambda: open_model(directory / name, name, settings)


def models_in(directory: Path) -> list[str]:
    """Names of the models that lie in a repository directory. Raises LoadError."""
    if not directory.is_dir():
        raise LoadError(f"--model_repository {directory} is not a directory")
    return sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("."))
