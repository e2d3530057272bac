"""The last hour of one revision's decisions, kept as what was observed, so that it can be played again through `decide`.

Equal ticks in a row, as those of a service at rest, are one run, and a run is packed into some 70 bytes: an hour of a service that changes each second
takes some 100 KB, one of a service at rest next to nothing. Runs are kept in segments, which are compressed when the next one begins. Each begins with the state
and the policy of that moment, so that old ones can be dropped without a replay, and a new policy or a new beginning is just a new segment.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from fairlead.autoscaling.behavior import Behavior, Change, Rules, SpeedLimit
from fairlead.autoscaling.decision import Decision, Mode, decide
from fairlead.autoscaling.demand import Observation, Sample
from fairlead.autoscaling.policy import Metric, Policy
from fairlead.autoscaling.state import State

KEPT = 3600.0
"""Seconds."""
SEGMENT_RUNS = 300
_RUN = struct.Struct("<ddIdddddII??HB")
_MODES = tuple(Mode)


class Run(NamedTuple):
    """`ticks` ticks from `first` to `last` that observed the same and decided the same."""

    first: float
    last: float
    ticks: int
    seen: Observation
    desired: int
    mode: Mode


class Segment:
    """Runs from a moment on. `close` makes them small; they can be read all the same."""

    def __init__(self, state: State, policy: Policy) -> None:
        self.began, self.policy = state.clock, policy
        self._state = state
        self._packed = bytearray()
        self._closed: bytes | None = None

    def add(self, run: Run) -> None:
        self._packed += _packed(run)

    @property
    def full(self) -> bool:
        return len(self._packed) >= SEGMENT_RUNS * _RUN.size

    def close(self) -> None:
        self._closed = zlib.compress(pickle.dumps((self._state, self._packed)), 1)
        del self._state, self._packed

    def read(self) -> tuple[State, list[Run]]:
        if self._closed is not None:
            state, packed = pickle.loads(zlib.decompress(self._closed))  # noqa: S301 - this process's own
        else:
            state, packed = self._state, self._packed
        return state, [_unpacked(values) for values in _RUN.iter_unpack(packed)]


class Step(NamedTuple):
    """One tick played again. `desired_then` and `mode_then` are what was decided when it happened."""

    clock: float
    seen: Observation
    policy: Policy
    decision: Decision
    desired_then: int
    mode_then: Mode

    @property
    def differs(self) -> bool:
        return (self.decision.desired, self.decision.mode) != (self.desired_then, self.mode_then)


class History:
    def __init__(self) -> None:
        self.segments: deque[Segment] = deque()
        self._run: Run | None = None
        """The latest, not packed yet."""
        self._after: State | None = None

    def record(
        self, clock: float, seen: Observation, policy: Policy, before: State, decision: Decision, after: State
    ) -> None:
        """A tick that took `before` to `after`."""
        begins = not self.segments or before is not self._after or policy != self.segments[-1].policy
        if begins or self.segments[-1].full:
            self._close_run()
            if self.segments:
                self.segments[-1].close()
            self.segments.append(Segment(before, policy))
            self._drop(clock)
        self._after = after
        run = self._run
        if run is not None and (run.seen, run.desired, run.mode) == (seen, decision.desired, decision.mode):
            self._run = Run(run.first, clock, run.ticks + 1, run.seen, run.desired, run.mode)
        else:
            self._close_run()
            self._run = Run(clock, clock, 1, seen, decision.desired, decision.mode)

    def document(self) -> list[dict[str, Any]]:
        """As JSON has it; `parsed` reads it."""
        found = []
        for segment in self.segments:
            state, runs = segment.read()
            if segment is self.segments[-1] and self._run is not None:
                runs.append(self._run)
            found.append({"policy": asdict(segment.policy), "state": state._asdict(), "runs": runs})
        return found

    def _close_run(self) -> None:
        if self._run is not None:
            self.segments[-1].add(self._run)
            self._run = None

    def _drop(self, clock: float) -> None:
        """A segment goes when the one after it begins before the hour."""
        while len(self.segments) > 1 and self.segments[1].began <= clock - KEPT:
            self.segments.popleft()


Played = tuple[Policy, State, Sequence[Run]]


def replay(segments: Sequence[Played], policy: Policy | None = None) -> Iterator[Step]:
    """Decides again. With a `policy` it tells what that one would have decided, in one piece from the beginning, on what was observed:
    demand as it was, and replicas as they were."""
    state: State | None = None
    for recorded, begins, runs in segments:
        state = begins if policy is None or state is None else state
        for run in runs:
            for clock in _ticks(run):
                decision, state = decide(clock, run.seen, policy or recorded, state)
                yield Step(clock, run.seen, policy or recorded, decision, run.desired, run.mode)


def parsed(document: Sequence[Mapping[str, Any]]) -> list[Played]:
    """What `History.document` made, back from JSON. Raises KeyError, TypeError or ValueError for what is none."""
    return [
        (_policy(entry["policy"]), _state(entry["state"]), [_run(*run) for run in entry["runs"]]) for entry in document
    ]


def _ticks(run: Run) -> Iterator[float]:
    """The moments of a run's ticks: they are regular."""
    apart = (run.last - run.first) / max(1, run.ticks - 1)
    return (run.first + apart * number for number in range(run.ticks))


def _packed(run: Run) -> bytes:
    seen = run.seen
    numbers = (seen.running, seen.waiting, seen.arrivals, seen.completions, seen.custom, seen.ready, seen.starting)
    flags = (seen.scheduling, seen.complete)
    return _RUN.pack(run.first, run.last, run.ticks, *numbers, *flags, run.desired, _MODES.index(run.mode))


def _unpacked(values: tuple[Any, ...]) -> Run:
    first, last, ticks, running, waiting, arrivals, completions, custom, ready, starting, *rest = values
    scheduling, complete, desired, mode = rest
    seen = Observation(running, waiting, arrivals, completions, ready, starting, scheduling, custom, complete)
    return Run(first, last, ticks, seen, desired, _MODES[mode])


def _run(first: float, last: float, ticks: int, seen: Sequence[Any], desired: int, mode: str) -> Run:
    return Run(first, last, ticks, Observation(*seen), desired, Mode(mode))


def _policy(values: Mapping[str, Any]) -> Policy:
    behavior = Behavior(**{way: _rules(rules) for way, rules in values["behavior"].items()})
    return Policy(**{**values, "metric": Metric(values["metric"]), "behavior": behavior})


def _rules(values: Mapping[str, Any]) -> Rules:
    return Rules(**{**values, "limits": tuple(SpeedLimit(**limit) for limit in values["limits"])})


def _state(values: Mapping[str, Any]) -> State:
    lists = {
        "samples": tuple(Sample(*sample) for sample in values["samples"]),
        "recommended": tuple(Change(*change) for change in values["recommended"]),
        "changes": tuple(Change(*change) for change in values["changes"]),
    }
    return State(**{**values, **lists})
