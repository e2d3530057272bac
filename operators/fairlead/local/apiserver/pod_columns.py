"""The columns of `kubectl get pods`: Kubernetes' printPod."""

from __future__ import annotations

from typing import Any

from .durations import since
from .rows import NONE, Row


def pod_status(pod: Row) -> str:
    """One word for how a pod is: what hinders it most."""
    status = pod["status.reason"] or pod["status.phase"] or "Unknown"
    total = len(pod["spec.initContainers"] or ())
    for position, state in enumerate(pod["status.initContainerStatuses"] or ()):
        current = state.get("state", {})
        terminated = current.get("terminated")
        if terminated and terminated.get("exitCode") == 0:
            continue
        reason = (terminated or current.get("waiting") or {}).get("reason")
        if terminated:
            status = f"Init:{reason or 'ExitCode:' + str(terminated.get('exitCode'))}"
        elif reason and reason != "PodInitializing":
            status = f"Init:{reason}"
        else:
            status = f"Init:{position}/{total}"
        break
    else:
        status = _containers_status(pod["status.containerStatuses"] or (), status)
    if pod["metadata.deletionTimestamp"]:
        return "Unknown" if pod["status.reason"] == "NodeLost" else "Terminating"
    return str(status)


def _containers_status(states: Any, status: str) -> str:
    running = False
    for state in reversed(states):
        current = state.get("state", {})
        waiting, terminated = current.get("waiting") or {}, current.get("terminated")
        if waiting.get("reason"):
            status = waiting["reason"]
        elif terminated:
            signal = terminated.get("signal")
            status = terminated.get("reason") or (
                f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode')}"
            )
        elif state.get("ready") and current.get("running"):
            running = True
    return "Running" if status == "Completed" and running else status


def _restarts(pod: Row) -> str:
    states = pod["status.containerStatuses"] or []
    count = sum(state.get("restartCount", 0) for state in states)
    ends = [((state.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for state in states]
    last = max((end for end in ends if end), default=None)
    return f"{count} ({since(last, pod.now)} ago)" if count and last else str(count)


def pod_cells(row: Row) -> list[Any]:
    states = row["status.containerStatuses"] or []
    ready = sum(bool(state.get("ready")) for state in states)
    gates = row["spec.readinessGates"] or []
    met = sum(
        any(
            c.get("type") == gate["conditionType"] and c.get("status") == "True" for c in row["status.conditions"] or ()
        )
        for gate in gates
    )
    return [
        row.name, f"{ready}/{len(row['spec.containers'] or ())}", pod_status(row), _restarts(row), row.age,
        row["status.podIP"] or NONE, row["spec.nodeName"] or NONE, row["status.nominatedNodeName"] or NONE,
        f"{met}/{len(gates)}" if gates else NONE,
    ]  # fmt: skip
