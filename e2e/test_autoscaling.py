"""A service follows its requests: to zero, back for the first one, up under concurrency and down again, without a failure."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.burst import burst
from e2e.cluster import Cluster, LocalCluster, Part, until
from e2e.load import Load
from e2e.manifests import sklearn
from e2e.models import constant_model

BURSTS = int(os.environ.get("FAIRLEAD_E2E_BURSTS", "1"))
"""How often many requests at once are sent into zero."""
ROW = [[0.0, 0.0, 0.0, 0.0]]
SOON = {
    "fairlead.dev/scale-to-zero-delay": "2s",
    "fairlead.dev/stable-window": "4s",
    "fairlead.dev/panic-window": "2s",
}
"""Delays of seconds, so that a test needs not wait for minutes."""
HELD_SECONDS = 8
"""How long requests wait for a model that cannot come, where a test says so."""


def scaled(name: str, uri: str, **predictor: Any) -> dict[str, Any]:
    service = sklearn(name, uri, **predictor)
    service["metadata"]["annotations"] = SOON
    return service


def replicas(cluster: Cluster, namespace: str, name: str) -> int:
    found: int = cluster.get(namespace, f"{name}-predictor", "deployment")["spec"].get("replicas", 1)
    return found


def await_replicas(cluster: Cluster, namespace: str, name: str, wanted: int) -> None:
    until(lambda: replicas(cluster, namespace, name), lambda now: now == wanted, f"{wanted} replicas of {name}")


def asleep(cluster: Cluster, namespace: str, name: str) -> None:
    """Returns once the service is at zero and no pod of it is left."""
    await_replicas(cluster, namespace, name, 0)
    pods = ("get", "pods", "-n", namespace, "-o", "name")
    until(lambda: cluster.kubectl(*pods).split(), lambda found: not found, "without pods")


def predict(cluster: Cluster, namespace: str, name: str) -> httpx.Response:
    url = cluster.url(namespace, name, f"/v1/models/{name}:predict")
    return httpx.post(url, json={"instances": ROW}, timeout=180)


def test_a_service_without_requests_goes_to_zero_and_the_next_request_wakes_it(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, scaled("digits", cluster.model_uri(models["v1"]), minReplicas=0))
    cluster.wait_ready(namespace, "digits")
    for _ in range(2):
        asleep(cluster, namespace, "digits")
        cluster.wait_ready(namespace, "digits")  # a request sent now succeeds: it is held, and answered
        began = time.monotonic()
        answer = predict(cluster, namespace, "digits")
        seconds = time.monotonic() - began
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == [1]
        print(f"from zero: {seconds:.2f} s")
    decision = cluster.get(namespace, "digits")["status"]["components"]["predictor"]["autoscaling"][0]
    assert decision["desired"] >= 0
    assert decision["reason"]


def test_replicas_follow_the_load_up_and_down_without_a_failure(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    service = scaled(
        "digits", cluster.model_uri(models["v1"]), minReplicas=1, maxReplicas=2, scaleMetric="rps", scaleTarget=20
    )
    cluster.apply(namespace, service)
    cluster.wait_ready(namespace, "digits")
    with Load(cluster.url(namespace, "digits", "/v1/models/digits:predict"), rate=40) as load:
        await_replicas(cluster, namespace, "digits", 2)
        time.sleep(4)
        load.rate = 5
        await_replicas(cluster, namespace, "digits", 1)
        load.answers.wait_any(10)
    assert not load.answers.failures, load.answers.failures[:5]
    assert load.answers.values


# --- Many at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rpc", [False, True], ids=["HTTP", "gRPC"])
def test_five_hundred_requests_into_zero_are_all_answered(
    cluster: Cluster, namespace: str, models: dict[str, Path], rpc: bool
) -> None:
    service = scaled("digits", cluster.model_uri(models["v1"]), minReplicas=0, maxReplicas=2, containerConcurrency=50)
    cluster.apply(namespace, service)
    cluster.wait_ready(namespace, "digits")
    for _ in range(BURSTS):
        asleep(cluster, namespace, "digits")
        alone = burst(cluster.gateway, namespace, "digits", 1, rpc=rpc)
        assert not alone.failures, alone.failures
        asleep(cluster, namespace, "digits")
        answers = burst(cluster.gateway, namespace, "digits", 500, rpc=rpc)
        assert not answers.failures, answers.failures[:5]
        print(f"alone {alone.p99:.2f} s, 500 at once: p99 {answers.p99:.2f} s")


# --- Failures at the worst moment -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part", [Part.OPERATOR, Part.GATEWAY_AGENT, Part.HAPROXY, Part.MODEL_SERVER], ids=lambda part: part.name
)
def test_a_part_killed_while_requests_wait_for_the_wake_up(
    cluster: Cluster, namespace: str, models: dict[str, Path], part: Part
) -> None:
    cluster.apply(namespace, scaled("digits", cluster.model_uri(models["v1"]), minReplicas=0))
    cluster.wait_ready(namespace, "digits")
    asleep(cluster, namespace, "digits")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(burst, cluster.gateway, namespace, "digits", 40)
        if part is Part.MODEL_SERVER:
            kill_as_soon_as_it_runs(cluster, namespace)
        else:
            time.sleep(0.3)
            cluster.kill(part)
        answers = asking.result()
    if part is Part.HAPROXY:
        # What HAProxy held is gone with its connections; a client that asks again is answered.
        assert all("Error" in failure or failure.startswith("503") for failure in answers.failures), answers.failures
        cluster.await_gateway()
        answers = burst(cluster.gateway, namespace, "digits", 40)
    assert not answers.failures, answers.failures[:5]
    cluster.await_api()


def kill_as_soon_as_it_runs(cluster: Cluster, namespace: str) -> None:
    """The model server, which has begun then and does not serve yet."""

    def killed() -> str:
        try:
            cluster.kill(Part.MODEL_SERVER, namespace)
        except AssertionError as error:  # there is none yet
            return str(error)
        return ""

    until(killed, lambda refused: not refused, "killed")


def test_an_operator_killed_in_the_middle_of_a_spike_scales_nothing_down(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    service = scaled(
        "digits", cluster.model_uri(models["v1"]), minReplicas=1, maxReplicas=2, scaleMetric="rps", scaleTarget=15
    )
    cluster.apply(namespace, service)
    cluster.wait_ready(namespace, "digits")
    # So much more than one pod's share that a load which a busy machine lets stall for seconds is still a spike.
    with Load(cluster.url(namespace, "digits", "/v1/models/digits:predict"), rate=60) as load:
        await_replicas(cluster, namespace, "digits", 2)
        cluster.kill(Part.OPERATOR)
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            assert replicas(cluster, namespace, "digits") == 2
            time.sleep(0.3)
    assert not load.answers.failures, load.answers.failures[:5]


def test_the_only_model_server_killed_under_load_fails_no_request_that_it_had_not_seen(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, sklearn("digits", cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, "digits")
    with Load(cluster.url(namespace, "digits", "/v1/models/digits:predict"), rate=30, timeout=60) as load:
        load.answers.wait_any(20)
        cluster.kill(Part.MODEL_SERVER, namespace)
        gone = time.monotonic()
        time.sleep(8)
    # What was with the server that died may not be sent again, and its client hears of that; what came later has waited for the next server.
    assert not load.answers.failures_since(gone), load.answers.failures_since(gone)[:5]
    assert not [failure for failure in load.answers.failures if failure.startswith("503")], load.answers.failures


# --- A wake-up that cannot succeed, and one before traffic ------------------------------------------------------


def test_a_model_that_cannot_come_back_says_why_after_a_bounded_wait_and_then_at_once(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    model = model_taken_away(cluster, namespace, tmp_path)
    began = time.monotonic()
    answer = predict(cluster, namespace, "digits")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert "digits-predictor-00001" in answer.json()["error"]
    assert str(model) in answer.json()["error"]
    assert time.monotonic() - began < 60
    cluster.eventually(namespace, "digits", lambda s: mode(s) == "Paused", "paused")
    began = time.monotonic()
    again = predict(cluster, namespace, "digits")
    assert again.status_code == 503
    assert time.monotonic() - began < HELD_SECONDS, "it has been held"
    assert str(model) in again.json()["error"]
    assert replicas(cluster, namespace, "digits") == 0


def test_a_wake_up_that_cannot_succeed_is_given_up_by_the_operator_that_takes_over_in_the_middle_of_it(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    model = model_taken_away(cluster, namespace, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(predict, cluster, namespace, "digits")
        await_replicas(cluster, namespace, "digits", 1)
        cluster.kill(Part.OPERATOR)
        answer = asking.result()
    assert answer.status_code == 503
    assert str(model) in answer.json()["error"]
    cluster.eventually(namespace, "digits", lambda s: mode(s) == "Paused", "paused")
    assert replicas(cluster, namespace, "digits") == 0


def model_taken_away(cluster: Cluster, namespace: str, directory: Path) -> Path:
    """A service at zero that cannot come back; where its model was."""
    if not isinstance(cluster, LocalCluster):
        pytest.skip("a model that is taken away under a running service: only where the models lie on this machine")
    model = constant_model(directory / "model", 1)
    service = scaled("digits", cluster.model_uri(model), minReplicas=0)
    service["metadata"]["annotations"] |= {"fairlead.dev/activation-timeout": f"{HELD_SECONDS}s"}
    cluster.apply(namespace, service)
    cluster.wait_ready(namespace, "digits")
    asleep(cluster, namespace, "digits")
    shutil.rmtree(model)
    return model


def mode(service: dict[str, Any]) -> str:
    decisions = service["status"]["components"]["predictor"].get("autoscaling", [{}])
    return str(decisions[0].get("mode"))


def test_a_canary_at_zero_is_ready_before_its_share_moves_to_it(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, scaled("digits", cluster.model_uri(models["v1"]), minReplicas=0))
    cluster.wait_ready(namespace, "digits")
    dark = scaled("digits", cluster.model_uri(models["v2"]), minReplicas=0, canaryTrafficPercent=0)
    cluster.apply(namespace, dark)
    cluster.wait_ready(namespace, "digits")
    with Load(cluster.url(namespace, "digits", "/v1/models/digits:predict"), rate=20) as load:
        canary = "digits-predictor-00002"
        deployed = partial(cluster.get, namespace, canary, "deployment")
        until(deployed, lambda seen: seen["spec"].get("replicas", 1) == 0, "at zero, which a canary without a share is")
        dark["spec"]["predictor"]["canaryTrafficPercent"] = 50
        cluster.apply(namespace, dark)
        cluster.eventually(
            namespace, "digits", lambda s: share(s, canary) == 50, "with half of the traffic at the canary"
        )
        assert deployed()["status"].get("availableReplicas", 0) >= 1
        load.answers.wait(2)
        time.sleep(3)
    assert not load.answers.failures, load.answers.failures[:5]


def share(service: dict[str, Any], revision: str) -> int:
    shares = {t["revisionName"]: t["percent"] for t in service["status"]["components"]["predictor"]["traffic"]}
    return int(shares.get(revision, 0))
