"""The rolling update as a simulation: random steps of pods becoming ready, failing and going, between the controller's own."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.kube.objects import Object, timestamp
from fairlead.local.node import objects
from fairlead.local.node.rolling_update import HASH_LABEL, REVISION, Plan, hash_template, limits, plan

T0 = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)


def deployment(replicas: int = 1, image: str = "v1", **spec: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris-predictor", "namespace": "team-a", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "iris"}},
            "template": {
                "metadata": {"labels": {"app": "iris"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            **spec,
        },
    }


class Cluster:
    """Just enough of an API server and a kubelet to carry out plans."""

    def __init__(self, deployment: Object) -> None:
        self.deployment = deployment
        self.replicasets: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.now = T0
        self._numbers = count(1)

    def step(self) -> Plan:
        result = plan(deepcopy(self.deployment), list(self.replicasets.values()), list(self.pods.values()), self.now)
        if result.create_replicaset:
            new = deepcopy(result.create_replicaset)
            new["metadata"] |= {"uid": f"rs-{next(self._numbers)}", "generation": 1}
            self.replicasets[new["metadata"]["name"]] = new
        for name, replicas in result.scale.items():
            self.replicasets[name]["spec"]["replicas"] = replicas
        for name, revision in result.annotate.items():
            self.replicasets[name]["metadata"]["annotations"][REVISION] = revision
        for name in result.delete_pods:
            self.pods[name]["metadata"]["deletionTimestamp"] = timestamp(self.now)
        for name, number in result.create_pods.items():
            for _ in range(number):
                self._create_pod(self.replicasets[name])
        for name, status in result.replicaset_status.items():
            self.replicasets[name]["status"] = status
        for name in result.delete_replicasets:
            del self.replicasets[name]
        if result.revision is not None:
            self.deployment["metadata"].setdefault("annotations", {})[REVISION] = result.revision
        self.deployment["status"] = result.status
        return result

    def _create_pod(self, replicaset: Object) -> None:
        name = f"pod-{next(self._numbers)}"
        self.pods[name] = {
            "metadata": {
                "name": name,
                "uid": name,
                "labels": dict(replicaset["metadata"]["labels"]),
                "creationTimestamp": timestamp(self.now),
                "ownerReferences": [objects.owner_reference(replicaset, "apps/v1", "ReplicaSet")],
            },
            "status": {"phase": "Pending"},
        }

    def set_ready(self, name: str, ready: bool) -> None:
        ready_condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": timestamp(self.now),
        }
        self.pods[name]["status"] = {"phase": "Running", "conditions": [ready_condition]}

    def ready_all(self) -> None:
        for name, pod in self.pods.items():
            if objects.is_active(pod):
                self.set_ready(name, True)

    def finish_deletions(self) -> None:
        self.pods = {name: pod for name, pod in self.pods.items() if not objects.is_terminating(pod)}

    def settle(self, steps: int = 60) -> None:
        for _ in range(steps):
            self.step()
            self.finish_deletions()
            self.ready_all()

    def change(self, image: str) -> None:
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image
        self.deployment["metadata"]["generation"] += 1

    @property
    def active(self) -> list[Object]:
        return [pod for pod in self.pods.values() if objects.is_active(pod)]

    @property
    def available(self) -> int:
        return sum(objects.is_ready(pod) for pod in self.active)

    def updated(self) -> list[Object]:
        new = hash_template(self.deployment["spec"]["template"])
        return [pod for pod in self.active if objects.labels(pod)[HASH_LABEL] == new]

    def condition(self, kind: str) -> Object:
        return next(c for c in self.deployment["status"]["conditions"] if c["type"] == kind)


rollings = st.tuples(
    st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda p: f"{p}%")),
    st.one_of(st.integers(0, 4), st.integers(0, 100).map(lambda p: f"{p}%")),
)
actions = st.lists(
    st.tuples(st.sampled_from(["ready", "unready", "gone", "step", "change"]), st.integers(0, 20)), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(replicas=st.integers(0, 6), rolling=rollings, actions=actions)
def test_no_step_of_ours_goes_below_the_available_floor_or_above_the_surge_and_in_the_end_all_pods_are_new_and_available(
    replicas: int, rolling: tuple[int | str, int | str], actions: list[tuple[str, int]]
) -> None:
    surge, unavailable = rolling
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    cluster = Cluster(deployment(replicas, strategy=strategy))
    max_surge, max_unavailable = limits(cluster.deployment, replicas)
    cluster.settle(5)
    images = count(2)
    for action, index in actions:
        active = cluster.active
        if action == "change":
            cluster.change(f"v{next(images)}")
        elif action == "gone":
            cluster.finish_deletions()
        elif action == "step":
            before = cluster.available
            cluster.step()
            assert cluster.available >= min(before, replicas - max_unavailable)
            assert len(cluster.active) <= replicas + max_surge
        elif active:
            cluster.set_ready(active[index % len(active)]["metadata"]["name"], action == "ready")
    cluster.settle()
    assert len(cluster.active) == len(cluster.updated()) == cluster.available == replicas
    assert cluster.condition("Progressing")["reason"] == "NewReplicaSetAvailable"


def test_the_first_step_creates_the_replicaset_and_all_pods_at_once() -> None:
    cluster = Cluster(deployment(3))
    cluster.step()
    assert len(cluster.pods) == 3
    assert cluster.condition("Available")["status"] == "False"
    assert cluster.condition("Progressing")["reason"] == "ReplicaSetUpdated"


def test_a_settled_deployment_gives_an_empty_plan() -> None:
    cluster = Cluster(deployment(2))
    cluster.settle(4)
    status = cluster.deployment["status"]
    quiet = cluster.step()
    assert quiet == Plan(status=status)
    assert status["readyReplicas"] == status["updatedReplicas"] == status["availableReplicas"] == 2
    assert "unavailableReplicas" not in status


def test_with_no_unavailable_pod_allowed_the_old_pod_stays_until_the_new_one_is_ready() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    cluster = Cluster(deployment(1, strategy=strategy))
    cluster.settle(3)
    (old,) = cluster.active
    cluster.change("v2")
    cluster.step()
    cluster.step()
    assert old in cluster.active
    assert len(cluster.active) == 2
    cluster.ready_all()
    cluster.step()
    assert cluster.active == cluster.updated()


def test_an_old_pod_that_is_not_ready_stays_while_its_successor_has_yet_to_prove_itself() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    cluster = Cluster(deployment(1, strategy=strategy))
    cluster.settle(3)
    (old,) = cluster.active
    cluster.change("v2")
    cluster.set_ready(old["metadata"]["name"], False)
    cluster.step()
    assert old in cluster.active


def test_recreate_waits_until_every_old_pod_is_gone() -> None:
    cluster = Cluster(deployment(2, strategy={"type": "Recreate"}))
    cluster.settle(3)
    cluster.change("v2")
    cluster.step()
    cluster.step()
    assert cluster.active == []
    cluster.finish_deletions()
    cluster.step()
    assert len(cluster.updated()) == 2


def test_a_paused_deployment_starts_no_rollout_but_scales_what_it_has_in_proportion() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
    cluster = Cluster(deployment(4, strategy=strategy))
    cluster.settle(3)
    cluster.change("v2")
    cluster.step()
    assert 0 < len(cluster.updated()) < 4
    cluster.deployment["spec"] |= {"paused": True, "replicas": 10}
    for _ in range(5):
        cluster.step()
        cluster.ready_all()
    assert len(cluster.active) == 10
    assert 0 < len(cluster.updated()) < 10
    assert cluster.condition("Progressing")["reason"] == "DeploymentPaused"


def test_going_back_to_an_old_template_takes_up_its_replicaset_under_a_new_revision_number() -> None:
    cluster = Cluster(deployment(1))
    cluster.settle(5)
    cluster.change("v2")
    cluster.settle(5)
    cluster.change("v1")
    cluster.settle(5)
    revisions = sorted(rs["metadata"]["annotations"][REVISION] for rs in cluster.replicasets.values())
    assert revisions == ["2", "3"]
    assert cluster.deployment["metadata"]["annotations"][REVISION] == "3"


def test_history_keeps_as_many_old_replicasets_as_it_is_told() -> None:
    cluster = Cluster(deployment(1, revisionHistoryLimit=2))
    for number in range(6):
        cluster.change(f"v{number}")
        cluster.settle(6)
    assert len(cluster.replicasets) == 3


def test_a_rollout_without_progress_is_reported_after_its_deadline() -> None:
    cluster = Cluster(deployment(1, progressDeadlineSeconds=60))
    cluster.step()
    assert cluster.step().requeue_after == 60
    cluster.now += timedelta(seconds=45)
    assert cluster.step().requeue_after == 15
    cluster.now += timedelta(seconds=15)
    cluster.step()
    assert cluster.condition("Progressing")["reason"] == "ProgressDeadlineExceeded"


def test_a_pod_counts_as_available_after_min_ready_seconds() -> None:
    cluster = Cluster(deployment(1, minReadySeconds=20))
    cluster.step()
    cluster.ready_all()
    assert cluster.step().requeue_after == 20
    assert cluster.deployment["status"].get("availableReplicas") is None
    cluster.now += timedelta(seconds=20)
    cluster.step()
    assert cluster.deployment["status"]["availableReplicas"] == 1


def test_a_failed_pod_is_replaced_and_removed() -> None:
    cluster = Cluster(deployment(1))
    cluster.settle(3)
    (pod,) = cluster.active
    pod["status"] = {"phase": "Failed"}
    result = cluster.step()
    assert result.delete_pods == [pod["metadata"]["name"]]
    assert len(cluster.active) == 1


@pytest.mark.parametrize(
    ("rolling", "replicas", "expected"),
    [
        ({}, 4, (1, 1)),
        ({}, 1, (1, 0)),
        ({"maxSurge": 0, "maxUnavailable": 0}, 3, (0, 1)),
        ({"maxSurge": "0%", "maxUnavailable": "100%"}, 3, (0, 3)),
        ({"maxSurge": "34%", "maxUnavailable": "34%"}, 3, (2, 1)),
    ],
)
def test_percentages_round_surge_up_and_unavailable_down(
    rolling: Object, replicas: int, expected: tuple[int, int]
) -> None:
    assert (
        limits(deployment(replicas, strategy={"type": "RollingUpdate", "rollingUpdate": rolling}), replicas) == expected
    )
