"""Canaries under load: up, promoted, rolled back, replaced; never a failed request, and the split is the weight."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

from e2e.cluster import Cluster
from e2e.load import Load
from e2e.manifests import sklearn

ENOUGH = 1700
"""Answers to judge a split by: at 150 requests a second they come in 11 s, on a busy machine later."""
BAND = 3.4
"""Standard deviations. A fair split leaves this band once in 1,500 measurements, and twice in succession once in two millions."""


def predict_url(cluster: Cluster, namespace: str, name: str) -> str:
    return cluster.url(namespace, name, f"/v1/models/{name}:predict")


def percents(service: dict[str, Any]) -> dict[str, int]:
    """Revision -> percent, as status says."""
    traffic = service.get("status", {}).get("components", {}).get("predictor", {}).get("traffic", [])
    return {target["revisionName"]: target["percent"] for target in traffic}


def within_binomial_band(hits: int, total: int, weight: float) -> bool:
    """Whether a share lies in the band of its weight (normal approximation, half a count for continuity)."""
    return abs(hits / total - weight) <= BAND * sqrt(weight * (1 - weight) / total) + 0.5 / total


def assert_split(load: Load, weights: dict[int, float]) -> None:
    """Each value's share of the answers is its weight, in one of two measurements."""
    for _ in range(2):
        since = load.answers.wait_any(ENOUGH)
        before = load.answers.settled()  # what a slower revision answers later counts as much
        shares = {value: load.answers.share(value, since, before) for value in weights}
        if all(within_binomial_band(*shares[value], weight) for value, weight in weights.items()):
            return
    raise AssertionError(f"hits and answers {shares} do not fit the weights {weights}, in two measurements")


def assert_all(load: Load, value: int) -> None:
    """Whoever asks from now on gets this value."""
    since = load.answers.wait_any(300)
    hits, total = load.answers.share(value, since)
    assert hits == total, f"{total - hits} of {total} were not {value}"


def test_a_canary_goes_up_is_promoted_and_rolled_back_without_a_failed_request(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    name = "digits"
    v1, v2, v3 = (cluster.model_uri(models[key]) for key in ("v1", "v2", "v3"))
    first, second, third = (f"{name}-predictor-{number:05d}" for number in (1, 2, 3))
    cluster.apply(namespace, sklearn(name, v1, canaryTrafficPercent=10))
    service = cluster.wait_ready(namespace, name)
    assert percents(service) == {first: 100}, "on first create the percentage is ignored"

    with Load(predict_url(cluster, namespace, name), rate=150) as load:
        cluster.apply(namespace, sklearn(name, v2, canaryTrafficPercent=20))
        cluster.eventually(namespace, name, lambda s: percents(s) == {first: 80, second: 20}, "at 80/20")
        cluster.wait_ready(namespace, name)
        assert_split(load, {2: 0.2})

        cluster.apply(namespace, sklearn(name, v2))
        service = cluster.eventually(namespace, name, lambda s: percents(s) == {second: 100}, "promoted")
        component = service["status"]["components"]["predictor"]
        assert component["latestRolledoutRevision"] == second
        assert component["previousRolledoutRevision"] == first
        cluster.wait_ready(namespace, name)
        assert_all(load, 2)

        cluster.apply(namespace, sklearn(name, v3, canaryTrafficPercent=50))
        cluster.eventually(namespace, name, lambda s: percents(s) == {second: 50, third: 50}, "at 50/50")
        cluster.apply(namespace, sklearn(name, v3, canaryTrafficPercent=0))
        cluster.eventually(namespace, name, lambda s: percents(s) == {second: 100, third: 0}, "rolled back")
        cluster.wait_ready(namespace, name)
        assert_all(load, 2)
    assert load.answers.failures == []


def test_the_canarys_pods_are_not_restarted_when_it_is_promoted(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    name = "digits"
    cluster.apply(namespace, sklearn(name, cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, name)
    cluster.apply(namespace, sklearn(name, cluster.model_uri(models["v2"]), canaryTrafficPercent=30))
    cluster.eventually(namespace, name, lambda s: sorted(percents(s).values()) == [30, 70], "at 70/30")
    selector = f"fairlead.dev/revision={name}-predictor-00002"
    pods = ("get", "pods", "-n", namespace, "-l", selector, "-o", "jsonpath={.items[*].metadata.uid}")
    before = cluster.kubectl(*pods)
    assert before
    cluster.apply(namespace, sklearn(name, cluster.model_uri(models["v2"])))
    cluster.eventually(namespace, name, lambda s: percents(s) == {f"{name}-predictor-00002": 100}, "promoted")

    def only_the_promoted_deployment_is_left(_: dict[str, Any]) -> bool:
        return len(cluster.kubectl("get", "deployments", "-n", namespace, "-o", "name").split()) == 1

    cluster.eventually(namespace, name, only_the_promoted_deployment_is_left, "left with one Deployment")
    assert cluster.kubectl(*pods) == before


def test_a_third_revision_replaces_the_canary_that_runs(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    name = "digits"
    cluster.apply(namespace, sklearn(name, cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, name)
    with Load(predict_url(cluster, namespace, name), rate=50) as load:
        load.answers.wait(1)
        for number in (2, 3):
            uri = cluster.model_uri(models[f"v{number}"])
            cluster.apply(namespace, sklearn(name, uri, canaryTrafficPercent=25))
            wanted = {f"{name}-predictor-00001": 75, f"{name}-predictor-{number:05d}": 25}
            cluster.eventually(namespace, name, lambda s, wanted=wanted: percents(s) == wanted, f"at {wanted}")
            load.answers.wait(number)
    assert load.answers.failures == []
    assert set(load.answers.values) == {1, 2, 3}


def test_a_canary_that_cannot_load_gets_no_traffic(cluster: Cluster, namespace: str, models: dict[str, Path]) -> None:
    name = "digits"
    cluster.apply(namespace, sklearn(name, cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, name)
    with Load(predict_url(cluster, namespace, name), rate=50) as load:
        cluster.apply(namespace, sklearn(name, "file:///no/such/canary", canaryTrafficPercent=50))
        service = cluster.eventually(
            namespace,
            name,
            lambda s: s["status"]["modelStatus"].get("transitionStatus") == "BlockedByFailedLoad",
            "BlockedByFailedLoad",
        )
        load.answers.wait_any(50)
    assert load.answers.failures == []
    assert set(load.answers.values) == {1}
    assert percents(service).get(f"{name}-predictor-00001") == 100


def test_named_canaries_split_and_are_promoted_by_name(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    name = "digits"
    stable = sklearn(name, cluster.model_uri(models["v1"]))
    cluster.apply(namespace, stable)
    cluster.wait_ready(namespace, name)

    def entry(canary: str, key: str, percent: int) -> dict[str, Any]:
        predictor = sklearn(name, cluster.model_uri(models[key]))["spec"]["predictor"]
        return {"trafficPercent": percent, "predictor": {"name": canary, **predictor}}

    with Load(predict_url(cluster, namespace, name), rate=150) as load:
        stable["spec"]["canary"] = [entry("two", "v2", 20), entry("three", "v3", 30)]
        cluster.apply(namespace, stable)
        cluster.eventually(namespace, name, lambda s: sorted(percents(s).values()) == [20, 30, 50], "at 50/20/30")
        service = cluster.wait_ready(namespace, name)
        assert {c["name"]: c["ready"] for c in service["status"]["canaryStatuses"]} == {"two": True, "three": True}
        assert_split(load, {2: 0.2, 3: 0.3})

        promoted = sklearn(name, cluster.model_uri(models["v2"]))
        promoted["spec"]["predictor"]["name"] = "two"
        cluster.kubectl("replace", "-n", namespace, "-f", "-", stdin=json.dumps(promoted))
        cluster.eventually(namespace, name, lambda s: list(percents(s).values()) == [100], "promoted by name")
        cluster.wait_ready(namespace, name)
        assert_all(load, 2)
    assert load.answers.failures == []
