"""A pod's status from what its containers do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fairlead.kube.objects import Object
from fairlead.local.node.pod_status import ContainerRecord, pod_status, terminated

NOW = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
RUNNING = {"running": {"startedAt": "2026-11-21T10:00:00Z"}}


def ended(code: int) -> Object:
    return terminated(code, NOW, NOW, container_id="process://x", message="", out_of_memory=False)


def record(state: Object | None = None, **fields: Any) -> ContainerRecord:
    made = ContainerRecord("c", "image", **fields)
    if state is not None:
        made.state = state
    return made


def status(
    *main: ContainerRecord, init: tuple[ContainerRecord, ...] = (), policy: str = "Always", **metadata: Any
) -> Object:
    pod = {"metadata": {"name": "p", **metadata}, "spec": {"restartPolicy": policy}}
    return pod_status(pod, list(init), list(main), ip="127.64.0.1", started=NOW, now=NOW)


def condition(found: Object, kind: str) -> str:
    return str(next(item["status"] for item in found["conditions"] if item["type"] == kind))


@pytest.mark.parametrize(
    ("main", "init", "policy", "phase"),
    [
        ([record()], [], "Always", "Pending"),
        ([record()], [record(RUNNING)], "Always", "Pending"),
        ([record()], [record(ended(1))], "Always", "Pending"),
        ([record()], [record(ended(1))], "Never", "Failed"),
        ([record(RUNNING)], [record(ended(0))], "Always", "Running"),
        ([record({"waiting": {"reason": "CrashLoopBackOff"}}, last_state=ended(1))], [], "Always", "Running"),
        ([record(ended(0))], [], "Never", "Succeeded"),
        ([record(ended(0)), record(ended(3))], [], "Never", "Failed"),
        ([record(ended(0)), record(RUNNING)], [], "Never", "Running"),
        ([record(ended(3))], [], "OnFailure", "Running"),
        ([record(ended(0))], [], "OnFailure", "Succeeded"),
    ],
)
def test_the_phase(main: list[ContainerRecord], init: list[ContainerRecord], policy: str, phase: str) -> None:
    assert status(*main, init=tuple(init), policy=policy)["phase"] == phase


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    assert condition(status(record(RUNNING, ready=True)), "Ready") == "True"
    half = status(record(RUNNING, ready=True), record(RUNNING))
    assert condition(half, "Ready") == condition(half, "ContainersReady") == "False"


def test_a_pod_that_is_being_deleted_is_not_ready() -> None:
    assert condition(status(record(RUNNING, ready=True), deletionTimestamp="2026-11-21T10:00:00Z"), "Ready") == "False"


def test_a_condition_keeps_its_time_while_it_does_not_change() -> None:
    first = status(record(RUNNING, ready=True))
    pod = {"metadata": {"name": "p"}, "spec": {}, "status": first}
    later = datetime(2026, 11, 21, 11, 0, 0, tzinfo=UTC)
    again = pod_status(pod, [], [record(RUNNING, ready=True)], ip="127.64.0.1", started=NOW, now=later)
    assert again == first


def test_a_signal_becomes_an_exit_code_above_128_and_is_named() -> None:
    state = ended(-9)["terminated"]
    assert (state["exitCode"], state["signal"], state["message"], state["reason"]) == (
        137,
        9,
        "killed by SIGKILL",
        "Error",
    )


def test_memory_has_a_reason_of_its_own() -> None:
    state = terminated(-9, NOW, NOW, container_id="", message="", out_of_memory=True)["terminated"]
    assert (state["exitCode"], state["reason"]) == (137, "OOMKilled")
