"""From what the gateways' agents count to what autoscaling observes. Pure.

Counters begin anew when an agent does, so each agent's are compared with its own of the tick before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    fields = ("inFlight", "queued", "held", "requests", "responses")
    return Reading(
        at,
        {
            Key(entry["namespace"], entry["name"]): Counts(*(entry[name] for name in fields))
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
    total = Traffic()
    for agent, latest in now.items():
        counts = latest.workloads.get(workload, Counts())
        waiting = counts.queued + counts.held
        earlier = before.get(agent)
        seconds = latest.at - earlier.at if earlier is not None else 0.0
        last = earlier.workloads.get(workload, Counts()) if earlier is not None else counts
        total = Traffic(
            total.running + max(0, counts.in_flight - waiting),
            total.waiting + waiting,
            total.arrivals + _rate(last.requests, counts.requests, seconds),
            total.completions + _rate(last.responses, counts.responses, seconds),
        )
    return total


def observation(seen: Traffic, deployment: Object, pods: Iterable[Object]) -> Observation:
    ready = int(deployment.get("status", {}).get("availableReplicas", 0) or 0)
    starting = max(0, deployment["spec"].get("replicas", 1) - ready)
    return Observation(
        running=seen.running,
        waiting=seen.waiting,
        arrivals=seen.arrivals,
        completions=seen.completions,
        ready=ready,
        starting=starting,
        scheduling=ready == 0 and starting > 0 and _wait_for_a_node(pods),
    )


def _rate(before: int, now: int, seconds: float) -> float:
    if seconds <= 0:
        return 0.0
    return (now - before if now >= before else now) / seconds


def _wait_for_a_node(pods: Iterable[Object]) -> bool:
    found = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return bool(found) and all(
        any(
            condition["type"] == "PodScheduled" and condition["status"] == "False"
            for condition in pod.get("status", {}).get("conditions") or ()
        )
        for pod in found
    )
