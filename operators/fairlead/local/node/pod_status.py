"""A pod's status from what its containers do: phase, conditions, container statuses."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from fairlead.kube.objects import Object, timestamp
from fairlead.local.node import objects
from fairlead.local.node.restarts import restarts

OOM_EXIT_CODE = 137


@dataclass
class ContainerRecord:
    """One container of a pod, as the node knows it. `state` has Kubernetes' form: {"waiting"|"running"|"terminated": {...}}."""

    name: str
    image: str
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Object = field(default_factory=dict)
    restarts: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        terminated = self.state.get("terminated")
        return None if terminated is None else int(terminated["exitCode"])


def terminated(
    exit_code: int, started: datetime, finished: datetime, *, container_id: str, message: str, out_of_memory: bool
) -> Object:
    """The state of a container that ended. A process killed by a signal has the exit code 128 + signal, as in a container."""
    code = 128 - exit_code if exit_code < 0 else exit_code
    reason = "OOMKilled" if out_of_memory else "Completed" if code == 0 else "Error"
    state: Object = {
        "exitCode": code,
        "reason": reason,
        "startedAt": timestamp(started),
        "finishedAt": timestamp(finished),
        "containerID": container_id,
    }
    if exit_code < 0:
        state["signal"] = -exit_code
    if message:
        state["message"] = message
    elif exit_code < 0:
        state["message"] = f"killed by {signal.Signals(-exit_code).name}"
    return {"terminated": state}


def pod_status(
    pod: Object,
    init: list[ContainerRecord],
    main: list[ContainerRecord],
    *,
    ip: str | None,
    started: datetime,
    now: datetime,
    refused: tuple[str, str] | None = None,
) -> Object:
    """The status to write. `refused` is (reason, message) of a pod that this node cannot run at all."""
    initialized = all(record.exit_code == 0 for record in init)
    ready = initialized and bool(main) and all(record.ready for record in main) and not objects.is_terminating(pod)
    unready = [record.name for record in main if not record.ready]
    not_ready: dict[str, str] = {}
    if not ready:
        not_ready = {
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{' '.join(unready)}]",
        }
        if objects.is_terminating(pod):
            not_ready = {"reason": "PodTerminating", "message": "the pod is being deleted"}
    incomplete = [record.name for record in init if record.exit_code != 0]
    not_initialized = {
        "reason": "ContainersNotInitialized",
        "message": f"containers with incomplete status: [{' '.join(incomplete)}]",
    }
    status: Object = {
        "phase": _phase(pod, init, main),
        "conditions": [
            _condition(pod, "PodScheduled", True, {}, now),
            _condition(pod, "Initialized", initialized, not_initialized if not initialized else {}, now),
            _condition(pod, "ContainersReady", ready, not_ready, now),
            _condition(pod, "Ready", ready, not_ready, now),
        ],
        "hostIP": "127.0.0.1",
        "startTime": timestamp(started),
        "qosClass": "Burstable",
        "containerStatuses": [_container(record) for record in main],
    }
    if init:
        status["initContainerStatuses"] = [_container(record, init=True) for record in init]
    if ip is not None:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    if refused is not None:
        status |= {"reason": refused[0], "message": refused[1]}
    return status


def _phase(
    pod: Object, init: list[ContainerRecord], main: list[ContainerRecord]
) -> Literal["Pending", "Running", "Succeeded", "Failed"]:
    policy: Any = pod["spec"].get("restartPolicy", "Always")
    for record in init:
        if record.exit_code is None:
            return "Pending"
        if record.exit_code != 0:
            return "Failed" if policy == "Never" else "Pending"
    codes = [record.exit_code for record in main]
    ended = [code for code in codes if code is not None and not restarts(policy, code)]
    if main and len(ended) == len(main):
        return "Failed" if any(ended) else "Succeeded"
    begun = any(record.running or record.exit_code is not None or bool(record.last_state) for record in main)
    return "Running" if begun else "Pending"


def _container(record: ContainerRecord, *, init: bool = False) -> Object:
    ready = record.exit_code == 0 if init else record.ready
    return {
        "name": record.name,
        "image": record.image,
        "imageID": "",
        "containerID": record.container_id,
        "ready": ready,
        "started": record.started,
        "restartCount": record.restarts,
        "state": record.state,
        "lastState": record.last_state,
    }


def _condition(pod: Object, kind: str, holds: bool, why_not: dict[str, str], now: datetime) -> Object:
    status = "True" if holds else "False"
    last = objects.condition(pod, kind) or {}
    since = last["lastTransitionTime"] if last.get("status") == status else timestamp(now)
    return {"type": kind, "status": status, **why_not, "lastTransitionTime": since}
