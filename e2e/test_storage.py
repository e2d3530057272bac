"""Models from a real S3 server: credentials as KServe takes them, unseen by the model's code, and downloads that fail with the reason in status."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from e2e.cluster import Cluster, LocalCluster
from e2e.kind import RUNTIME_IMAGE, KindCluster
from e2e.manifests import inference_service, sklearn

ROW = {"instances": [[0, 0, 0, 0]]}


class Store:
    """An S3 server that lets in one user, who may read one bucket."""

    def __init__(self, port: int, models: dict[str, Path]) -> None:
        self.endpoint = f"127.0.0.1:{port}"
        boto: Any = {"endpoint_url": f"http://{self.endpoint}", "region_name": "us-east-1"}
        admin: Any = {**boto, "aws_access_key_id": "admin", "aws_secret_access_key": "admin"}
        s3 = boto3.client("s3", **admin)
        s3.create_bucket(Bucket="models")
        for name, directory in models.items():
            s3.upload_file(str(directory / "model.skops"), "models", f"{name}/model.skops")
        iam = boto3.client("iam", **admin)
        iam.create_user(UserName="reader")
        self.key = iam.create_access_key(UserName="reader")["AccessKey"]
        statement = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        httpx.post(f"http://{self.endpoint}/moto-api/reset-auth", content=b"0").raise_for_status()

    def secret(self, name: str = "minio", **keys: str) -> dict[str, Any]:
        data = {
            "AWS_ACCESS_KEY_ID": self.key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": self.key["SecretAccessKey"],
        } | keys
        annotations = {"s3-endpoint": self.endpoint, "s3-usehttps": "0", "s3-region": "us-east-1"}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "annotations": {f"serving.kserve.io/{key}": value for key, value in annotations.items()},
            },
            "data": encoded(data),
        }

    def storage_config(self) -> dict[str, Any]:
        entry = {
            "type": "s3",
            "bucket": "models",
            "access_key_id": self.key["AccessKeyId"],
            "secret_access_key": self.key["SecretAccessKey"],
            "endpoint_url": f"http://{self.endpoint}",
            "region": "us-east-1",
        }
        metadata = {"name": "storage-config"}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "data": encoded({"minio": json.dumps(entry)}),
        }


def encoded(data: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


def account(*secrets: str) -> dict[str, Any]:
    entries = [{"name": secret} for secret in secrets]
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "models"}, "secrets": entries}


@pytest.fixture(scope="module")
def store(cluster: Cluster, models: dict[str, Path]) -> Iterator[Store]:
    if not isinstance(cluster, LocalCluster):
        pytest.skip("the S3 server listens on this machine's loopback, which pods in containers do not reach")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield Store(server.get_host_and_port()[1], models)
    server.stop()


def predictions(cluster: Cluster, namespace: str, name: str) -> list[int]:
    answer = httpx.post(cluster.url(namespace, name, f"/v1/models/{name}:predict"), json=ROW, timeout=60)
    answer.raise_for_status()
    found: list[int] = answer.json()["predictions"]
    return found


def test_a_model_is_fetched_with_the_credentials_of_the_service_accounts_secret(
    cluster: Cluster, namespace: str, store: Store
) -> None:
    cluster.apply(namespace, store.secret(), account("minio"))
    cluster.apply(namespace, sklearn("iris", "s3://models/v2", serviceAccountName="models"))
    cluster.wait_ready(namespace, "iris")
    assert predictions(cluster, namespace, "iris") == [2]


def test_a_model_is_fetched_by_its_storage_key(cluster: Cluster, namespace: str, store: Store) -> None:
    model = {"modelFormat": {"name": "sklearn"}, "storage": {"key": "minio", "path": "v3"}}
    cluster.apply(namespace, store.storage_config(), inference_service("iris", {"model": model}))
    cluster.wait_ready(namespace, "iris")
    assert predictions(cluster, namespace, "iris") == [3]


def test_a_new_revision_of_the_same_model_does_not_fetch_it_again(
    cluster: Cluster, namespace: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fetched() -> int:
        return sum("/models/v3/model.skops" in record.getMessage() for record in caplog.records)

    with caplog.at_level(logging.INFO, logger="werkzeug"):
        cluster.apply(namespace, store.secret(), account("minio"))
        cluster.apply(namespace, sklearn("iris", "s3://models/v3", serviceAccountName="models"))
        cluster.wait_ready(namespace, "iris")
        assert fetched() == 1
        cluster.apply(namespace, sklearn("iris", "s3://models/v3", serviceAccountName="models", labels={"try": "two"}))
        revision = "iris-predictor-00002"
        cluster.eventually(
            namespace,
            "iris",
            lambda s: s["status"]["components"]["predictor"].get("latestReadyRevision") == revision,
            "updated",
        )
        assert predictions(cluster, namespace, "iris") == [3]
        assert fetched() == 1


@pytest.mark.parametrize(
    ("uri", "keys", "says"),
    [
        ("s3://nowhere/iris", {}, "cannot fetch s3://nowhere/iris: not found"),
        ("s3://models/v9", {}, "cannot fetch s3://models/v9: not found"),
        ("s3://models/v1", {"AWS_ACCESS_KEY_ID": "AKIAWRONG"}, "cannot fetch s3://models/v1: forbidden"),
        ("s3://models/v1", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "cannot fetch s3://models/v1: forbidden"),
    ],
    ids=["no bucket", "no object", "unknown key", "wrong secret"],
)
def test_a_download_that_fails_is_in_status_within_seconds_with_the_reason(
    cluster: Cluster, namespace: str, store: Store, uri: str, keys: dict[str, str], says: str
) -> None:
    cluster.apply(namespace, store.secret(**keys), account("minio"))
    cluster.apply(namespace, sklearn("iris", uri, serviceAccountName="models"))
    began = time.monotonic()
    service = cluster.eventually(
        namespace,
        "iris",
        lambda s: "lastFailureInfo" in s.get("status", {}).get("modelStatus", {}),
        "told why it cannot load",
        timeout=60,
    )
    took = time.monotonic() - began
    failure = service["status"]["modelStatus"]["lastFailureInfo"]
    assert failure["reason"] == "ModelLoadFailed"
    assert says in failure["message"]
    assert service["status"]["modelStatus"]["transitionStatus"] == "BlockedByFailedLoad"
    print(f"the reason was in status after {took:.1f} s")


SPY = """
import os, pathlib
from fairlead.runtime import Model

class Spy(Model):
    def predict(self, request):
        seen = [value for value in os.environ.values()]
        for process in pathlib.Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    if os.stat(process).st_uid != os.getuid():
                        continue
                    parts = (process / "environ").read_bytes().split(b"\\0")
                except OSError:  # it has just ended
                    continue
                if any(part == b"POD_NAMESPACE=" + os.environ["POD_NAMESPACE"].encode() for part in parts):
                    seen += [part.decode(errors="replace") for part in parts]
        return {"predictions": [any(sought in text for text in seen) for sought in (%r, "in-plain-sight")]}
"""


def test_the_models_code_sees_the_credentials_in_no_environment_of_its_pod(
    cluster: Cluster, namespace: str, store: Store, tmp_path: Path
) -> None:
    spy = tmp_path / "spy.py"
    spy.write_text(SPY % store.key["SecretAccessKey"])
    model = {
        "modelFormat": {"name": "sklearn"},
        "storageUri": "s3://models/v1",
        "args": [f"--model_class={spy}"],
        "env": [{"name": "SEEN", "value": "in-plain-sight"}],
    }
    cluster.apply(namespace, store.secret(), account("minio"))
    cluster.apply(namespace, inference_service("spy", {"model": model, "serviceAccountName": "models"}))
    cluster.wait_ready(namespace, "spy")
    answer = httpx.post(cluster.url(namespace, "spy", "/v1/models/spy:predict"), json=ROW, timeout=60)
    assert answer.json() == {"predictions": [False, True]}, answer.text


# --- On Kubernetes: a private HTTP server, whose headers are in a Secret -------------------------------------------------

GUARD = """
import http.server, urllib.error, urllib.request

class Guard(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("X-Token") != "open-sesame":
            return self.send_error(401)
        try:
            content = urllib.request.urlopen("{models}" + self.path).read()
        except urllib.error.HTTPError as error:
            return self.send_error(error.code)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

http.server.ThreadingHTTPServer(("", 8080), Guard).serve_forever()
"""


SHOW_FILES = ["python", "-m", "http.server", "8080", "--directory", "/mnt/models"]


@pytest.fixture
def guarded(cluster: Cluster, namespace: str, models: dict[str, Path]) -> str:
    """The address of a server that wants a token for the scenarios' models, which a ServiceAccount `models` has."""
    if not isinstance(cluster, KindCluster):
        pytest.skip("needs pods that reach each other by name")
    upstream = cluster.model_uri(models["v1"]).rpartition("/")[0]
    container = {"name": "guard", "image": RUNTIME_IMAGE, "command": ["python", "-c", GUARD.format(models=upstream)]}
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    pod = {
        "metadata": {"name": "guard", "labels": {"app": "guard"}},
        "spec": {"containers": [container | {"readinessProbe": probe}]},
    }
    ports = [{"port": 80, "targetPort": 8080}]
    service = {"metadata": {"name": "guard"}, "spec": {"selector": {"app": "guard"}, "ports": ports}}
    host = f"guard.{namespace}.svc.cluster.local"
    headers = {"https-host": host, "headers": json.dumps({"X-Token": "open-sesame"})}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "guard"}, "data": encoded(headers)}
    v1 = {"apiVersion": "v1"}
    cluster.apply(
        namespace, {**v1, "kind": "Pod", **pod}, {**v1, "kind": "Service", **service}, secret, account("guard")
    )
    cluster.kubectl("wait", "--for=condition=Ready", "pod/guard", "-n", namespace, "--timeout=120s", timeout=130)
    return f"http://{host}"


def pod_of(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    selector = f"serving.kserve.io/inferenceservice={name}"
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))
    return found["items"][0]  # type: ignore[no-any-return]


def test_headers_in_the_service_accounts_secret_open_a_private_server_and_stay_out_of_the_model_servers_environment(
    cluster: Cluster, namespace: str, guarded: str
) -> None:
    cluster.apply(namespace, sklearn("iris", f"{guarded}/v2.skops", serviceAccountName="models"))
    cluster.wait_ready(namespace, "iris")
    assert predictions(cluster, namespace, "iris") == [2]
    pod = pod_of(cluster, namespace, "iris")
    read = "import pathlib; print(pathlib.Path('/proc/1/environ').read_text())"
    run = ("exec", pod["metadata"]["name"], "-n", namespace, "-c", "kserve-container", "--", "python", "-c", read)
    environment = cluster.kubectl(*run)
    assert "STORAGE_URI" in environment
    assert "open-sesame" not in environment
    assert "initContainers" not in pod["spec"]


def test_another_container_gets_its_model_by_the_storage_initializer_and_no_credentials(
    cluster: Cluster, namespace: str, guarded: str
) -> None:
    container = {
        "name": "kserve-container",
        "image": RUNTIME_IMAGE,
        "command": SHOW_FILES,
        "env": [{"name": "STORAGE_URI", "value": f"{guarded}/v1.skops"}],
    }
    cluster.apply(namespace, inference_service("files", {"containers": [container], "serviceAccountName": "models"}))
    cluster.wait_ready(namespace, "files")
    assert "v1.skops" in httpx.get(cluster.url(namespace, "files", "/"), timeout=60).text
    spec = pod_of(cluster, namespace, "files")["spec"]
    assert "envFrom" not in spec["containers"][0]
    assert spec["initContainers"][0]["envFrom"][0]["secretRef"]["name"] == "guard"


def test_a_storage_container_fetches_the_addresses_that_it_is_for(
    cluster: Cluster, namespace: str, guarded: str
) -> None:
    fetch = "import sys, pathlib; pathlib.Path(sys.argv[2], 'here').write_text(sys.argv[1])"
    spec = {
        "container": {"name": "storage-initializer", "image": RUNTIME_IMAGE, "command": ["python", "-c", fetch]},
        "supportedUriFormats": [{"prefix": f"acme://{namespace}/"}],
    }
    metadata = {"name": namespace}
    kind = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterStorageContainer"}
    cluster.apply(namespace, {**kind, "metadata": metadata, "spec": spec})
    uri = f"acme://{namespace}/iris"
    container = {
        "image": RUNTIME_IMAGE,
        "command": SHOW_FILES,
        "env": [{"name": "STORAGE_URI", "value": uri}],
    }
    try:
        cluster.apply(
            namespace, inference_service("files", {"containers": [{"name": "kserve-container", **container}]})
        )
        cluster.wait_ready(namespace, "files")
        assert httpx.get(cluster.url(namespace, "files", "/here"), timeout=60).text == uri
    finally:
        cluster.kubectl("delete", "clusterstoragecontainer", namespace)


def test_a_private_server_without_the_secret_is_a_failed_download_with_its_reason(
    cluster: Cluster, namespace: str, guarded: str
) -> None:
    cluster.apply(namespace, sklearn("iris", f"{guarded}/v1.skops"))
    service = cluster.eventually(
        namespace,
        "iris",
        lambda s: "lastFailureInfo" in s.get("status", {}).get("modelStatus", {}),
        "told why it cannot load",
    )
    assert "forbidden: the server answers 401" in service["status"]["modelStatus"]["lastFailureInfo"]["message"]
