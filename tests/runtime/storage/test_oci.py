"""Models in container registries, against a small registry that wants a token and sends blobs from elsewhere."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fairlead.runtime.storage import FetchOptions, Progress, StorageError, fetch
from fairlead.runtime.storage.oci import Reference, parse

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Registry:
    """Blobs and manifests by digest, tags, and whom it lets in."""

    def __init__(self, site: Any) -> None:
        self.site = site
        self.name = site.url.removeprefix("http://")
        site.headers = {}

    def blob(self, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.site.files[f"/v2/acme/iris/blobs/{digest}"] = content
        return {"digest": digest, "size": len(content)}

    def manifest(self, *layers: dict[str, Any], tag: str = "1") -> str:
        return self.document({"schemaVersion": 2, "mediaType": MANIFEST, "layers": list(layers)}, tag)

    def document(self, document: dict[str, Any], tag: str = "1") -> str:
        content = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for version in (tag, digest):
            self.site.files[f"/v2/acme/iris/manifests/{version}"] = content
        return digest

    def uri(self, version: str = ":1") -> str:
        return f"oci://{self.name}/acme/iris{version}"


@pytest.fixture
def registry(site: Any) -> Iterator[Registry]:
    return Registry(site)


def layer(*members: tuple[str | tarfile.TarInfo, bytes | None], pack: Any = gzip.compress) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, body in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if body is None and isinstance(name, str):
                info.type = tarfile.DIRTYPE
            info.size = len(body or b"")
            tar.addfile(info, io.BytesIO(body or b""))
    packed: bytes = pack(content.getvalue())
    return packed


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and ".fairlead" not in path.parts)
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


OPTIONS = FetchOptions(environment={}, backoff=0.0, timeout=60.0, attempts=2)


def test_the_model_of_an_image_is_what_its_layers_leave_in_models(registry: Registry, tmp_path: Path) -> None:
    base = layer(
        ("bin/sh", b"#!"),
        (link("bin/bash"), None),
        ("models/", None),
        ("models/old.onnx", b"old"),
        ("models/a/x", b"x"),
    )
    top = layer(
        ("./models/model.onnx", b"weights"),
        ("models/.wh.old.onnx", b""),
        ("models/a/.wh..wh..opq", b""),
        ("models/a/y", b"y"),
    )
    registry.manifest(registry.blob(base), registry.blob(top))
    fetch(registry.uri(), tmp_path, OPTIONS)
    assert files(tmp_path) == {"model.onnx": b"weights", "a/y": b"y"}


def test_a_layer_may_replace_a_file_and_be_packed_with_zstd_or_not_at_all(registry: Registry, tmp_path: Path) -> None:
    one = layer(("models/model.onnx", b"one"), pack=lambda content: content)
    two = layer(("models/model.onnx", b"two"), pack=zstandard.ZstdCompressor().compress)
    registry.manifest(registry.blob(one), registry.blob(two))
    fetch(registry.uri(), tmp_path, OPTIONS)
    assert files(tmp_path) == {"model.onnx": b"two"}


def test_an_artifacts_layers_are_its_files(registry: Registry, tmp_path: Path) -> None:
    named = {"annotations": {"org.opencontainers.image.title": "sub/model.onnx"}}
    registry.manifest({**registry.blob(b"weights"), **named})
    fetch(registry.uri(), tmp_path, OPTIONS)
    assert files(tmp_path) == {"sub/model.onnx": b"weights"}


def test_of_an_index_this_machines_image_is_taken_or_any_if_there_is_none(registry: Registry, tmp_path: Path) -> None:
    digest = registry.manifest(registry.blob(layer(("models/m", b"here"))), tag="here")
    other = registry.manifest(registry.blob(layer(("models/m", b"there"))), tag="there")
    entries = [
        {"digest": "sha256:0", "platform": {"architecture": "unknown", "os": "unknown"}},
        {"digest": other, "platform": {"architecture": "s390x", "os": "linux"}},
        *({"digest": digest, "platform": {"architecture": machine, "os": "linux"}} for machine in ("amd64", "arm64")),
    ]
    registry.document({"mediaType": INDEX, "manifests": entries})
    registry.document({"mediaType": INDEX, "manifests": entries[:2]}, tag="2")
    fetch(registry.uri(), tmp_path / "one", OPTIONS)
    fetch(registry.uri(":2"), tmp_path / "two", OPTIONS)
    assert (files(tmp_path / "one"), files(tmp_path / "two")) == ({"m": b"here"}, {"m": b"there"})


def test_a_digest_pins_the_model(registry: Registry, tmp_path: Path) -> None:
    digest = registry.manifest(registry.blob(layer(("models/m", b"one"))))
    fetch(registry.uri(f"@{digest}"), tmp_path / "to", OPTIONS)
    assert files(tmp_path / "to") == {"m": b"one"}
    registry.site.files[f"/v2/acme/iris/manifests/{digest}"] += b" "
    with pytest.raises(StorageError, match="checksum mismatch"):
        fetch(registry.uri(f"@{digest}"), tmp_path / "other", OPTIONS)


def test_a_blob_that_was_changed_is_refused(registry: Registry, tmp_path: Path) -> None:
    blob = registry.blob(layer(("models/m", b"one")))
    registry.manifest(blob)
    registry.site.files[f"/v2/acme/iris/blobs/{blob['digest']}"] = b"another"
    with pytest.raises(StorageError, match="checksum mismatch"):
        fetch(registry.uri(), tmp_path, OPTIONS)


def test_a_blob_whose_connection_drops_is_resumed_and_what_is_there_is_not_fetched_again(
    registry: Registry, tmp_path: Path
) -> None:
    content = layer(("models/m", bytes(range(256)) * 400), pack=lambda content: content)
    registry.manifest(registry.blob(content))
    site = registry.site
    site.headers = {"ETag": '"blob"'}
    # The manifest, its blob until the connection drops, and the rest.
    site.next.extend([lambda handler, body: handler.serve(body), lambda handler, body: handler.serve(body, cut=50_000)])
    seen: list[Progress] = []
    fetch(registry.uri(), tmp_path, FetchOptions(environment={}, backoff=0.0, progress=seen.append))
    ranges = [headers["range"] for path, headers in site.requests if "/blobs/" in path and "range" in headers]
    assert ranges == ["bytes=50000-"]
    assert seen[-1] == Progress(len(content), len(content))
    asked = len(site.requests)
    fetch(registry.uri(), tmp_path, OPTIONS)
    assert [path for path, _ in site.requests[asked:]] == ["/v2/acme/iris/manifests/1"]


def guard(site: Any, wanted: str, challenge: str) -> None:
    """Lets only requests with this Authorization to the registry."""

    def answer(handler: Any, content: bytes) -> None:
        site.next.append(answer)
        if handler.path.startswith("/token"):
            handler.answer(200 if handler.headers.get("Authorization") == BASIC else 401, content)
        elif handler.headers.get("Authorization") != wanted:
            handler.answer(401, b"", headers={"WWW-Authenticate": challenge})
        else:
            handler.serve(content)

    site.next.append(answer)


BASIC = f"Basic {base64.b64encode(b'me:secret').decode()}"


def docker_config(registry: str, **entry: str) -> dict[str, str]:
    return {"DOCKER_CONFIG_JSON": json.dumps({"auths": {registry: entry}})}


@pytest.mark.parametrize("kind", ["Bearer", "Basic"])
def test_a_private_registry_is_entered_with_the_credentials_of_the_pull_secret(
    kind: str, registry: Registry, tmp_path: Path
) -> None:
    registry.manifest(registry.blob(layer(("models/m", b"one"))))
    registry.site.files["/token"] = b'{"token": "t0ken"}'
    challenges = {"Bearer": f'Bearer realm="{registry.site.url}/token",service="acme"', "Basic": 'Basic realm="acme"'}
    guard(registry.site, "Bearer t0ken" if kind == "Bearer" else BASIC, challenges[kind])
    environment = docker_config(registry.name, username="me", password="secret")
    fetch(registry.uri(), tmp_path, FetchOptions(environment=environment, backoff=0.0))
    assert files(tmp_path) == {"m": b"one"}
    if kind == "Bearer":
        (asked,) = (path for path, _ in registry.site.requests if path.startswith("/token"))
        assert asked == "/token?scope=repository%3Aacme%2Firis%3Apull&service=acme"


def test_missing_credentials_are_said_with_where_to_give_them(registry: Registry, tmp_path: Path) -> None:
    registry.manifest(registry.blob(layer(("models/m", b"one"))))
    guard(registry.site, BASIC, 'Basic realm="acme"')
    with pytest.raises(
        StorageError, match=r"forbidden: the registry wants credentials; name a Secret .* imagePullSecrets"
    ):
        fetch(registry.uri(), tmp_path, OPTIONS)
    wrong = docker_config(registry.name, username="me", password="wrong")
    with pytest.raises(StorageError, match="forbidden: the registry does not let us"):
        fetch(registry.uri(), tmp_path, FetchOptions(environment=wrong, backoff=0.0))


def test_what_is_not_there_is_said_so(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not found: the registry has no 9; check the name"):
        fetch(registry.uri(":9"), tmp_path, OPTIONS)
    registry.manifest(registry.blob(layer(("weights/m", b"one"))))
    with pytest.raises(StorageError, match="the image has nothing in /models; copy the model to /models"):
        fetch(registry.uri(), tmp_path, OPTIONS)


@pytest.mark.parametrize("name", ["models/../../x", "models/link"])
def test_nothing_is_written_outside(name: str, registry: Registry, tmp_path: Path) -> None:
    member: Any = link(name) if name.endswith("link") else name
    registry.manifest(registry.blob(layer((member, None if name.endswith("link") else b"x"))))
    with pytest.raises(StorageError, match=r"would write outside|holds a link"):
        fetch(registry.uri(), tmp_path / "to", OPTIONS)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("uri", "reference", "url"),
    [
        ("oci://ghcr.io/acme/iris:1", Reference("ghcr.io", "acme/iris", "1"), "https://ghcr.io/v2/acme/iris"),
        (
            "oci://acme/iris",
            Reference("registry-1.docker.io", "acme/iris", "latest"),
            "https://registry-1.docker.io/v2/acme/iris",
        ),
        (
            "oci://docker.io/acme/iris:2",
            Reference("registry-1.docker.io", "acme/iris", "2"),
            "https://registry-1.docker.io/v2/acme/iris",
        ),
        (
            "oci://iris",
            Reference("registry-1.docker.io", "library/iris", "latest"),
            "https://registry-1.docker.io/v2/library/iris",
        ),
        ("oci://localhost:5000/iris", Reference("localhost:5000", "iris", "latest"), "http://localhost:5000/v2/iris"),
    ],
)
def test_names_are_read_as_container_engines_read_them(uri: str, reference: Reference, url: str) -> None:
    assert parse(uri) == reference
    assert parse(uri).url == url


@pytest.mark.parametrize("uri", ["oci://", "oci://ghcr.io/", "oci://ghcr.io/a@sha256:1"])
def test_a_name_that_is_none_says_how_to_write_one(uri: str) -> None:
    with pytest.raises(StorageError, match="write oci://registry/repository:tag"):
        parse(uri)
