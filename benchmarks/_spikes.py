"""A spiky trace: quiet stretches with single requests, and spikes that come without warning. Seeded, so that it can be played again.

`arrivals` is pure; `play` sends them, each on time whatever became of those before (an open loop).
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TextIO

from _calls import Failed

MEAN_QUIET = 35.0
"""Seconds between spikes of one service; with a scale-to-zero delay below it, most spikes begin at zero."""


@dataclass(frozen=True)
class Arrival:
    """`at`: seconds from the trace's start. `fresh`: on a connection of its own."""

    at: float
    fresh: bool


def arrivals(seed: str, seconds: float, *, peak: float) -> Iterator[Arrival]:
    """Of one service. Spikes are a lone request, a burst at one instant, a plateau, or a ramp up and down to at most `peak` requests a second."""
    random_ = random.Random(seed)
    at = random_.uniform(0, MEAN_QUIET)
    while at < seconds:
        rate = peak * random_.uniform(0.2, 1.0)
        shape = random_.choice(("lone", "burst", "plateau", "ramp"))
        length = {"lone": 0.0, "burst": 0.0}.get(shape, random_.uniform(3, 30))
        if shape in ("lone", "burst"):
            count = 1 if shape == "lone" else random_.randint(5, round(2 * peak))
            yield from (Arrival(at, random_.random() < 0.3) for _ in range(count))
        else:
            began, then = at, at
            while then < min(began + length, seconds):
                progress = (then - began) / length
                now = rate if shape == "plateau" else rate * (1 - abs(2 * progress - 1)) + 0.5
                yield Arrival(then, random_.random() < 0.3)
                then += random_.expovariate(now)
        at += length + random_.expovariate(1 / MEAN_QUIET)


class Answered(NamedTuple):
    service: str
    sent: float
    """Seconds of the machine's clock."""
    seconds: float


@dataclass
class Tally:
    """What became of the requests; failures go to `log` as JSON lines, as they happen."""

    log: TextIO
    sent: int = 0
    failed: int = 0
    answered: list[Answered] = field(default_factory=list)
    late: float = 0.0
    """Seconds that a request was sent after its time at most: what the client itself could not keep up with."""

    def failure(self, service: str, sent: float, reason: str) -> None:
        self.failed += 1
        took = time.time() - sent
        entry = {
            "service": service,
            "sent": time.strftime("%H:%M:%S", time.gmtime(sent)),
            "after": round(took, 3),
            "reason": reason,
        }
        print(json.dumps(entry), file=self.log, flush=True)


Call = Callable[[bool], Awaitable[object]]
"""Sends one request (`fresh`: on a connection of its own) and returns when it is answered; raises Failed."""


async def play(service: str, trace: Iterator[Arrival], start: float, call: Call, tally: Tally) -> None:
    """`start` is of `time.monotonic`. Returns when all requests have ended."""
    async with asyncio.TaskGroup() as group:
        for arrival in trace:
            await asyncio.sleep(max(0.0, start + arrival.at - time.monotonic()))
            tally.late = max(tally.late, time.monotonic() - start - arrival.at)
            group.create_task(_one(service, arrival, call, tally))


async def _one(service: str, arrival: Arrival, call: Call, tally: Tally) -> None:
    sent, began = time.time(), time.monotonic()
    tally.sent += 1
    try:
        await call(arrival.fresh)
    except Failed as failed:
        tally.failure(service, sent, str(failed))
    else:
        tally.answered.append(Answered(service, sent, time.monotonic() - began))
