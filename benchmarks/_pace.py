"""Part of autoscaling_simulation.py: what a limit on what is let go to a replica without `containerConcurrency` would change.

Such a replica is given all requests that have waited for it, at once. With the limit the gateway keeps what is beyond `limit` times the target's capacity at each
replica. Replicas that share their cores, and ones whose requests do not slow each other down: nothing that a gateway counts tells one from the other.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from fairlead.autoscaling import Observation, Policy, decide, initial_state

STEP = 0.05
TICK = 1.0


@dataclass(frozen=True)
class Case:
    """`full`: requests that a replica works on at full speed; more of them share that. `held`: how many come at once at the beginning."""

    name: str
    service: float
    start: float
    rate: float = 0.0
    held: int = 0
    full: float = math.inf
    capacity: float = 100.0
    seconds: float = 300.0


CASES = (
    Case("40/s of 0.5 s, ten at full speed, scaleTarget 10", 0.5, 10, rate=40, full=10, capacity=10),
    Case("the same, no scaleTarget", 0.5, 10, rate=40, full=10),
    Case("40/s of 0.5 s, side by side, scaleTarget 10", 0.5, 10, rate=40, capacity=10),
    Case("2/s of 20 s, side by side, scaleTarget 10", 20, 30, rate=2, capacity=10),
    Case("500 of 1 s, side by side, no scaleTarget", 1, 1, held=500, seconds=60),
    Case("500 of 1 s, side by side, scaleTarget 10", 1, 1, held=500, capacity=10, seconds=60),
    Case("500 of 0.02 s, four at full speed, no scaleTarget", 0.02, 1, held=500, full=4, seconds=60),
)
LIMITS = (1.0, 2.0, 4.0, math.inf)


@dataclass
class Replicas:
    """Each with its requests, as [since when it waits, seconds of work left]."""

    case: Case
    limit: float
    ready: list[list[list[float]]] = field(default_factory=list)
    starting: list[float] = field(default_factory=list)
    waiting: deque[float] = field(default_factory=deque)
    took: list[float] = field(default_factory=list)

    @property
    def running(self) -> int:
        return sum(map(len, self.ready))

    def work(self, now: float) -> int:
        """One step; how many were completed."""
        self.ready += [[] for at in self.starting if at <= now]
        self.starting = [at for at in self.starting if at > now]
        before = len(self.took)
        for requests in self.ready:
            speed = min(1.0, self.case.full / max(1, len(requests)))
            for request in requests:
                request[1] -= STEP * speed
            self.took += [now - since for since, left in requests if left <= 1e-9]
            requests[:] = [request for request in requests if request[1] > 1e-9]
        while self.waiting and self.ready:
            emptiest = min(self.ready, key=len)
            if len(emptiest) >= self.limit * self.case.capacity:
                break
            emptiest.append([self.waiting.popleft(), self.case.service])
        return len(self.took) - before

    def scale(self, now: float, wanted: int) -> None:
        more = wanted - len(self.ready) - len(self.starting)
        self.starting += [now + self.case.start] * more
        for _ in range(-more):
            if self.starting:
                self.starting.pop()
            elif [] in self.ready:
                self.ready.remove([])


def simulate(case: Case, limit: float) -> tuple[int, float, float]:
    """The most replicas, and the median and 99th percentile of the seconds from a request to its answer."""
    policy = Policy(target=0.7 * case.capacity, min_replicas=0)
    state, replicas = initial_state(0.0, 0), Replicas(case, limit)
    replicas.waiting.extend([0.0] * case.held)
    arrived, done, busy, owed, most, next_tick = case.held, 0, 0.0, 0.0, 0, 0.0
    for number in range(int(case.seconds / STEP)):
        now = number * STEP
        owed += case.rate * STEP
        while owed >= 1:
            replicas.waiting.append(now)
            owed, arrived = owed - 1, arrived + 1
        done += replicas.work(now)
        busy += replicas.running * STEP
        if now >= next_tick:
            there = {"ready": len(replicas.ready), "starting": len(replicas.starting)}
            seen = Observation(busy, len(replicas.waiting), arrived / TICK, done / TICK, **there)
            decision, state = decide(now, seen, policy, state)
            replicas.scale(now, decision.desired)
            most, next_tick = max(most, decision.desired), now + TICK
            arrived, done, busy = 0, 0, 0.0
    took = sorted(replicas.took)
    return most, took[len(took) // 2], took[int(len(took) * 0.99)]


def main() -> None:
    print(f"{'let go at a time':52}" + "".join(f"{f'{limit:g} x target':>22}" for limit in LIMITS))
    for case in CASES:
        told = (f"{most} replicas, p99 {p99:.0f} s" for most, _, p99 in (simulate(case, limit) for limit in LIMITS))
        print(f"{case.name:52}" + "".join(f"{text:>22}" for text in told))
