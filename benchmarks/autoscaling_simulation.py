"""Fairlead's autoscaling decision against Knative's, the HPA's and Ray Serve's, on the same simulated traffic.

    python benchmarks/autoscaling_simulation.py [--plots docs/images] [--json FILE]
    python benchmarks/autoscaling_simulation.py --pace      # what letting waiting requests go more slowly would change (_pace.py)

One replica works on `capacity` requests at a time; a request takes `service` seconds; a replica takes `start` seconds from
decided to ready. Requests that find no room wait, and are lost after `patience` seconds. Simulated in steps of 50 ms as a
fluid queue, so that every policy sees exactly the same arrivals. What is compared: replica-seconds paid for, the highest
count against the steady need, requests lost, and requests that waited longer than a second. Where ours are lost it says when they had come, and when
replicas were ready.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import _pace
from benchmarks._figures import Figures
from fairlead.autoscaling import Observation, Policy, decide, initial_state

STEP = 0.05
PATIENCE = 60.0


# --- policies ---------------------------------------------------------------------------------------------------


class Scaler(Protocol):
    """Called every `tick` seconds with what a gateway sees; returns the replicas it wants."""

    tick: float

    def wanted(self, now: float, seen: Observation) -> int: ...


class Fairlead:
    tick = 1.0

    def __init__(self, target: float, minimum: int, maximum: int) -> None:
        self.policy = Policy(target=target, min_replicas=minimum, max_replicas=maximum)
        self.state = initial_state(0.0, max(minimum, 0))

    def wanted(self, now: float, seen: Observation) -> int:
        decision, self.state = decide(now, seen, self.policy, self.state)
        return decision.desired


class Knative:
    """The rule of knative/serving's pkg/autoscaler/scaling/autoscaler.go with its defaults: all in flight is concurrency."""

    tick = 2.0

    def __init__(self, target: float, minimum: int, maximum: int) -> None:
        self.target, self.minimum, self.maximum = target, minimum, maximum
        self.samples: deque[tuple[float, float]] = deque()
        self.panic_since: float | None = None
        self.highest = 0
        self.idle_since: float | None = None

    def wanted(self, now: float, seen: Observation) -> int:
        self.samples.append((now, seen.running + seen.waiting))
        while self.samples[0][0] <= now - 60:
            self.samples.popleft()
        stable = sum(v for _, v in self.samples) / len(self.samples)
        recent = [v for at, v in self.samples if at > now - 6]
        panic = sum(recent) / len(recent)
        ready = max(1, seen.ready)
        down, up = math.floor(ready / 2), 1000 * ready
        by_stable = min(max(math.ceil(stable / self.target), down), up)
        by_panic = min(max(math.ceil(panic / self.target), down), up)
        if math.ceil(panic / self.target) / ready >= 2:
            self.panic_since = now
        elif self.panic_since is not None and now - self.panic_since > 60:
            self.panic_since, self.highest = None, 0
        wanted = by_stable
        if self.panic_since is not None:
            self.highest = wanted = max(self.highest, by_stable, by_panic)
        return self._bounded(now, wanted)

    def _bounded(self, now: float, wanted: int) -> int:
        self.idle_since = None if wanted else (self.idle_since or now)
        if self.idle_since is not None and now - self.idle_since < 30:
            wanted = 1
        return max(self.minimum, min(wanted, self.maximum))


class Hpa:
    """autoscaling/v2 as documented: every 15 s, 10 % tolerance, up to double or +4 in 15 s, down by the highest of 300 s.

    It cannot go to zero by itself and sees utilization, which is requests at replicas: those that wait outside are unseen.
    """

    tick = 15.0

    def __init__(self, target: float, minimum: int, maximum: int) -> None:
        self.target, self.minimum, self.maximum = target, max(1, minimum), maximum
        self.current = self.minimum
        self.history: deque[tuple[float, int]] = deque()

    def wanted(self, now: float, seen: Observation) -> int:
        ratio = seen.running / max(1, seen.ready) / self.target
        wanted = self.current if abs(ratio - 1) <= 0.1 else math.ceil(seen.ready * ratio)
        self.history.append((now, wanted))
        while self.history[0][0] <= now - 300:
            self.history.popleft()
        if wanted < self.current:
            wanted = min(self.current, max(w for _, w in self.history))
        else:
            wanted = min(wanted, max(self.current * 2, self.current + 4))
        self.current = max(self.minimum, min(wanted, self.maximum))
        return self.current


class RayServe:
    """Ray Serve's default policy: mean of ongoing requests over 30 s, 30 s before up, 600 s before down."""

    tick = 1.0

    def __init__(self, target: float, minimum: int, maximum: int) -> None:
        self.target, self.minimum, self.maximum = target, minimum, maximum
        self.current = minimum
        self.samples: deque[tuple[float, float]] = deque()
        self.since: tuple[int, float] | None = None

    def wanted(self, now: float, seen: Observation) -> int:
        self.samples.append((now, seen.running + seen.waiting))
        while self.samples[0][0] <= now - 30:
            self.samples.popleft()
        ongoing = sum(v for _, v in self.samples) / len(self.samples)
        if self.current == 0:
            self.current = 1 if seen.waiting or seen.running else 0
            return self.current
        wanted = max(self.minimum, min(math.ceil(ongoing / self.target), self.maximum))
        direction = (wanted > self.current) - (wanted < self.current)
        if direction == 0:
            self.since = None
        elif self.since is None or self.since[0] != direction:
            self.since = (direction, now)
        elif now - self.since[1] >= (30 if direction > 0 else 600):
            self.current, self.since = wanted, None
        return self.current


SCALERS: dict[str, Callable[[float, int, int], Scaler]] = {
    "fairlead": Fairlead,
    "knative": Knative,
    "hpa": Hpa,
    "ray serve": RayServe,
}


# --- traffic ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trace:
    """Arrivals a second over time, and the model that serves them."""

    name: str
    seconds: int
    rate: Callable[[float], float]
    service: float = 0.1
    capacity: float = 10.0
    start: float = 5.0
    minimum: int = 0
    maximum: int = 50

    @property
    def need(self) -> int:
        """Replicas that carry the highest minute of the trace at 70 %, by Little's law."""
        minutes = [sum(self.rate(m + s) for s in range(60)) / 60 for m in range(0, self.seconds, 60)]
        return max(1, math.ceil(max(minutes) * self.service / (0.7 * self.capacity)))


def _spikes(t: float) -> float:
    return 20 + (400 if t % 300 < 10 else 0)


def _spikes_of_minutes(t: float) -> float:
    return 3.0 if t > 60 and t % 240 < 60 else 0.0


def _azure_like(t: float) -> float:
    """The shape of public function traces: a daily wave, regular timers, rare bursts, long silences (an hour for a day)."""
    wave = max(0.0, math.sin(t / 3600 * 2 * math.pi)) * 60
    timer = 30 if t % 120 < 2 else 0
    burst = 300 if 1500 < t < 1520 or 2900 < t < 2905 else 0
    return 0.0 if 2000 < t < 2600 else wave + timer + burst


TRACES = (
    Trace("steps", 1800, lambda t: (0, 50, 300, 100, 0, 200)[int(t // 300)]),
    Trace("spikes", 1800, _spikes),
    Trace("diurnal", 3600, lambda t: 100 * (1 - math.cos(t / 3600 * 2 * math.pi))),
    Trace("flapping", 1800, lambda t: 100.0 if int(t // 45) % 2 else 0.0),
    Trace("slow start", 1800, lambda t: 500.0 if 60 <= t < 61 else (20.0 if t > 600 else 0.0), service=0.01, start=10),
    Trace("queue at start", 900, lambda t: 200.0 if t > 60 else 0.0, start=10),
    Trace("slow model", 1800, lambda t: 2.0 if t > 60 else 0.0, service=4.0, capacity=1, start=60),
    Trace("slow spikes", 3600, _spikes_of_minutes, service=1.0, capacity=2, start=60),
    Trace("public shape", 3600, _azure_like, start=8),
)


# --- simulation -------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    replica_seconds: float = 0.0
    peak: int = 0
    answered: float = 0.0
    lost: float = 0.0
    delayed: float = 0.0
    lost_at: list[float] = field(default_factory=list)
    """When those that were lost had come."""
    history: list[tuple[float, int, int, float]] = field(default_factory=list)
    """(seconds, ready, wanted, waiting) by tick."""

    def why_lost(self) -> str:
        """When they came, and what was ready between then and their end."""
        first, last = self.lost_at[0], self.lost_at[-1]
        ready = [step[:2] for step in self.history if first <= step[0] <= last + PATIENCE]
        changes = [now for before, now in pairwise([(0.0, -1), *ready]) if now[1] != before[1]]
        told = ", ".join(f"{count} at {at:.0f} s" for at, count in changes)
        return f"came from {first:.0f} to {last:.0f} s and waited for {PATIENCE:g} s; ready then: {told}"


def simulate(trace: Trace, scaler: Scaler) -> Outcome:
    """Run the trace against the policy as a fluid queue; see the module's docstring."""
    outcome = Outcome()
    ready, pending = trace.minimum, list[float]()
    waiting: deque[list[float]] = deque()  # [arrived, how many]
    running = busy = arrived = done = 0.0
    next_tick = 0.0
    for number in range(int(trace.seconds / STEP)):
        now = number * STEP
        up = sum(1 for at in pending if at <= now)
        ready, pending = ready + up, [at for at in pending if at > now]
        finished = min(running, running * STEP / trace.service)
        running, done = running - finished, done + finished
        outcome.answered += finished
        amount = trace.rate(now) * STEP
        arrived += amount
        if amount:
            waiting.append([now, amount])
        while waiting and waiting[0][0] < now - PATIENCE:
            outcome.lost_at.append(waiting[0][0])
            outcome.lost += waiting.popleft()[1]
        room = max(0.0, ready * trace.capacity - running)
        while waiting and room > 1e-9:
            taken = min(room, waiting[0][1])
            waiting[0][1] -= taken
            room, running = room - taken, running + taken
            if now - waiting[0][0] > 1:
                outcome.delayed += taken
            if waiting[0][1] <= 1e-9:
                waiting.popleft()
        busy += running * STEP
        if now >= next_tick:
            queue = sum(item[1] for item in waiting)
            seen = Observation(
                running=busy / scaler.tick,
                waiting=queue,
                arrivals=arrived / scaler.tick,
                completions=done / scaler.tick,
                ready=ready,
                starting=len(pending),
            )
            # A fluid never quite ends; a gateway's counters do.
            if running < 0.05 and queue == 0 and arrived == 0:
                seen = seen._replace(running=0.0, completions=0.0)
            wanted = scaler.wanted(now, seen)
            arrived = done = busy = 0.0
            next_tick = now + scaler.tick
            while ready + len(pending) < wanted:
                pending.append(now + trace.start)
            while ready + len(pending) > wanted:
                if pending:
                    pending.pop()
                else:
                    ready -= 1
            outcome.history.append((now, ready, wanted, queue))
            outcome.peak = max(outcome.peak, wanted)
        outcome.replica_seconds += (ready + len(pending)) * STEP
    return outcome


def plot(trace: Trace, outcomes: dict[str, Outcome], folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (load, replicas) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 5), height_ratios=[1, 2])
    times = [step[0] for step in outcomes["fairlead"].history]
    load.plot(times, [trace.rate(t) for t in times], color="0.4", linewidth=1)
    load.set_ylabel("requests/s")
    load.set_title(
        f"{trace.name}: {trace.service:g} s a request, {trace.capacity:g} at a time, {trace.start:g} s to start"
    )
    for name, outcome in outcomes.items():
        replicas.step(
            [s[0] for s in outcome.history], [s[2] for s in outcome.history], where="post", label=name, linewidth=1.4
        )
    replicas.set_ylabel("replicas wanted")
    replicas.set_xlabel("seconds")
    replicas.legend(frameon=False, ncols=4)
    for axis in (load, replicas):
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"autoscaling-{trace.name.replace(' ', '-')}.png", dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plots", type=Path, help="write a PNG for each trace into this folder")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument(
        "--pace", action="store_true", help="only what a limit on what a replica is given at once changes"
    )
    arguments = parser.parse_args()
    if arguments.pace:
        _pace.main()
        return
    figures = Figures("Autoscaling, simulated")
    print(
        f"{'trace':16}{'policy':12}{'replica-s':>10}{'peak':>6}{'need':>6}{'answered':>10}{'lost':>9}{'waited > 1 s':>14}"
    )
    for trace in TRACES:
        target = 0.7 * trace.capacity
        outcomes = {name: simulate(trace, make(target, trace.minimum, trace.maximum)) for name, make in SCALERS.items()}
        for name, outcome in outcomes.items():
            print(
                f"{trace.name:16}{name:12}{outcome.replica_seconds:10.0f}{outcome.peak:6}{trace.need:6}"
                f"{outcome.answered:10.0f}{outcome.lost:9.0f}{outcome.delayed:14.0f}"
            )
        ours = outcomes["fairlead"]
        if ours.lost >= 1:
            print(f"{'':16}fairlead: those lost {ours.why_lost()}")
        figures.add(f"{trace.name}: lost", ours.lost, "requests", goal=0, met=ours.lost < 1)
        goal = 1 if trace.name == "queue at start" else None
        figures.add(f"{trace.name}: peak over need", ours.peak - trace.need, "replicas", goal=goal)
        figures.add(
            f"{trace.name}: replica-seconds against Knative",
            ours.replica_seconds / outcomes["knative"].replica_seconds,
            "ratio",
        )
        if arguments.plots:
            plot(trace, outcomes, arguments.plots)
    figures.finish(arguments.json)


if __name__ == "__main__":
    main()
