"""kill -9 of every part under load: it comes back by itself and no request that could be retried is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from e2e.cluster import Cluster, Part
from e2e.load import Load
from e2e.manifests import sklearn


@pytest.mark.parametrize("part", [Part.API_SERVER, Part.OPERATOR, Part.GATEWAY_AGENT], ids=lambda part: part.name)
def test_a_part_of_the_control_plane_killed_under_load_costs_no_request(
    cluster: Cluster, namespace: str, models: dict[str, Path], part: Part
) -> None:
    cluster.apply(namespace, sklearn("digits", cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, "digits")
    with Load(cluster.url(namespace, "digits", "/v1/models/digits:predict"), rate=50) as load:
        cluster.kill(part)
        time.sleep(3)
        cluster.await_api()
        cluster.apply(namespace, sklearn("digits", cluster.model_uri(models["v2"])))
        revision = "digits-predictor-00002"
        cluster.eventually(
            namespace,
            "digits",
            lambda s: s["status"]["components"]["predictor"].get("latestReadyRevision") == revision,
            "updated after the kill",
        )
        cluster.wait_ready(namespace, "digits")
        load.answers.wait(2, 50)
    assert load.answers.failures == []


def test_one_of_two_model_servers_killed_under_load_costs_no_request_that_could_be_retried(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, sklearn("digits", cluster.model_uri(models["v1"]), minReplicas=2))
    cluster.wait_ready(namespace, "digits")
    with Load(cluster.url(namespace, "digits", "/v1/models/digits:predict"), rate=50) as load:
        load.answers.wait_any(50)
        assert load.answers.failures == []
        cluster.kill(Part.MODEL_SERVER, namespace)
        gone = time.monotonic()
        time.sleep(5)
    # A request whose body was already with the server that died may not be sent again: only those that were out at the moment.
    assert not load.answers.failures_since(gone), load.answers.failures
    assert not [failure for failure in load.answers.failures if failure.startswith("503")], load.answers.failures
    cluster.wait_ready(namespace, "digits")


def test_haproxy_killed_under_load_is_back_within_seconds(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    cluster.apply(namespace, sklearn("digits", cluster.model_uri(models["v1"])))
    cluster.wait_ready(namespace, "digits")
    url = cluster.url(namespace, "digits", "/v1/models/digits:predict")
    cluster.kill(Part.HAPROXY)
    began = time.monotonic()
    cluster.await_gateway()
    assert time.monotonic() - began < 30
    with Load(url, rate=50) as load:
        load.answers.wait(1, 150)
    assert load.answers.failures == []
