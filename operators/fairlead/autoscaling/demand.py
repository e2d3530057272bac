"""From what the gateways saw to a demand: what replicas must carry, and work that waits for them.

Knative counts every request in flight as concurrency. While replicas start, requests pile up at the gateway and look like
concurrency too, so that a burst of short requests starts many pods for nothing (knative/serving#4344, #13284). Here a
request that waits is *work*: its service time, to be done within the drain time. 500 requests of 10 ms that wait
are 5 s of work: over 6 s, less than one request in flight.

While requests wait, replicas run full, and what runs says how many there are and not how many are needed. What is asked for is then known by
Little's law: arrivals a second times seconds a request. And the margin that a target leaves (30 % of a replica) is there for just such a backlog: only
what it does not drain in time asks for more replicas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fairlead.autoscaling.policy import UTILIZATION, Metric, Policy


class Observation(NamedTuple):
    """One tick of one revision, summed over the gateways.

    `running`: requests at replicas. `waiting`: held or queued at gateways. `arrivals`, `completions`: a second. `ready`: replicas that
    answer; `starting`: replicas on their way. `scheduling`: all that start still wait for a node. `custom`: the model servers' own metric,
    summed over them. `complete`: whether all who could know of demand have said so; otherwise what they said is the least there is.
    """

    running: float = 0.0
    waiting: float = 0.0
    arrivals: float = 0.0
    completions: float = 0.0
    ready: int = 0
    starting: int = 0
    scheduling: bool = False
    custom: float = 0.0
    complete: bool = True

    @property
    def idle(self) -> bool:
        """Nothing asks for replicas. Some metrics say "unknown" by a number below 0."""
        return self.running == 0 and self.waiting == 0 and self.arrivals == 0 and self.custom <= 0


class Sample(NamedTuple):
    """A demand at a moment, in the policy's metric."""

    at: float
    value: float


SERVICE_TIME_WEIGHT = 0.3
"""Of a new observation in the moving average: half of the history is forgotten after two ticks."""
LONGEST_REQUEST = 3600.0
"""Seconds; a rate next to nothing is no rate."""
STARTS_PER_DRAIN, NOTICE = 5.0, 10.0
"""A backlog may take five times as long to drain as a replica takes to start, and the time to notice both: sooner, most of it is gone before the help is there.

What waits has gathered for about two starts (the first replica's, then the others') and some ticks; the margin, 0.3 of a replica for 0.7 that are asked for, drains
that in 5 starts. So a queue that a start has made is worked off by the replicas that the steady load needs, and no more are started."""


def service_time(known: float | None, seen: Observation) -> float | None:
    """Seconds that a replica spends on one request, by Little's law: in flight / completed per second.

    None until something has been completed. A tick without completions teaches nothing.
    """
    if seen.completions <= 0 or seen.ready == 0:
        return known
    measured = min(LONGEST_REQUEST, seen.running / seen.completions)
    return measured if known is None else known + SERVICE_TIME_WEIGHT * (measured - known)


def let_go(before: float, waited: float, seen: Observation, seconds: float) -> float:
    """How many of the requests at replicas are a backlog that was let go and is being worked off: each completed one is counted off.

    `before`: how many there were `seconds` ago, when `waited` requests waited.
    """
    if not seen.ready:
        return 0.0
    released = max(0.0, waited - seen.waiting)
    return min(seen.running, max(0.0, before + released - seen.completions * seconds))


def over_full(seen: Observation, policy: Policy) -> float:
    """How many requests are at replicas beyond what is planned for them.

    To an autoscaler that takes over they are a backlog: 400 requests at one replica that is to have two at a time have most likely waited for it together.
    """
    return max(0.0, seen.running - seen.ready * policy.target)


class Known(NamedTuple):
    """What earlier ticks have taught, beside the observation.

    `backlog`: requests at replicas that had waited. `queued`: requests waited at this tick or the one before, so replicas run full.
    `seconds_per_request`: the service time, at least as long as replicas have been at it without completing anything; None if no replica has ever
    been ready. `seconds_to_start`: what a start takes; 0 if none has been seen.
    """

    backlog: float = 0.0
    queued: bool = False
    seconds_per_request: float | None = None
    seconds_to_start: float = 0.0


def demand(seen: Observation, policy: Policy, known: Known) -> float:
    """What the replicas are asked to carry, in units of the policy's metric."""
    match policy.metric:
        case Metric.RPS:
            drain = _drain_seconds(policy, known.seconds_to_start)
            return max(seen.arrivals, UTILIZATION * (seen.arrivals + seen.waiting / drain))
        case Metric.CUSTOM:
            return seen.custom
        case Metric.CONCURRENCY:
            return _concurrency(seen, policy, known)


def _concurrency(seen: Observation, policy: Policy, known: Known) -> float:
    """The requests in flight to plan for; never more than there are, running and waiting.

    Worked example: 350 arrivals/s of 0.1 s, 3,500 waiting after a start of 10 s, 4 replicas full with 10 each: 35 are offered; the margin
    carries 0.7 * (35 + 350 s of work / 60 s) = 29. So 35: at a target of 7 a replica 5 replicas, where 350 s of work over 6 s would ask for 13.
    """
    backlog = known.backlog + seen.waiting
    if backlog == 0 and not known.queued:
        return seen.running
    asked = seen.running + seen.waiting
    if known.seconds_per_request is None:
        # Nobody knows how long a request takes: one replica for the backlog is the bet.
        return max(asked - backlog, min(asked, policy.target))
    steady = seen.arrivals * known.seconds_per_request if known.queued else asked - backlog
    full = min(seen.running, seen.ready * policy.target / UTILIZATION)
    work = backlog * known.seconds_per_request / _drain_seconds(policy, known.seconds_to_start)
    return min(asked, max(steady, UTILIZATION * max(full, steady + work)))


def _drain_seconds(policy: Policy, seconds_to_start: float) -> float:
    """In what time a backlog is to be worked off; not longer than a request would wait for a wake-up."""
    if seconds_to_start == 0:
        return policy.drain_seconds
    return max(policy.drain_seconds, min(policy.activation_timeout, NOTICE + STARTS_PER_DRAIN * seconds_to_start))


def average(samples: Sequence[Sample], now: float, window: float) -> float:
    """Mean demand over the last `window` seconds, or over what there is of it; the samples are in order.

    Ticks are regular, so the plain mean of the samples is the time average.
    """
    total, count = 0.0, 0
    for at, value in reversed(samples):
        if at <= now - window:
            break
        total, count = total + value, count + 1
    return total / count if count else 0.0
