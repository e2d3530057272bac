"""What a pod's start was made of, from its status and its model server's metrics."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.controllers.harness import KEY, Harness, isvc

from fairlead.controllers.autoscaler.board import Board, Start
from fairlead.controllers.autoscaler.scraping import Unanswered
from fairlead.controllers.autoscaler.starts import Starts, start
from fairlead.kube.objects import Key, Object
from fairlead.kube.resources import INFERENCE_SERVICES

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SERVICE = Key("team", "iris")


def at(second: int) -> str:
    return f"2026-11-21T12:00:{second:02d}Z"


def pod(*, ready: bool = True, init: bool = False, **metadata: Any) -> Object:
    labels = {
        "serving.kserve.io/inferenceservice": "iris",
        "fairlead.dev/workload": "iris-predictor",
        "fairlead.dev/revision": "r1",
    }
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(1)},
        {"type": "Ready", "status": str(ready), "lastTransitionTime": at(9)},
    ]
    status: Object = {
        "podIP": "10.0.0.1",
        "conditions": conditions,
        "containerStatuses": [{"state": {"running": {"startedAt": at(5)}}}],
    }
    if init:
        status["initContainerStatuses"] = [{"state": {"terminated": {"startedAt": at(2), "finishedAt": at(4)}}}]
    named = {"name": "iris-1", "namespace": "team", "labels": labels, "creationTimestamp": at(0), **metadata}
    return {"metadata": named, "status": status}


METRICS = f"""fairlead_process_start_time_seconds {NOON.timestamp() + 3.25:.3f}
fairlead_startup_seconds{{phase="import"}} 1.5
fairlead_startup_seconds{{phase="download"}} 2
fairlead_startup_seconds{{phase="load"}} 0.75
fairlead_startup_seconds{{phase="ready"}} 0.01
"""


def phases(found: Start | None) -> dict[str, float]:
    assert found is not None
    return {phase: round(seconds, 2) for phase, seconds in found.seconds.items()}


def test_a_model_server_of_ours_tells_its_own_part_to_the_millisecond() -> None:
    found = phases(start(pod(), METRICS))
    assert found == {"schedule": 1, "image": 2.25, "download": 2, "import": 1.5, "load": 0.75, "ready": 1.5}
    assert sum(found.values()) == 9


def test_of_others_what_kubernetes_knows_is_told() -> None:
    assert phases(start(pod(init=True), "")) == {"schedule": 1, "image": 2, "download": 2, "ready": 4}


def test_the_decision_is_the_beginning_where_it_led_to_this_pod_and_only_there() -> None:
    assert phases(start(pod(), "", decided=NOON.replace(microsecond=400_000)))["schedule"] == 0.6
    assert phases(start(pod(), "", decided=NOON.replace(hour=11)))["schedule"] == 1


def test_a_phase_is_never_negative_although_kubernetes_tells_whole_seconds() -> None:
    early = METRICS.replace(f"{NOON.timestamp() + 3.25:.3f}", f"{NOON.timestamp() + 0.5:.3f}")
    assert min(phases(start(pod(), early)).values()) >= 0


def test_a_pod_that_does_not_say_when_it_was_scheduled_is_not_guessed_at() -> None:
    bare = pod()
    bare["status"]["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": at(9)}]
    assert start(bare, METRICS) is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e300", "-1", "soon"])
def test_what_a_model_server_says_that_is_no_time_is_left_out(value: str) -> None:
    """Anybody's container may say so; it must not end the operator, nor get into a status."""
    odd = f'fairlead_process_start_time_seconds {value}\nfairlead_startup_seconds{{phase="load"}} {value}\n'
    assert phases(start(pod(), odd)) == phases(start(pod(), ""))


def test_an_init_container_that_its_node_has_forgotten_took_no_time() -> None:
    forgotten = pod()
    state = {"terminated": {"reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}}
    forgotten["status"]["initContainerStatuses"] = [{"state": state}]
    assert phases(start(forgotten, "")) == phases(start(pod(), ""))


class Measuring:
    def __init__(self, *, answers: bool = True) -> None:
        self.board, self.asked, self.changed = Board(), list[str](), list[Key]()
        self.answers, self.now = answers, NOON.replace(second=10)
        self.starts = Starts(self.board, lambda _: 8085, self._fetch, self.changed.append, now=lambda: self.now)

    async def _fetch(self, url: str) -> str:
        self.asked.append(url)
        if not self.answers:
            raise Unanswered("refused")
        return METRICS


async def test_a_pod_is_asked_once_when_it_becomes_ready() -> None:
    world = Measuring()
    for old, new in [(None, pod(ready=False)), (pod(ready=False), pod()), (pod(), pod(resourceVersion="2"))]:
        world.starts.noticed(old, new)
    assert world.starts._pods.qsize() == 1
    await world.starts.measure(world.starts._pods.get_nowait())
    assert world.asked == ["http://10.0.0.1:8085/metrics"]
    assert world.changed == [SERVICE]
    assert world.board.starts(SERVICE)["r1"].status() == {
        "pod": "iris-1",
        "readyTime": at(9),
        "seconds": 9,
        "phases": {"schedule": 1, "image": 2.25, "download": 2, "import": 1.5, "load": 0.75, "ready": 1.5},
    }


async def test_pods_that_were_ready_before_the_operator_came_are_not_asked() -> None:
    world = Measuring()
    world.now = NOON.replace(minute=5)
    world.starts.noticed(None, pod())
    assert world.starts._pods.empty()


async def test_a_server_that_does_not_answer_costs_only_its_own_part() -> None:
    world = Measuring(answers=False)
    await world.starts.measure(pod())
    assert set(world.board.starts(SERVICE)["r1"].seconds) == {"schedule", "image", "download", "ready"}


async def test_a_pod_that_cannot_be_measured_keeps_no_other_from_being(caplog: pytest.LogCaptureFixture) -> None:
    world = Measuring()
    odd, sound = pod(name="odd"), pod()
    odd["status"]["conditions"][0]["lastTransitionTime"] = "soon"
    world.starts.noticed(None, odd)
    world.starts.noticed(None, sound)
    running = asyncio.create_task(world.starts.run())
    while not world.changed:
        await asyncio.sleep(0)
    running.cancel()
    assert [record.getMessage() for record in caplog.records] == ["the start of team/odd is not measured"]


async def test_a_standby_does_not_gather_pods_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.controllers.autoscaler.starts.AT_MOST", 5)
    world = Measuring()
    for number in range(50):
        world.starts.noticed(None, pod(name=f"iris-{number}"))
    assert world.starts._pods.qsize() == 5


async def test_the_status_keeps_the_last_start_of_each_revision_when_the_operator_restarts() -> None:
    world = Harness()
    world.apply(isvc())
    await world.settle()
    revision = world.api.objects[INFERENCE_SERVICES, KEY]["status"]["components"]["predictor"]["latestReadyRevision"]
    world.board.started(KEY, revision, Start("iris-1", at(9), {"image": 1.25, "ready": 2.0}))
    await world.settle()
    world.restart_operator()
    await world.settle()
    [told] = world.api.objects[INFERENCE_SERVICES, KEY]["status"]["components"]["predictor"]["starts"]
    assert told == {
        "revisionName": revision,
        "pod": "iris-1",
        "readyTime": at(9),
        "seconds": 3.25,
        "phases": {"image": 1.25, "ready": 2.0},
    }
