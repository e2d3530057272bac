"""Reading one's own writes, and applying nothing twice."""

from __future__ import annotations

import pytest
from tests.controllers.fake_api import FakeApi
from tests.controllers.harness import KEY, isvc

from fairlead.controllers.cluster import Cluster, holds
from fairlead.kube.objects import Object, controller_reference
from fairlead.kube.resources import DEPLOYMENTS, INFERENCE_SERVICES


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def owner(api: FakeApi) -> Object:
    return api.put(INFERENCE_SERVICES, isvc())


def child(owner: Object, replicas: int = 1) -> Object:
    labels = {"serving.kserve.io/inferenceservice": KEY.name}
    metadata = {
        "name": "w",
        "namespace": KEY.namespace,
        "labels": labels,
        "ownerReferences": [controller_reference(owner)],
    }
    return {"metadata": metadata, "spec": {"replicas": replicas}}


async def test_a_write_is_read_before_the_informer_has_it(api: FakeApi, owner: Object) -> None:
    cluster = Cluster(api, api.stores)
    await cluster.apply(DEPLOYMENTS, child(owner))
    assert [obj["metadata"]["name"] for obj in cluster.children(DEPLOYMENTS, owner)] == ["w"]


async def test_who_reads_an_own_write_may_do_with_it_what_he_likes(api: FakeApi, owner: Object) -> None:
    cluster = Cluster(api, api.stores)
    await cluster.apply(DEPLOYMENTS, child(owner))
    cluster.children(DEPLOYMENTS, owner)[0]["spec"]["replicas"] = 7
    assert cluster.children(DEPLOYMENTS, owner)[0]["spec"]["replicas"] == 1


async def test_what_the_informer_knows_better_is_believed(api: FakeApi, owner: Object) -> None:
    cluster = Cluster(api, api.stores)
    await cluster.apply(DEPLOYMENTS, child(owner))
    api.put(DEPLOYMENTS, {**child(owner), "spec": {"replicas": 7}})
    api.deliver()
    [found] = cluster.children(DEPLOYMENTS, owner)
    assert found["spec"]["replicas"] == 7


async def test_what_was_deleted_is_gone_before_the_informer_knows(api: FakeApi, owner: Object) -> None:
    cluster = Cluster(api, api.stores)
    await cluster.apply(DEPLOYMENTS, child(owner))
    api.deliver()
    await cluster.delete(DEPLOYMENTS, cluster.children(DEPLOYMENTS, owner)[0])
    assert cluster.children(DEPLOYMENTS, owner) == []
    api.deliver()
    await cluster.apply(DEPLOYMENTS, child(owner))
    assert len(cluster.children(DEPLOYMENTS, owner)) == 1


async def test_a_write_that_somebody_undid_unseen_is_forgotten_in_time(api: FakeApi, owner: Object) -> None:
    now = 0.0
    cluster = Cluster(api, api.stores, clock=lambda: now)
    await cluster.apply(DEPLOYMENTS, child(owner))
    api.objects = {}
    now = 61.0
    assert cluster.children(DEPLOYMENTS, owner) == []


async def test_children_of_an_earlier_object_of_the_same_name_are_not_ours(api: FakeApi, owner: Object) -> None:
    api.put(DEPLOYMENTS, child({**owner, "metadata": {**owner["metadata"], "uid": "earlier"}}))
    api.deliver()
    assert Cluster(api, api.stores).children(DEPLOYMENTS, owner) == []


async def test_the_same_is_applied_once(api: FakeApi, owner: Object) -> None:
    cluster = Cluster(api, api.stores)
    await cluster.apply(DEPLOYMENTS, child(owner))
    await cluster.apply(DEPLOYMENTS, child(owner))
    assert api.calls == ["apply Deployment w"]
    await cluster.apply(DEPLOYMENTS, child(owner, replicas=2))
    assert len(api.calls) == 2


@pytest.mark.parametrize(
    ("current", "desired", "expected"),
    [
        ({"a": 1, "server": "default"}, {"a": 1}, True),
        ({"a": 2}, {"a": 1}, False),
        ({"l": [{"x": 1, "d": 0}]}, {"l": [{"x": 1}]}, True),
        ({"l": [1, 2]}, {"l": [1]}, False),
        ({"cpu": "1"}, {"cpu": "1000m"}, True),
        ({"cpu": "1"}, {"cpu": "2"}, False),
        ({}, {"annotations": {}, "list": [], "text": ""}, True),
        ({}, {"a": {"b": 1}}, False),
        ({"emptyDir": {}}, {"emptyDir": {}}, True),
    ],
)
def test_what_is_desired_holds_whatever_the_server_adds(current: Object, desired: Object, expected: bool) -> None:
    assert holds(current, desired) is expected
