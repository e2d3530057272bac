"""Why a revision's pods do not become ready, read from their statuses: the exit code, the last lines of the log, the image that is not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.api import names
from fairlead.kube.objects import Object

MESSAGE_LIMIT = 1500
"""Characters of a log's end that the status carries."""
_TRANSIENT = frozenset({"ContainerCreating", "PodInitializing", ""})
"""Reasons for waiting that pass; all others tell what is wrong."""


def last_line(message: str) -> str:
    """What a model server prints last is why it ends; what it prints before has times and process ids."""
    return next((line.strip() for line in reversed(message.splitlines()) if line.strip()), "")


@dataclass(frozen=True)
class Failure:
    reason: str
    """KServe's FailureReason."""
    message: str
    """The last lines of the log, or what Kubernetes says."""
    exit_code: int | None = None
    time: str | None = None
    pod: str = ""
    container: str = ""

    @property
    def summary(self) -> str:
        """One line that is the same for each restart."""
        exit_code = f" (exit code {self.exit_code})" if self.exit_code is not None else ""
        return (last_line(self.message) or f"{self.container or 'a container'} ended without a word") + exit_code


@dataclass(frozen=True)
class Copies:
    """KServe's `copies`, and what keeps pods that have not failed."""

    total: int = 0
    failed: int = 0
    started: int = 0
    """Pods whose serving container runs."""
    failure: Failure | None = None
    waiting: str = ""
    """Why pods that did not fail are not there yet: `0/3 nodes are available: …`."""


def copies(pods: Iterable[Object], deployment: Object | None, *, was_ready: bool) -> Copies:
    """What has become of a revision's pods. `was_ready`: it has served, so the model can be loaded and the fault is elsewhere."""
    alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    failures = [failure for pod in alive if (failure := _pod_failure(pod, was_ready=was_ready)) is not None]
    waiting = next((message for pod in alive if (message := _unschedulable(pod))), "")
    failure = max(failures, key=lambda failure: failure.time or "", default=None)
    return Copies(
        total=len(alive),
        failed=len(failures),
        started=sum(_runs(pod) for pod in alive),
        failure=failure or _deployment_failure(deployment),
        waiting=waiting,
    )


def _pod_failure(pod: Object, *, was_ready: bool) -> Failure | None:
    status = pod.get("status", {})
    for container in _containers(status):
        if container.get("ready"):
            continue
        if (failure := _container_failure(container, pod, was_ready=was_ready)) is not None:
            return failure
    if status.get("phase") == "Failed":
        message = status.get("message") or status.get("reason") or "the pod failed"
        return Failure("RuntimeUnhealthy", message, pod=pod["metadata"]["name"])
    return None


def _container_failure(container: Object, pod: Object, *, was_ready: bool) -> Failure | None:
    state = container.get("state", {})
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    waiting = state.get("waiting", {})
    name, place = container["name"], pod["metadata"]["name"]
    if ended and ended.get("exitCode"):
        fetching = name.startswith(names.STORAGE_INITIALIZER_CONTAINER)
        return Failure(
            "RuntimeUnhealthy" if was_ready and not fetching else "ModelLoadFailed",
            _ending(ended),
            ended["exitCode"],
            ended.get("finishedAt"),
            place,
            name,
        )
    reason = waiting.get("reason", "")
    if reason in _TRANSIENT or reason == "CrashLoopBackOff":
        return None
    return Failure(
        "RuntimeUnhealthy",
        f"{reason}: {waiting.get('message') or container.get('image', '')}",
        pod=place,
        container=name,
    )


def _ending(ended: dict[str, Any]) -> str:
    message = (ended.get("message") or "").strip()
    if ended.get("reason") == "OOMKilled":
        return f"{message}\nout of memory: give the model a higher memory limit".strip()[-MESSAGE_LIMIT:]
    return message[-MESSAGE_LIMIT:]


def _deployment_failure(deployment: Object | None) -> Failure | None:
    """Pods that cannot even be created: a quota, an admission rule, a service account that is not there."""
    for condition in (deployment or {}).get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return Failure("RuntimeUnhealthy", condition.get("message", ""), time=condition.get("lastTransitionTime"))
    return None


def _containers(status: Object) -> Sequence[Object]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _runs(pod: Object) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return any("running" in container.get("state", {}) for container in statuses)


def _unschedulable(pod: Object) -> str:
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message", ""))
    return ""
