"""From what the gateways' agents count to what autoscaling observes. Pure.

Counters begin anew when an agent does, so each agent's are compared with its own of the tick before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fairlead.autoscaling import Observation
from fairlead.kube.objects import Key, Object


class Counts(NamedTuple):
    """One workload at one gateway. The last two are counters."""

    in_flight: int = 0
    queued: int = 0
    held: int = 0
    requests: int = 0
    responses: int = 0


@dataclass(frozen=True)
class Reading:
    """One agent's `GET /v1/stats`, at a moment of the operator's clock."""

    at: float
    workloads: Mapping[Key, Counts] = field(default_factory=dict)


def reading(at: float, answer: Mapping[str, Any]) -> Reading:
    """Raises KeyError for an answer that is none."""
    return Reading(
        at,
        {
            Key(entry["namespace"], entry["name"]): Counts(
                entry["inFlight"], entry["queued"], entry["held"], entry["requests"], entry["responses"]
            )
            for entry in answer["workloads"]
        },
    )


class Traffic(NamedTuple):
    """One workload over all gateways: requests at pods, requests that wait, and rates a second."""

    running: float = 0.0
    waiting: float = 0.0
    arrivals: float = 0.0
    completions: float = 0.0


def traffic(before: Mapping[str, Reading], now: Mapping[str, Reading], workload: Key) -> Traffic:
    """By agent. One that was not there before has no rates yet."""
    running = waiting = arrivals = completions = 0.0
    for agent, latest in now.items():
        counts = latest.workloads.get(workload, _NONE)
        waits = counts.queued + counts.held
        running += max(0, counts.in_flight - waits)
        waiting += waits
        earlier = before.get(agent)
        if earlier is not None and latest.at > earlier.at:
            seconds = latest.at - earlier.at
            last = earlier.workloads.get(workload, _NONE)
            let_go = _since(last.requests, counts.requests)
            arrivals += max(0, let_go + counts.held - last.held) / seconds  # a held request counts when it is let go
            completions += _since(last.responses, counts.responses) / seconds
    return Traffic(running, waiting, arrivals, completions)


def observation(
    seen: Traffic, deployment: Object, replicas: int, pods: Callable[[], Iterable[Object]], *, complete: bool
) -> Observation:
    """`replicas`: what was last asked for, which an informer may not have seen yet; `pods`: asked only where it matters."""
    ready = int(deployment.get("status", {}).get("availableReplicas", 0) or 0)
    starting = max(0, replicas - ready)
    return Observation(
        running=seen.running,
        waiting=seen.waiting,
        arrivals=seen.arrivals,
        completions=seen.completions,
        ready=ready,
        starting=starting,
        scheduling=ready == 0 and starting > 0 and _wait_for_a_node(pods()),
        complete=complete,
    )


_NONE = Counts()


def _since(before: int, now: int) -> int:
    """A counter that is lower than before has begun anew."""
    return now - before if now >= before else now


def _wait_for_a_node(pods: Iterable[Object]) -> bool:
    found = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return bool(found) and all(
        any(
            condition["type"] == "PodScheduled" and condition["status"] == "False"
            for condition in pod.get("status", {}).get("conditions") or ()
        )
        for pod in found
    )
