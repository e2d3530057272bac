"""Deployments and pods, as their statuses tell."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.controllers.inferenceservice.failures import copies
from fairlead.controllers.inferenceservice.readiness import readiness
from fairlead.controllers.inferenceservice.revisions import Readiness, Revision

PROGRESSED = [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]


def deployment(revision: str = "r2", *, replicas: int = 2, generation: int = 2, **status: Any) -> dict[str, Any]:
    given = {"observedGeneration": 2, "replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas}
    return {
        "metadata": {"name": "w", "generation": generation, "labels": {"fairlead.dev/revision": revision}},
        "spec": {"replicas": replicas},
        "status": {**given, **status},
    }


def of(obj: dict[str, Any]) -> Readiness:
    return readiness([obj], (), (), "")["r2"]


def test_all_pods_new_and_available_is_ready() -> None:
    assert of(deployment()) is Readiness.READY


def test_a_status_of_an_older_generation_says_nothing_about_this_one() -> None:
    assert of(deployment(generation=3)) is Readiness.PENDING


def test_while_old_pods_are_still_there_the_new_revision_is_not_ready() -> None:
    assert of(deployment(updatedReplicas=1, availableReplicas=2, conditions=PROGRESSED)) is Readiness.PENDING


def test_it_becomes_ready_only_with_all_its_pods_and_stays_so_with_one() -> None:
    assert of(deployment(availableReplicas=1)) is Readiness.PENDING
    assert of(deployment(availableReplicas=1, conditions=PROGRESSED)) is Readiness.READY


def test_without_a_pod_it_is_lost_not_new() -> None:
    assert of(deployment(availableReplicas=0, conditions=PROGRESSED)) is Readiness.LOST


def test_pods_added_later_do_not_make_it_unready() -> None:
    scaled = deployment(replicas=5, updatedReplicas=5, availableReplicas=2, conditions=PROGRESSED)
    assert of({**scaled, "status": {**scaled["status"], "replicas": 5}}) is Readiness.READY


def test_the_rolled_out_revision_is_ready_while_its_deployment_rolls_on() -> None:
    rolling = deployment(updatedReplicas=1, availableReplicas=2)
    stable = Revision("r1", 1, "d", "w")
    assert readiness([rolling], (), [stable], "r1") == {"r2": Readiness.PENDING, "r1": Readiness.READY}
    assert readiness([], (), [stable], "r1") == {"r1": Readiness.LOST}


def test_a_revision_that_its_deployment_is_leaving_is_ready_by_its_pods() -> None:
    rolling = deployment(updatedReplicas=1, availableReplicas=1)
    labels = {"fairlead.dev/workload": "w", "fairlead.dev/revision": "r1"}
    old = {"metadata": {"labels": labels}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert readiness([rolling], [old], (), "") == {"r2": Readiness.PENDING, "r1": Readiness.READY}
    ending = {**old, "metadata": {"labels": labels, "deletionTimestamp": "2026-11-21T00:00:00Z"}}
    assert readiness([rolling], [ending], (), "") == {"r2": Readiness.PENDING}


def ready_pod(revision: str = "r2", **labels: str) -> dict[str, Any]:
    labels = {"fairlead.dev/workload": "w", "fairlead.dev/revision": revision, **labels}
    return {"metadata": {"labels": labels}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def test_all_its_pods_ready_is_ready_before_the_deployments_status_says_so() -> None:
    starting = deployment(availableReplicas=0)
    unready = {**ready_pod(), "status": {}}
    assert readiness([starting], [ready_pod(), unready], (), "") == {"r2": Readiness.PENDING}
    assert readiness([starting], [ready_pod(), ready_pod()], (), "") == {"r2": Readiness.READY}
    unseen = {**starting, "status": {}}
    assert readiness([unseen], [ready_pod(), ready_pod()], (), "") == {"r2": Readiness.READY}


@pytest.mark.parametrize(
    "others",
    [
        [ready_pod("r1")],
        [{**ready_pod("r1"), "status": {}}],
        [ready_pod(**{"fairlead.dev/workload": "another"})],
        [ready_pod(**{"fairlead.dev/role": "worker"})],
        [{**ready_pod(), "metadata": {**ready_pod()["metadata"], "deletionTimestamp": "2026-11-21T00:00:00Z"}}],
    ],
    ids=["old", "old and not ready", "another workload's", "a worker", "ending"],
)
def test_pods_that_are_not_its_own_new_ones_do_not_make_it_ready(others: list[dict[str, Any]]) -> None:
    starting = deployment(availableReplicas=0)
    assert readiness([starting], [ready_pod(), *others], (), "")["r2"] is Readiness.PENDING


def test_a_new_deployment_without_pods_is_not_ready() -> None:
    starting = {**deployment(replicas=0, availableReplicas=0), "status": {}}
    assert readiness([starting], (), (), "") == {"r2": Readiness.PENDING}


def test_while_an_old_pod_is_there_the_new_ones_wait() -> None:
    starting = deployment(availableReplicas=0)
    assert readiness([starting], [ready_pod(), ready_pod(), ready_pod("r1")], (), "")["r2"] is Readiness.PENDING


# --- Failures --------------------------------------------------------------------------------------------------------


def pod(**container: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "labels": {}},
        "status": {"containerStatuses": [{"name": "kserve-container", "ready": False, **container}]},
    }


def ended(exit_code: int, message: str = "boom", **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": exit_code, "message": message, "finishedAt": "2026-11-21T00:00:00Z", **more}}


def test_a_crash_is_a_failure_to_load_at_once_and_between_restarts() -> None:
    for state in (
        {"state": ended(3)},
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended(3)},
        {"state": {"running": {}}, "lastState": ended(3)},
    ):
        found = copies([pod(**state)], None, was_ready=False)
        assert found.failure is not None
        assert (found.failed, found.failure.reason, found.failure.exit_code) == (1, "ModelLoadFailed", 3)
        assert found.failure.summary == "boom (exit code 3)"


def test_a_model_that_has_served_can_be_loaded_so_its_crash_is_another_fault() -> None:
    found = copies([pod(state=ended(1))], None, was_ready=True)
    assert found.failure is not None
    assert found.failure.reason == "RuntimeUnhealthy"


@pytest.mark.parametrize(
    "state", [{"state": {"running": {}}}, {"state": {"waiting": {"reason": "ContainerCreating"}}}, {}]
)
def test_a_pod_on_its_way_is_no_failure(state: dict[str, Any]) -> None:
    assert copies([pod(**state)], None, was_ready=False).failed == 0


def test_a_container_that_recovered_is_no_failure() -> None:
    assert copies([pod(ready=True, state={"running": {}}, lastState=ended(1))], None, was_ready=False).failed == 0


def test_an_image_that_is_not_there_is_named() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x:1"'}
    found = copies([pod(state={"waiting": waiting})], None, was_ready=False)
    assert found.failure is not None
    assert found.failure.message == 'ImagePullBackOff: Back-off pulling image "x:1"'


def test_a_failed_fetch_is_a_failure_to_load() -> None:
    failing = pod()
    failing["status"]["initContainerStatuses"] = [
        {"name": "storage-initializer", "ready": False, "lastState": ended(1, "s3://b/m: no such bucket")}
    ]
    found = copies([failing], None, was_ready=False)
    assert found.failure is not None
    assert found.failure.summary == "s3://b/m: no such bucket (exit code 1)"


def test_out_of_memory_says_what_to_do() -> None:
    found = copies([pod(state=ended(137, "", reason="OOMKilled"))], None, was_ready=False)
    assert found.failure is not None
    assert "higher memory limit" in found.failure.summary


def test_a_pod_that_finds_no_node_says_why_without_being_a_failure() -> None:
    waiting = {
        "metadata": {"name": "p", "labels": {}},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]},
    }
    found = copies([waiting], None, was_ready=False)
    assert (found.failure, found.waiting) == (None, "0/1 nodes")


def test_pods_that_cannot_be_created_are_a_failure() -> None:
    refused = {"status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}}
    found = copies([], refused, was_ready=False)
    assert found.failure is not None
    assert found.failure.message == "exceeded quota"


def test_a_pod_that_is_being_deleted_does_not_count() -> None:
    leaving = pod(state=ended(1))
    leaving["metadata"]["deletionTimestamp"] = "2026-11-21T00:00:00Z"
    assert copies([leaving], None, was_ready=False).total == 0
