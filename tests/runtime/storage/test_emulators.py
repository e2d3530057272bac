"""Google's and Azure's storage against servers that others wrote: gcp-storage-emulator, and Azurite where it is on PATH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fairlead.local.supervisor.home import free_port
from fairlead.runtime.storage import FetchOptions, Progress, StorageError, fetch, objects

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

CONTENT = os.urandom(300_000)
OBJECTS = {"iris/1/model.onnx": CONTENT, "iris/1/sub/labels.txt": b"setosa", "iris/10/model.onnx": b"another"}


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and ".fairlead" not in path.parts)
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    server_module = pytest.importorskip("gcp_storage_emulator.server")
    port = free_port()
    server = server_module.create_server("127.0.0.1", port, in_memory=True, default_bucket="models")
    server.start()
    address = f"http://127.0.0.1:{port}"
    for name, content in OBJECTS.items():
        upload = f"{address}/upload/storage/v1/b/models/o"
        httpx.post(upload, params={"uploadType": "media", "name": name}, content=content, timeout=60).raise_for_status()
    yield address
    server.stop()


def test_google_cloud_storage_is_read_in_ranges(google: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "BLOCK", 100_000)
    seen: list[Progress] = []
    options = FetchOptions(environment={"STORAGE_EMULATOR_HOST": google}, backoff=0.0, progress=seen.append)
    fetch("gs://models/iris/1", tmp_path, options)
    assert files(tmp_path) == {"model.onnx": CONTENT, "sub/labels.txt": b"setosa"}
    assert seen[-1] == Progress(len(CONTENT) + 6, len(CONTENT) + 6)
    for address in ("gs://models/iris/2", "gs://nowhere/iris"):
        with pytest.raises(StorageError, match="not found"):
            fetch(address, tmp_path / "other", options)


def test_what_did_not_arrive_as_the_store_has_it_is_fetched_again(
    google: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = objects.ObjectProvider._fs, []

    def once_wrong(provider: objects.ObjectProvider) -> Any:
        system = right(provider)

        def cat_file(path: str, start: int, end: int) -> bytes:
            calls.append(path)
            content: bytes = system.cat_file(path, start=start, end=end)
            return b"x" * len(content) if len(calls) == 1 else content

        return SimpleNamespace(find=system.find, cat_file=cat_file)

    monkeypatch.setattr(objects.ObjectProvider, "_fs", once_wrong)
    fetch("gs://models/iris/10", tmp_path, FetchOptions(environment={"STORAGE_EMULATOR_HOST": google}, backoff=0.0))
    assert files(tmp_path) == {"model.onnx": b"another"}
    assert len(calls) == 2


ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, as its documentation gives them."""


def connection_string(port: int, key: str = KEY) -> str:
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={endpoint};"


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("needs azurite-blob on PATH: npm install -g azurite")
    blob = pytest.importorskip("azure.storage.blob")
    port = free_port()
    place = tmp_path_factory.mktemp("azurite")
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(place), "--silent"]
    server = subprocess.Popen([*command, "--skipApiVersionCheck"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        with blob.BlobServiceClient.from_connection_string(connection_string(port)) as client:
            container = client.create_container("models")
            for name, content in OBJECTS.items():
                container.upload_blob(name, content)
        yield port
    finally:
        server.terminate()
        server.wait(10)


@pytest.mark.slow
def test_azure_blob_storage_is_read(azure: int, tmp_path: Path) -> None:
    options = FetchOptions(environment={"AZURE_STORAGE_CONNECTION_STRING": connection_string(azure)}, backoff=0.0)
    fetch("az://models/iris/1", tmp_path, options)
    assert files(tmp_path) == {"model.onnx": CONTENT, "sub/labels.txt": b"setosa"}
    for address in ("az://models/iris/2", "az://nowhere/iris"):
        with pytest.raises(StorageError, match="not found"):
            fetch(address, tmp_path / "other", options)


@pytest.mark.slow
def test_a_wrong_azure_key_is_said_so(azure: int, tmp_path: Path) -> None:
    wrong = connection_string(azure, "d3Jvbmc=")
    options = FetchOptions(environment={"AZURE_STORAGE_CONNECTION_STRING": wrong}, backoff=0.0, attempts=1)
    with pytest.raises(StorageError, match=r"forbidden: .*; give AZURE_STORAGE_ACCESS_KEY"):
        fetch("az://models/iris/1", tmp_path, options)
