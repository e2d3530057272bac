"""How fast replicas may change: the HorizontalPodAutoscaler's `behavior`, field for field, as a pure function.

Source: kubernetes.io, "Horizontal Pod Autoscaling", configurable scaling behavior. The defaults here limit nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True)
class SpeedLimit:
    """At most `value` replicas (`Pods`) or `value` percent of the current ones (`Percent`) in each `period` seconds."""

    kind: Literal["Pods", "Percent"]
    value: int
    period: float


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction: its speed limits, which of them counts, and for how long the most cautious recommendation holds."""

    limits: tuple[SpeedLimit, ...] = ()
    select: Literal["Max", "Min", "Disabled"] = "Max"
    stabilization: float = 0.0
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Behavior:
    up: Rules = Rules()
    down: Rules = Rules()


class Change(NamedTuple):
    """`desired` replicas since `at`."""

    at: float
    desired: int


def within_tolerance(current: int, wanted: int, behavior: Behavior) -> bool:
    """Whether what demand asks for is too little more, or less, to bother: |wanted/current - 1| <= the direction's tolerance."""
    if current == 0 or wanted == current:
        return wanted == current
    rules = behavior.up if wanted > current else behavior.down
    return abs(wanted / current - 1) <= rules.tolerance


def limited(now: float, current: int, wanted: int, behavior: Behavior, changes: Sequence[Change]) -> int:
    """`wanted`, as far as the direction's speed limits let `current` go now.

    `changes` is the history of desired replicas, oldest first; the replicas at the start of a limit's period are what
    the limit is counted from: Percent 100 per 60 s from 4 replicas lets the count reach 8 within the next 60 s.
    """
    if wanted == current:
        return current
    rules = behavior.up if wanted > current else behavior.down
    if rules.select == "Disabled":
        return current
    if not rules.limits:
        return wanted
    up = wanted > current
    allowed = [_reach(limit, _at(now - limit.period, changes, current), up=up) for limit in rules.limits]
    # "Max" is the limit that allows the greatest change, whichever the direction.
    widest = (max if up else min) if rules.select == "Max" else (min if up else max)
    bound = widest(allowed)
    return max(current, min(wanted, bound)) if up else min(current, max(wanted, bound))


def _reach(limit: SpeedLimit, start: int, *, up: bool) -> int:
    if limit.kind == "Pods":
        return start + limit.value if up else max(0, start - limit.value)
    return ceil(start * (1 + limit.value / 100)) if up else max(0, floor(start * (1 - limit.value / 100)))


def _at(moment: float, changes: Sequence[Change], current: int) -> int:
    """The desired replicas at `moment`; before the history begins, its first entry."""
    before = [change.desired for change in changes if change.at <= moment]
    if before:
        return before[-1]
    return changes[0].desired if changes else current
