"""One service: applied, served over every protocol, refused with a reason, failing with a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest

from e2e.cluster import Cluster, KubectlError, until
from e2e.load import Load
from e2e.manifests import inference_service, sklearn

ROW = [[0.0, 0.0, 0.0, 0.0]]
SECONDS = 45.0
"""Within them a failure is to be told: not the minutes after which a Deployment is given up. On a quiet machine it takes one or two."""


def deployments(cluster: Cluster, namespace: str) -> list[str]:
    found = json.loads(cluster.kubectl("get", "deployments", "-n", namespace, "-o", "json"))
    return [item["metadata"]["name"] for item in found["items"]]


def condition(service: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in service.get("status", {}).get("conditions", []) if c["type"] == kind), {})


def test_a_model_answers_v1_v2_and_grpc_by_path_and_by_host(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, sklearn("digits", cluster.model_uri(models["v1"])))
    service = cluster.wait_ready(namespace, "digits")

    v1 = httpx.post(cluster.url(namespace, "digits", "/v1/models/digits:predict"), json={"instances": ROW}, timeout=60)
    assert v1.status_code == 200, v1.text
    assert v1.json()["predictions"] == [1]

    tensor = {"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": ROW[0]}
    host = urlsplit(service["status"]["url"]).netloc
    body, headers = {"inputs": [tensor]}, {"host": host}
    v2 = httpx.post(f"{cluster.gateway}/v2/models/digits/infer", json=body, headers=headers, timeout=60)
    assert v2.status_code == 200, v2.text
    assert v2.json()["outputs"][0]["data"] == [1]

    script = str(Path(__file__).with_name("grpc_infer.py"))
    arguments = [urlsplit(cluster.gateway).netloc, host, "digits", "4"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1]


def test_ready_means_that_a_request_sent_now_succeeds(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    for number in range(3):
        name = f"ready-{number}"
        cluster.apply(namespace, sklearn(name, cluster.model_uri(models["v1"])))
        cluster.kubectl("wait", "--for=condition=Ready", f"isvc/{name}", "-n", namespace, "--timeout=120s", timeout=130)
        url = cluster.url(namespace, name, f"/v1/models/{name}:predict")
        answer = httpx.post(url, json={"instances": ROW}, timeout=60)
        assert answer.status_code == 200, answer.text


def test_kubectl_shows_the_columns_that_kserves_users_know(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, sklearn("digits", cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, "digits")
    header, row = cluster.kubectl("get", "isvc", "-n", namespace).splitlines()
    assert header.split() == [
        "NAME",
        "URL",
        "READY",
        "PREV",
        "LATEST",
        "PREVROLLEDOUTREVISION",
        "LATESTREADYREVISION",
        "AGE",
    ]
    assert row.split()[0] == "digits"
    assert "True" in row
    assert "100" in row
    assert "digits-predictor-00001" in row


@pytest.mark.parametrize(
    ("predictor", "message"),
    [
        ({"model": {"modelFormat": {"name": "sklearn"}}, "minReplica": 1}, 'unknown field "spec.predictor.minReplica"'),
        ({"model": {"modelFormat": {"name": "sklearn"}}, "minReplicas": 3, "maxReplicas": 1}, "minReplicas"),
        ({"model": {"modelFormat": {"name": "sklearn"}}, "canaryTrafficPercent": 120}, "canaryTrafficPercent"),
        ({"minReplicas": 1}, "implementation"),
        ({"model": {"modelFormat": {"name": "sklearn"}}, "xgboost": {"storageUri": "file:///x"}}, "implementation"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_reason(
    cluster: Cluster, namespace: str, predictor: dict[str, Any], message: str
) -> None:
    with pytest.raises(KubectlError) as refused:
        cluster.apply(namespace, inference_service("bad", predictor))
    assert message in str(refused.value)


def test_a_model_path_that_does_not_exist_is_in_status_within_seconds(cluster: Cluster, namespace: str) -> None:
    cluster.apply(namespace, sklearn("nowhere", "file:///no/such/model"))
    service = cluster.eventually(
        namespace,
        "nowhere",
        lambda s: s.get("status", {}).get("modelStatus", {}).get("transitionStatus") == "BlockedByFailedLoad",
        "BlockedByFailedLoad",
        timeout=SECONDS,
    )
    failure = service["status"]["modelStatus"]["lastFailureInfo"]
    assert failure["reason"] == "ModelLoadFailed"
    assert "/no/such/model" in failure["message"]
    assert condition(service, "Ready")["status"] == "False"
    assert "/no/such/model" in condition(service, "PredictorReady")["message"]


def test_a_format_that_no_runtime_knows_is_named(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        namespace, inference_service("exotic", {"model": {"modelFormat": {"name": "cobol"}, "storageUri": "file:///x"}})
    )
    service = cluster.eventually(
        namespace,
        "exotic",
        lambda s: s.get("status", {}).get("modelStatus", {}).get("transitionStatus") == "InvalidSpec",
        "InvalidSpec",
        timeout=SECONDS,
    )
    assert service["status"]["modelStatus"]["lastFailureInfo"]["reason"] == "NoSupportingRuntime"
    assert "cobol" in condition(service, "PredictorReady")["message"]


def test_a_crashing_update_never_takes_traffic_and_says_why(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, sklearn("steady", cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, "steady")
    with Load(cluster.url(namespace, "steady", "/v1/models/steady:predict"), rate=50) as load:
        cluster.apply(namespace, sklearn("steady", "file:///no/such/update"))
        service = cluster.eventually(
            namespace,
            "steady",
            lambda s: s["status"]["modelStatus"].get("transitionStatus") == "BlockedByFailedLoad",
            "BlockedByFailedLoad",
            timeout=SECONDS,
        )
        load.answers.wait_any(50)
    assert load.answers.failures == []
    assert set(load.answers.values) == {1}
    assert "/no/such/update" in json.dumps(service["status"]["modelStatus"])


def test_a_rolling_update_fails_no_request(cluster: Cluster, namespace: str, models: dict[str, Path]) -> None:
    cluster.apply(namespace, sklearn("rolling", cluster.model_uri(models["v1"]), minReplicas=2))
    cluster.wait_ready(namespace, "rolling")
    with Load(cluster.url(namespace, "rolling", "/v1/models/rolling:predict"), rate=50) as load:
        cluster.apply(namespace, sklearn("rolling", cluster.model_uri(models["v2"]), minReplicas=2))
        cluster.eventually(
            namespace,
            "rolling",
            lambda s: s["status"]["components"]["predictor"].get("latestReadyRevision") == "rolling-predictor-00002",
            "on its second revision",
        )
        load.answers.wait(2, 50)
    assert load.answers.failures == []
    assert set(load.answers.values) == {1, 2}
    until(partial(deployments, cluster, namespace), lambda found: found == ["rolling-predictor"], "left with one")


def test_the_gateways_errors_say_what_is_wrong(cluster: Cluster, namespace: str) -> None:
    unknown = httpx.get(cluster.url(namespace, "nobody", "/v2/health/ready"), timeout=60)
    assert unknown.status_code == 404
    assert "nobody" in unknown.json()["error"]
    with grpc.insecure_channel(
        urlsplit(cluster.gateway).netloc, options=[("grpc.default_authority", "nobody.example.com")]
    ) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=60)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_stop_removes_the_workloads_and_start_brings_them_back(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, sklearn("pausable", cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, "pausable")
    cluster.kubectl("annotate", "isvc/pausable", "-n", namespace, "serving.kserve.io/stop=true")
    cluster.eventually(namespace, "pausable", lambda s: condition(s, "Stopped").get("status") == "True", "Stopped")
    until(partial(deployments, cluster, namespace), lambda found: not found, "without Deployments")
    cluster.kubectl("annotate", "isvc/pausable", "-n", namespace, "serving.kserve.io/stop-")
    cluster.wait_ready(namespace, "pausable")
