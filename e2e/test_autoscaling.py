"""A service follows its requests: to zero, back for the first one, up under concurrency and down again, without a failure."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from e2e.cluster import Cluster
from e2e.load import Load
from e2e.manifests import sklearn

ROW = [[0.0, 0.0, 0.0, 0.0]]
SOON = {
    "fairlead.dev/scale-to-zero-delay": "2s",
    "fairlead.dev/stable-window": "4s",
    "fairlead.dev/panic-window": "2s",
}
"""Delays of seconds, so that a test needs not wait for minutes."""


def scaled(name: str, uri: str, **predictor: Any) -> dict[str, Any]:
    service = sklearn(name, uri, **predictor)
    service["metadata"]["annotations"] = SOON
    return service


def replicas(cluster: Cluster, namespace: str, name: str) -> int:
    found: int = cluster.get(namespace, f"{name}-predictor", "deployment")["spec"].get("replicas", 1)
    return found


def await_replicas(cluster: Cluster, namespace: str, name: str, least: int, most: int, timeout: float = 40) -> None:
    deadline = time.monotonic() + timeout
    while not least <= (now := replicas(cluster, namespace, name)) <= most:
        assert time.monotonic() < deadline, f"{name} has {now} replicas after {timeout:g} s, not {least} to {most}"
        time.sleep(0.2)


def asleep(cluster: Cluster, namespace: str, name: str) -> None:
    """Returns once the service is at zero and no pod of it is left."""
    await_replicas(cluster, namespace, name, 0, 0)
    deadline = time.monotonic() + 60
    while cluster.kubectl("get", "pods", "-n", namespace, "-o", "name").strip():
        assert time.monotonic() < deadline, "pods are still there"
        time.sleep(0.2)


def predict(cluster: Cluster, namespace: str, name: str) -> httpx.Response:
    url = cluster.url(namespace, name, f"/v1/models/{name}:predict")
    return httpx.post(url, json={"instances": ROW}, timeout=100)


def test_a_service_without_requests_goes_to_zero_and_the_next_request_wakes_it(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, scaled("digits", cluster.model_uri(models["v1"]), minReplicas=0))
    cluster.wait_ready(namespace, "digits")
    for _ in range(2):
        asleep(cluster, namespace, "digits")
        cluster.wait_ready(namespace, "digits", timeout=10)  # a request sent now succeeds: it is held, and answered
        began = time.monotonic()
        answer = predict(cluster, namespace, "digits")
        seconds = time.monotonic() - began
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == [1]
        print(f"from zero: {seconds:.2f} s")
    decision = cluster.get(namespace, "digits")["status"]["components"]["predictor"]["autoscaling"][0]
    assert decision["desired"] >= 0
    assert decision["reason"]


def test_a_hundred_requests_into_zero_are_all_answered(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, scaled("digits", cluster.model_uri(models["v1"]), minReplicas=0, maxReplicas=3))
    cluster.wait_ready(namespace, "digits")
    asleep(cluster, namespace, "digits")
    began = time.monotonic()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: predict(cluster, namespace, "digits").status_code, range(100)))
    print(f"100 from zero: {time.monotonic() - began:.2f} s")
    assert answers == [200] * 100


def test_replicas_follow_the_load_up_and_down_without_a_failure(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    service = scaled(
        "digits", cluster.model_uri(models["v1"]), minReplicas=1, maxReplicas=2, scaleMetric="rps", scaleTarget=20
    )
    cluster.apply(namespace, service)
    cluster.wait_ready(namespace, "digits")
    with Load(cluster.url(namespace, "digits", "/v1/models/digits:predict"), rate=40) as load:
        await_replicas(cluster, namespace, "digits", 2, 2)
        time.sleep(4)
        load.rate = 5
        await_replicas(cluster, namespace, "digits", 1, 1)
        time.sleep(1)
    assert not load.answers.failures, load.answers.failures[:5]
    assert load.answers.values
