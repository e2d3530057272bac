"""A Deployment's status: counts, and the conditions Available and Progressing with Kubernetes' reasons and messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from fairlead.kube.objects import Object, parse_timestamp, timestamp
from fairlead.local.node import objects

NO_DEADLINE = 2**31 - 1
"""`progressDeadlineSeconds` of this size means that there is none."""


@dataclass(frozen=True)
class Replicas:
    """Active pods of a Deployment, counted."""

    desired: int
    total: int
    updated: int
    ready: int
    available: int
    max_unavailable: int
    new_replicaset: str | None

    @property
    def complete(self) -> bool:
        return self.updated == self.total == self.available == self.desired


def deployment_status(deployment: Object, counts: Replicas, now: datetime) -> tuple[Object, float | None]:
    """The status, and the seconds until the progress deadline passes (None if the rollout is complete, failed, or has no deadline)."""
    before = deployment.get("status") or {}
    status = {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        "replicas": counts.total,
        "updatedReplicas": counts.updated,
        "readyReplicas": counts.ready,
        "availableReplicas": counts.available,
        "unavailableReplicas": max(0, max(counts.total, counts.desired) - counts.available),
    }
    status = {key: value for key, value in status.items() if value}
    progressing, deadline = _progressing(deployment, before, counts, now)
    status["conditions"] = [_available(deployment, counts, now), *([progressing] if progressing else [])]
    return status, deadline


def _available(deployment: Object, counts: Replicas, now: datetime) -> Object:
    if counts.available >= counts.desired - counts.max_unavailable:
        return _condition(
            deployment, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now
        )
    message = "Deployment does not have minimum availability."
    return _condition(deployment, "Available", "False", "MinimumReplicasUnavailable", message, now)


def _progressing(
    deployment: Object, before: Object, counts: Replicas, now: datetime
) -> tuple[Object | None, float | None]:
    seconds = deployment["spec"].get("progressDeadlineSeconds", 600)
    deadline = None if seconds is None or seconds >= NO_DEADLINE else timedelta(seconds=seconds)
    last = objects.condition(deployment, "Progressing")

    def report(status: str, reason: str, message: str, *, moved: bool = False) -> Object:
        return _condition(deployment, "Progressing", status, reason, message, now, moved=moved)

    if deployment["spec"].get("paused"):
        return report("Unknown", "DeploymentPaused", "Deployment is paused"), None
    about = f'ReplicaSet "{counts.new_replicaset}"'
    if counts.complete:
        return report("True", "NewReplicaSetAvailable", f"{about} has successfully progressed."), None
    if last is None or last["reason"] in ("NewReplicaSetAvailable", "DeploymentPaused") or _moved(before, counts):
        condition = report("True", "ReplicaSetUpdated", f"{about} is progressing.", moved=True)
        return condition, deadline.total_seconds() if deadline else None
    if deadline is None:
        return report("True", "ReplicaSetUpdated", f"{about} is progressing."), None
    left = parse_timestamp(last["lastUpdateTime"]) + deadline - now
    if left.total_seconds() <= 0:
        return report("False", "ProgressDeadlineExceeded", f"{about} has timed out progressing."), None
    return report("True", "ReplicaSetUpdated", f"{about} is progressing."), left.total_seconds()


def _moved(before: Object, counts: Replicas) -> bool:
    """Whether the rollout came nearer to its end since `before` was written."""
    old_total = int(before.get("replicas", 0)) - int(before.get("updatedReplicas", 0))
    return bool(
        counts.updated > before.get("updatedReplicas", 0)
        or counts.total - counts.updated < old_total
        or counts.ready > before.get("readyReplicas", 0)
        or counts.available > before.get("availableReplicas", 0)
    )


def _condition(
    deployment: Object, kind: str, status: str, reason: str, message: str, now: datetime, *, moved: bool = False
) -> Object:
    """The condition with its old time stamps where nothing changed, so that an unchanged status is an equal one."""
    last = objects.condition(deployment, kind) or {}
    stamp = timestamp(now)
    same_status = last.get("status") == status
    same = same_status and last.get("reason") == reason and last.get("message") == message and not moved
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": last.get("lastUpdateTime", stamp) if same else stamp,
        "lastTransitionTime": last.get("lastTransitionTime", stamp) if same_status else stamp,
    }
