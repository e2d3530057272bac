from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from tests.kube.fakes import FakeApi, obj, unavailable
from tests.kube.virtual_time import settle, virtual_time

from fairlead.kube import metrics
from fairlead.kube.events import BURST, MESSAGE_LIMIT, PENDING, REFILL, REMEMBERED, Events
from fairlead.kube.objects import Key, Object


def now() -> float:
    return asyncio.get_running_loop().time()


def recorder(api: FakeApi) -> Events:
    return Events(api, "operator", now=lambda: datetime.fromtimestamp(now(), UTC), clock=now)


def service(name: str) -> Object:
    about = {**obj(name), "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    about["metadata"]["uid"] = f"uid-of-{name}"
    return about


def written(api: FakeApi) -> list[tuple[str, int]]:
    return [(event["message"], event["count"]) for event in api.objects.values()]


def dropped(reason: str) -> float:
    return metrics.REGISTRY.get_sample_value("fairlead_events_dropped_total", {"reason": reason}) or 0


@virtual_time
async def test_an_event_says_what_kubectl_describe_shows() -> None:
    api = FakeApi()
    recorder(api).emit(service("iris"), "Warning", "ModelLoadFailed", "no such file")
    await settle()
    (event,) = api.objects.values()
    assert event["involvedObject"] == {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "namespace": "ns",
        "name": "iris",
        "uid": "uid-of-iris",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "ModelLoadFailed", "no such file")
    assert event["source"]["component"] == event["reportingComponent"] == "operator"
    assert event["firstTimestamp"] == event["lastTimestamp"] == "1970-01-01T00:16:40Z"


@virtual_time
async def test_the_same_event_is_counted_not_repeated() -> None:
    api = FakeApi()
    events = recorder(api)
    for _ in range(3):
        events.emit(service("iris"), "Normal", "Scaled", "to 2")
        await asyncio.sleep(60)
    events.emit(service("iris"), "Normal", "Scaled", "to 3")
    await settle()
    assert written(api) == [("to 2", 3), ("to 3", 1)]
    assert next(iter(api.objects.values()))["lastTimestamp"] == "1970-01-01T00:18:40Z"


@virtual_time
async def test_an_event_that_the_server_has_forgotten_is_told_anew() -> None:
    api = FakeApi()
    events = recorder(api)
    events.emit(service("iris"), "Normal", "Scaled", "to 2")
    await settle()
    for key in list(api.objects):
        api.remove(key)
    events.emit(service("iris"), "Normal", "Scaled", "to 2")
    await settle()
    assert written(api) == [("to 2", 1)]


@virtual_time
async def test_an_event_about_something_without_a_namespace_goes_to_default() -> None:
    api = FakeApi()
    node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    recorder(api).emit(node, "Normal", "Registered", "hello")
    await settle()
    assert [key.namespace for key in api.objects] == ["default"]


@virtual_time
async def test_an_object_that_never_stops_talking_is_limited_and_others_are_not() -> None:
    api = FakeApi()
    events = recorder(api)
    before = dropped("rate")
    for number in range(100):
        events.emit(service("noisy"), "Warning", "Failed", f"attempt {number}")
    events.emit(service("quiet"), "Normal", "Created", "hello")
    await settle()
    assert len(api.objects) == BURST + 1
    assert dropped("rate") - before == 100 - BURST
    await asyncio.sleep(REFILL + 1)
    events.emit(service("noisy"), "Warning", "Failed", "once more")
    events.emit(service("noisy"), "Warning", "Failed", "and again")
    await settle()
    assert len(api.objects) == BURST + 2


@virtual_time
async def test_a_server_that_is_away_costs_events_but_never_the_caller() -> None:
    api = FakeApi()
    events = recorder(api)
    api.fail = [unavailable()]
    before = dropped("error")
    events.emit(service("iris"), "Normal", "Lost", "lost")
    events.emit(service("iris"), "Normal", "Kept", "kept")
    await settle()
    assert written(api) == [("kept", 1)]
    assert dropped("error") - before == 1


@virtual_time
async def test_what_waits_and_what_is_remembered_is_bounded() -> None:
    api = FakeApi()
    api.delay = 1e9
    events = recorder(api)
    before = dropped("backlog")
    for number in range(REMEMBERED + 500):
        events.emit(service(f"s{number}"), "Normal", "Created", "hello")
    await settle()
    assert len(events._pending) <= PENDING
    assert len(events._buckets) <= REMEMBERED
    assert dropped("backlog") - before >= REMEMBERED + 500 - PENDING - 1
    began = now()
    await events.close()
    assert now() - began == pytest.approx(2)


@virtual_time
async def test_a_message_longer_than_the_api_takes_is_cut() -> None:
    api = FakeApi()
    recorder(api).emit(service("iris"), "Warning", "Failed", "x" * 5000)
    await settle()
    (event,) = api.objects.values()
    assert len(event["message"]) == MESSAGE_LIMIT
    assert event["message"].endswith("…")


@virtual_time
async def test_closing_writes_what_is_pending() -> None:
    api = FakeApi()
    events = recorder(api)
    events.emit(service("iris"), "Normal", "Created", "hello")
    await events.close()
    assert written(api) == [("hello", 1)]
    assert {key.namespace for key in api.objects} == {Key("ns", "").namespace}
