"""Fetching a model from its address: `fetch(uri, destination, options)` returns where its files are.

    fetch ── mirrors ── provider by scheme ── cache ── archive unpacked ── destination

One file per kind of storage; each is imported when an address asks for it, since some bring large libraries.
Synchronous: it runs in a child process of the model server, or as the init container `python -m fairlead.runtime.storage`.
"""

from __future__ import annotations

import importlib
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urldefrag

from fairlead.api.names import STORAGE_SPEC_PLACEHOLDER as PLACEHOLDER
from fairlead.runtime.storage import cache
from fairlead.runtime.storage.archives import ArchiveLimits, is_archive, unpack
from fairlead.runtime.storage.base import FetchOptions, Progress, Provider
from fairlead.runtime.storage.credentials import storage_config
from fairlead.runtime.storage.errors import StorageError, TransientError, disk_error
from fairlead.runtime.storage.mirrors import Mirrors
from fairlead.runtime.storage.verify import check_sha256

__all__ = ["ArchiveLimits", "FetchOptions", "Mirrors", "Progress", "StorageError", "TransientError", "fetch"]

PROVIDERS = {
    "": ("local", "LocalProvider"),
    "file": ("local", "LocalProvider"),
    "pvc": ("local", "PvcProvider"),
    "http": ("http", "HttpProvider"),
    "https": ("http", "HttpProvider"),
    "s3": ("s3", "S3Provider"),
    "gs": ("gs", "GsProvider"),
    "az": ("az", "AzProvider"),
    "abfs": ("az", "AzProvider"),
    "abfss": ("az", "AzProvider"),
    "hf": ("hf", "HfProvider"),
    "oci": ("oci", "OciProvider"),
}
"""Scheme -> (module here, class)."""

STORAGE_TYPES = {"s3": "s3", "gs": "gs", "azure": "az", "hf": "hf"}
"""`type` in the storage secret -> scheme."""

OWN_DIRECTORY = ".fairlead"
"""In a destination: what fetching needs to keep there. Model loaders pass over names that begin with a dot."""


def fetch(uri: str, destination: Path, options: FetchOptions | None = None) -> Path:
    """The directory or file that holds the model at `uri`: `destination`, or where it lies if it is on this machine.

    A second call with the same address and content downloads nothing. Raises StorageError.
    """
    if options is None:
        try:
            options = FetchOptions.from_environment()
        except (ValueError, OSError) as error:
            raise StorageError(uri, str(error), "correct it in the environment") from error
    address, options = _without_fragment(options.mirrors.resolve(_named(uri, options)), options)
    provider = _provider(address, options)
    try:
        there = provider.in_place(destination)
        if there is not None:
            if options.sha256:
                check_sha256(address, there, options.sha256)
            return there
        _fill(provider, destination)
    except OSError as error:
        raise disk_error(address, error, _existing(destination)) from error
    return destination


def _named(uri: str, options: FetchOptions) -> str:
    """The address of `storage.path`, once the storage secret has said of which kind, and in which bucket, it is."""
    if not uri.startswith(PLACEHOLDER):
        return uri
    path = uri.removeprefix(PLACEHOLDER)
    try:
        config = storage_config(options.environment)
    except ValueError as error:
        raise StorageError(path, str(error), "correct the entry of the Secret") from error
    kind, bucket = str(config.get("type") or ""), str(config.get("bucket") or config.get("container") or "")
    if kind not in STORAGE_TYPES:
        said = f"storage type {kind!r} is not supported" if kind else "nothing says which type of storage it is in"
        raise StorageError(
            path,
            said,
            f"give storage.key an entry whose `type` is one of {', '.join(STORAGE_TYPES)}, or set storage.parameters.type",
        )
    scheme = STORAGE_TYPES[kind]
    if scheme == "hf":
        return f"hf://{path}"
    if not bucket:
        raise StorageError(
            path,
            f"storage of type {kind} needs a bucket",
            "set `bucket` in the Secret's entry or in storage.parameters",
        )
    return f"{scheme}://{bucket}/{path}"


def _fill(provider: Provider, destination: Path) -> None:
    options = provider.options
    own = destination / OWN_DIRECTORY
    store = cache.Cache(options.cache or own, options.cache_limit if options.cache else None)
    name = cache.key(f"{type(provider).__name__} {provider.uri} {options.sha256} {provider.identity()}")
    store.link(name, partial(_download, provider), destination, own)


def _download(provider: Provider, directory: Path) -> Path:
    """Download into a part of `directory`, check, unpack; the answer is the part of it that is the model."""
    options = provider.options
    downloaded = directory / "downloaded"
    downloaded.mkdir(exist_ok=True)
    provider.download(downloaded)
    files = list(downloaded.iterdir())
    alone = files[0] if len(files) == 1 and files[0].is_file() else None
    if options.sha256:
        try:
            check_sha256(provider.uri, alone or downloaded, options.sha256)
        except StorageError:
            shutil.rmtree(downloaded)
            raise
    if alone is None or not is_archive(alone.name):
        return downloaded
    unpacked = directory / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    unpack(alone, unpacked, provider.uri, options.archive_limits)
    return unpacked


def _provider(address: str, options: FetchOptions) -> Provider:
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if scheme in ("http", "https") and _is_azure_blob(address):
        scheme = "az"
    try:
        module, name = PROVIDERS[scheme]
    except KeyError:
        known = ", ".join(f"{known}://" for known in PROVIDERS if known)
        raise StorageError(address, f"the scheme {scheme}:// is not known", f"known are {known}") from None
    provider: type[Provider] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return provider(address, options)


def _is_azure_blob(address: str) -> bool:
    """KServe's way to write an Azure address. One that is signed (it has a query) is a plain download."""
    return ".blob.core.windows.net/" in address and "?" not in address


def _without_fragment(uri: str, options: FetchOptions) -> tuple[str, FetchOptions]:
    """`…#sha256=abc` -> (`…`, options with sha256)."""
    if "://" not in uri:
        return uri, options
    address, fragment = urldefrag(uri)
    given = parse_qs(fragment).get("sha256")
    if not given:
        return uri, options
    digest = given[0].lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise StorageError(uri, f"sha256={given[0]} is not a SHA-256 digest", "give its 64 hexadecimal digits")
    return address, replace(options, sha256=digest)


def _existing(path: Path) -> Path:
    """The deepest part of `path` that is there, to ask for the space on its disk."""
    return next(above for above in (path, *path.absolute().parents, Path(os.sep)) if above.exists())
