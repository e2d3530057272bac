"""Object stores, against moto's S3 server and small servers that speak Google's and the Hub's protocol."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fairlead.runtime.storage import FetchOptions, Progress, StorageError, TransientError, fetch, objects
from fairlead.runtime.storage.hf import HfProvider

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

CONTENT = os.urandom(300_000)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="s",
    )
    client.create_bucket(Bucket="models")
    for key, body in {
        "iris/1/model.onnx": CONTENT,
        "iris/1/labels.txt": b"setosa",
        "iris/1/": b"",
        "iris/10/model.onnx": b"another",
        "single.onnx": b"alone",
    }.items():
        client.put_object(Bucket="models", Key=key, Body=body)
    client.port = port
    yield client
    server.stop()


def options(port: int, **given: Any) -> FetchOptions:
    environment = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"S3_ENDPOINT": f"127.0.0.1:{port}", "S3_USE_HTTPS": "0"}
    return FetchOptions(**{"environment": environment, "backoff": 0.0, "timeout": 5.0, **given})


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and ".fairlead" not in path.parts)
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def test_all_objects_below_a_prefix_are_fetched_and_none_beside_it(s3: Any, tmp_path: Path) -> None:
    assert fetch("s3://models/iris/1", tmp_path, options(s3.port)) == tmp_path
    assert files(tmp_path) == {"model.onnx": CONTENT, "labels.txt": b"setosa"}


def test_a_single_object_is_fetched_under_its_name(s3: Any, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"alone").hexdigest()
    fetch(f"s3://models/single.onnx#sha256={digest}", tmp_path, options(s3.port))
    assert files(tmp_path) == {"single.onnx": b"alone"}


def test_an_object_that_is_an_archive_is_unpacked(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"setosa")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "labels.txt", "labels.txt")
    s3.upload_file(str(tmp_path / "model.tar.gz"), "models", "packed/model.tar.gz")
    fetch("s3://models/packed", tmp_path / "to", options(s3.port))
    assert files(tmp_path / "to") == {"labels.txt": b"setosa"}


def test_what_did_not_change_is_not_fetched_again(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.put_object(Bucket="models", Key="changing/model.onnx", Body=b"one")
    cache = tmp_path / "cache"
    fetch("s3://models/changing", tmp_path / "a", options(s3.port, cache=cache))
    with monkeypatch.context() as patch:
        patch.setattr(objects.ObjectProvider, "download", None)
        fetch("s3://models/changing", tmp_path / "b", options(s3.port, cache=cache))
    assert files(tmp_path / "b") == {"model.onnx": b"one"}
    s3.put_object(Bucket="models", Key="changing/model.onnx", Body=b"two")
    fetch("s3://models/changing", tmp_path / "b", options(s3.port, cache=cache))
    assert files(tmp_path / "b") == {"model.onnx": b"two"}


def test_a_storage_secret_in_json_does_as_well(s3: Any, tmp_path: Path) -> None:
    secret = {
        "type": "s3",
        "access_key_id": "a",
        "secret_access_key": "s",
        "endpoint_url": f"http://127.0.0.1:{s3.port}",
    }
    environment = {"STORAGE_CONFIG": json.dumps(secret), "STORAGE_OVERRIDE_CONFIG": '{"region": "us-east-1"}'}
    fetch("s3://models/single.onnx", tmp_path, options(s3.port, environment=environment))
    assert files(tmp_path) == {"single.onnx": b"alone"}


def test_what_is_not_there_is_said_so(s3: Any, tmp_path: Path) -> None:
    for address in ("s3://models/iris/2", "s3://nowhere/model"):
        with pytest.raises(StorageError, match="not found: "):
            fetch(address, tmp_path, options(s3.port))


def test_missing_credentials_are_said_so(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.raises(StorageError, match=r"forbidden: .*; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        fetch("s3://models/single.onnx", tmp_path, options(s3.port, environment=environment))


class Cutter:
    """Passes connections on to a port, and cuts them after so many bytes of answers."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.to, self.cuts = port, cuts
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self.copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, self.cuts), daemon=True).start()

    def copy(self, source: socket.socket, sink: socket.socket, cuts: list[int] | None) -> None:
        try:
            while data := source.recv(65536):
                if cuts and len(data) > 10_000:
                    sink.sendall(data[: cuts.pop()])
                    break
                sink.sendall(data)
        except (OSError, IndexError):  # another connection has had the last cut just now: this one is cut, too
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def test_connections_that_drop_are_tried_again_and_parts_are_kept(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "BLOCK", 50_000)
    cutter = Cutter(s3.port, [5_000, 20_000])
    seen: list[Progress] = []
    try:
        fetch("s3://models/iris/1", tmp_path, options(cutter.port, progress=seen.append))
    finally:
        cutter.close()
    assert not cutter.cuts, "no connection was cut: it proves nothing"
    assert files(tmp_path)["model.onnx"] == CONTENT
    assert seen[-1].total == len(CONTENT) + 6


def test_a_store_that_is_not_there_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransientError, match="the connection failed"):
        fetch("s3://models/iris", tmp_path, options(port, attempts=2))


@pytest.mark.parametrize(
    ("address", "module", "extra"),
    [("s3://b/k", "s3fs", "s3"), ("gs://b/k", "gcsfs", "gcs"), ("hf://o/m", "huggingface_hub", "hf")],
)
def test_a_library_that_is_missing_is_named_with_what_to_install(
    address: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StorageError, match=rf"{module} is not installed; pip install 'fairlead\[{extra}\]'"):
        fetch(address, tmp_path, options(1))


# --- Google and the Hub: the few requests that a download makes --------------------------------------------------


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers, body = self.server.answer(self.path, self.headers)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Any]:
    servers = []

    def start(answer: Any) -> Any:
        server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        server.daemon_threads = True
        server.asked, server.answer = [], answer
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def as_json(document: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def test_google_cloud_storage_is_read(serve: Any, tmp_path: Path) -> None:
    blobs = {"iris/model.onnx": b"weights", "iris/a/labels.txt": b"setosa", "iris-2/model.onnx": b"another"}

    def answer(path: str, headers: Any) -> Any:
        parts = urlsplit(path)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        _, _, name = parts.path.partition("/o/")
        if not name:
            prefix = query.get("prefix", "")
            items = [item(key) for key in blobs if key.startswith(prefix)]
            return as_json({"kind": "storage#objects", "items": items})
        content = blobs.get(unquote(name))
        if content is None:
            return 404, {}, b"{}"
        if query.get("alt") == "media" or "/download/" in parts.path:
            wanted = headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
            return 206, {}, content[int(wanted[0]) : int(wanted[1] or len(content)) + 1]
        return as_json(item(unquote(name)))

    def item(key: str) -> dict[str, Any]:
        size = str(len(blobs[key]))
        return {"kind": "storage#object", "name": key, "bucket": "b", "size": size, "generation": "1", "etag": "e"}

    server = serve(answer)
    environment = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_port}"}
    given = FetchOptions(environment=environment, backoff=0.0, attempts=2)
    fetch("gs://b/iris", tmp_path, given)
    assert files(tmp_path) == {"model.onnx": b"weights", "a/labels.txt": b"setosa"}
    with pytest.raises(StorageError, match="not found"):
        fetch("gs://b/digits", tmp_path / "other", given)


def test_the_hub_is_read_at_a_commit(serve: Any, tmp_path: Path) -> None:
    commit = "a" * 40

    def answer(path: str, headers: Any) -> Any:
        if headers.get("Authorization") != "Bearer hf_token":
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if path.startswith("/api/models/o/m/tree/"):
            return as_json([{"type": "file", "path": "model.onnx", "size": 7, "oid": "b" * 40}])
        if path.startswith("/api/models/o/m"):
            if "revision" in path and not path.rstrip("/").partition("?")[0].endswith(("v1", commit)):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            return as_json({"id": "o/m", "sha": commit, "siblings": [{"rfilename": "model.onnx", "size": 7}]})
        if path.startswith(f"/o/m/resolve/{commit}/model.onnx"):
            return 200, {"ETag": '"c0ffee"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}, b"weights"
        return 404, {}, b""

    server = serve(answer)
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_TOKEN": "hf_token"}
    seen: list[Progress] = []
    fetch("hf://o/m:v1", tmp_path, FetchOptions(environment=environment, progress=seen.append))
    assert files(tmp_path) == {"model.onnx": b"weights"}
    assert seen[-1] == Progress(7, 7)
    with pytest.raises(StorageError, match="not found: o/m has no revision 'v2'; check the revision"):
        fetch("hf://o/m:v2", tmp_path, FetchOptions(environment=environment))
    without = {"HF_ENDPOINT": environment["HF_ENDPOINT"]}
    with pytest.raises(StorageError, match=r"there is no o/m, or it is private; .* give HF_TOKEN in a Secret"):
        fetch("hf://o/m:v1", tmp_path, FetchOptions(environment=without))


def test_a_hub_that_stumbles_is_asked_again(serve: Any, tmp_path: Path) -> None:
    def answer(path: str, headers: Any) -> Any:
        if path.startswith("/api/models/o/m") and len(server.asked) < 3:
            return 500, {}, b"{}"
        return as_json({"id": "o/m", "sha": "a" * 40, "siblings": []})

    server = serve(answer)
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    provider = HfProvider("hf://o/m", FetchOptions(environment=environment, backoff=0.0))
    assert provider.identity() == "a" * 40
    assert len(server.asked) == 3


def test_an_address_of_the_hub_names_owner_and_model(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="names no repository; write hf://owner/model"):
        fetch("hf://model", tmp_path)


def test_an_azure_address_without_an_account_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="names no storage account; set AZURE_STORAGE_ACCOUNT"):
        fetch("az://container/path", tmp_path, FetchOptions(environment={}))
