"""Models from a real S3 server: credentials as KServe takes them, unseen by the model's code, and downloads that fail with the reason in status."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from e2e.cluster import Cluster, LocalCluster
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
    answer = httpx.post(cluster.url(namespace, name, f"/v1/models/{name}:predict"), json=ROW, timeout=30)
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
        timeout=30,
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
            if process.name.isdigit() and os.stat(process).st_uid == os.getuid():
                try:
                    parts = (process / "environ").read_bytes().split(b"\\0")
                except OSError:
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
    answer = httpx.post(cluster.url(namespace, "spy", "/v1/models/spy:predict"), json=ROW, timeout=30)
    assert answer.json() == {"predictions": [False, True]}, answer.text
