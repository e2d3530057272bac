"""From what the gateways saw to a demand: what replicas must carry, and work that waits for them.

Knative counts every request in flight as concurrency. While replicas start, requests pile up at the gateway and look like
concurrency too, so that a burst of short requests starts many pods for nothing (knative/serving#4344, #13284). Here a
request that waits is *work*: its service time, to be done within `drain_seconds`. 500 requests of 10 ms that wait
are 5 s of work: over 6 s, less than one request in flight.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fairlead.autoscaling.policy import Metric, Policy


class Observation(NamedTuple):
    """One tick of one revision, summed over the gateways.

    `running`: requests at replicas (mean over the tick). `waiting`: held or queued at gateways. `arrivals`, `completions`:
    a second. `ready`: replicas that answer; `starting`: replicas on their way. `scheduling`: all that start still wait for
    a node. `custom`: the model servers' own metric, summed, or None.
    """

    running: float = 0.0
    waiting: float = 0.0
    arrivals: float = 0.0
    completions: float = 0.0
    ready: int = 0
    starting: int = 0
    scheduling: bool = False
    custom: float | None = None

    @property
    def idle(self) -> bool:
        return self.running == 0 and self.waiting == 0 and self.arrivals == 0 and not self.custom


class Sample(NamedTuple):
    """A demand at a moment, in the policy's metric."""

    at: float
    value: float


SERVICE_TIME_WEIGHT = 0.3
"""Of a new observation in the moving average: half of the history is forgotten after two ticks."""


def service_time(known: float | None, seen: Observation) -> float | None:
    """Seconds that a replica spends on one request, by Little's law: in flight / completed per second.

    None until something has been completed. A tick without completions teaches nothing.
    """
    if seen.completions <= 0 or seen.ready == 0:
        return known
    measured = seen.running / seen.completions
    return measured if known is None else known + SERVICE_TIME_WEIGHT * (measured - known)


def demand(seen: Observation, policy: Policy, seconds_per_request: float | None) -> float:
    """What the replicas are asked to carry, in units of the policy's metric.

    `seconds_per_request` is the service time, or as long as nothing has been answered the time that replicas have been at
    it, which is its lower bound; None while no replica has been ready.
    """
    match policy.metric:
        case Metric.RPS:
            return seen.arrivals + seen.waiting / policy.drain_seconds
        case Metric.CUSTOM:
            return seen.custom or 0.0
        case Metric.CONCURRENCY:
            return seen.running + _work(seen, policy, seconds_per_request)


def _work(seen: Observation, policy: Policy, seconds_per_request: float | None) -> float:
    """The concurrency that gets the waiting requests done within `drain_seconds`, and never more than they are."""
    if seconds_per_request is not None:
        return min(seen.waiting, seen.waiting * seconds_per_request / policy.drain_seconds)
    # No replica has ever been ready, so nobody knows how long a request takes: one replica is the bet.
    return min(seen.waiting, policy.target)


def average(samples: Iterable[Sample], now: float, window: float) -> float:
    """Mean demand over the last `window` seconds, or over what there is of it.

    Ticks are regular, so the plain mean of the samples is the time average.
    """
    recent = [value for at, value in samples if at > now - window]
    return sum(recent) / len(recent) if recent else 0.0
