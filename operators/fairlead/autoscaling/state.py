"""What must be remembered from one tick to the next, and how an observation enters it.

Times are *observed* time: it moves with the clock while there are ticks, and stands still while nothing is observed. A clock that goes back, or a
process that was stopped for an hour, therefore adds nothing; windows and delays are full only when they have been seen.
"""

from __future__ import annotations

from typing import NamedTuple

from fairlead.autoscaling.behavior import Change
from fairlead.autoscaling.demand import Known, Observation, Sample, demand, let_go, over_full, service_time
from fairlead.autoscaling.policy import Policy

LONGEST_TICK = 10.0
"""Seconds that one observation may stand for. Ticks are 1 or 2 s apart; a longer gap was not observed."""


class State(NamedTuple):
    """`changes` and `recommended`: desired replicas over time, oldest first. Durations are seconds."""

    desired: int
    clock: float
    """The clock's last reading."""
    now: float
    """Observed time; all times below are of it."""
    last_active: float
    """The last sign of life."""
    began: float | None = None
    """Since when there is history to go by: a replica was ready, and no queue was left from before. See `_begun`."""
    heard: bool = True
    """Whether all who could know of demand have been heard since the beginning."""
    samples: tuple[Sample, ...] = ()
    recommended: tuple[Change, ...] = ()
    changes: tuple[Change, ...] = ()
    waiting: float = 0.0
    """Requests that waited at the last tick."""
    backlog: float = 0.0
    """Requests at replicas that had waited; see `demand.let_go`."""
    seconds_per_request: float | None = None
    seconds_to_start: float = 0.0
    """From a replica wanted to it ready, as last seen."""
    starting_since: float | None = None
    none_done_since: float | None = None
    """Since when replicas have been at it without completing anything."""
    panic_since: float | None = None
    activating_since: float | None = None
    paused_until: float | None = None
    failures: int = 0
    """Wake-ups in a row that failed."""


def initial_state(clock: float, replicas: int) -> State:
    """The state of an autoscaler that has just started: in panic at the current scale, since its history is lost.

    So a restart never scales down before a stable window has been seen. What it has not seen may be a wake-up: one may be under way (`_begun`), requests
    at replicas may have waited for it (`demand.over_full`), and a start may take as long as a wake-up may (`_start_up`).
    """
    started = State(replicas, clock, clock, last_active=clock, heard=False, changes=(Change(clock, replicas),))
    return started._replace(panic_since=clock) if replicas > 1 else started


def with_sign_of_life(state: State) -> State:
    """Its owner has cared for it: the delay to zero begins anew, and so do wake-ups that had failed."""
    return state._replace(last_active=state.now, paused_until=None, failures=0)


def observed(clock: float, seen: Observation, policy: Policy, state: State) -> State:
    """The state with time moved on and the observation in it."""
    passed = min(max(0.0, clock - state.clock), LONGEST_TICK)
    now = state.now + passed
    state = _begun(now, seen, policy, state)
    backlog = let_go(state.backlog, state.waiting, seen, passed)
    if not state.heard:
        backlog = max(backlog, over_full(seen, policy))
    queued = seen.waiting > 0 or state.waiting > 0
    state = _served(now, seen, _starts(now, seen, state))
    none_done_for = 0.0 if state.none_done_since is None else now - state.none_done_since
    if none_done_for > policy.panic_window:
        backlog = 0.0  # these are no short requests that gathered: they are what replicas carry
    known = Known(backlog, queued, _seconds_per_request(state, none_done_for), _start_up(now, policy, state))
    value = demand(seen, policy, known)
    if not state.heard and not seen.complete and state.desired:
        value = min(value, state.desired * policy.target)  # one look without rates is no reason for more
    if not seen.complete and state.samples:
        value = max(value, state.samples[-1].value)  # who is silent may still ask for what it asked for
    return state._replace(
        clock=clock,
        now=now,
        heard=state.heard or seen.complete,
        waiting=seen.waiting,
        backlog=backlog,
        samples=(*_since(state.samples, now - policy.stable_window), Sample(now, value)),
        last_active=state.last_active if seen.idle and seen.complete else now,
    )


def recent(now: float, policy: Policy, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes that some delay or limit may still ask for, and the one before them."""
    rules = (policy.behavior.up, policy.behavior.down)
    periods = [limit.period for rule in rules for limit in rule.limits]
    reach = max([policy.scale_down_delay, *(rule.stabilization for rule in rules), *periods])
    cut = sum(1 for change in changes if change.at <= now - reach)
    return changes[max(0, cut - 1) :]


def _since(samples: tuple[Sample, ...], moment: float) -> tuple[Sample, ...]:
    """Those after the moment; they are in order, and with each tick one goes."""
    gone = 0
    while gone < len(samples) and samples[gone].at <= moment:
        gone += 1
    return samples[gone:]


def _served(now: float, seen: Observation, state: State) -> State:
    """Learns how long a request takes."""
    if not seen.ready:
        return state if state.none_done_since is None else state._replace(none_done_since=None)
    known = service_time(state.seconds_per_request, seen)
    done = seen.completions > 0 or seen.running == 0 or state.none_done_since is None
    return state._replace(seconds_per_request=known, none_done_since=now if done else state.none_done_since)


def _seconds_per_request(state: State, none_done_for: float) -> float | None:
    """What is known, and at least as long as nothing has been completed; None before the first replica is ready."""
    if state.none_done_since is None:
        return state.seconds_per_request
    return max(state.seconds_per_request or 0.0, none_done_for)


def _starts(now: float, seen: Observation, state: State) -> State:
    """Learns how long a start takes: from the first replica on its way to none on its way any more."""
    if seen.starting and not seen.scheduling:
        return state._replace(starting_since=now) if state.starting_since is None else state
    if state.starting_since is None:
        return state
    if seen.scheduling or not seen.ready:
        return state._replace(starting_since=None)
    return state._replace(starting_since=None, seconds_to_start=now - state.starting_since)


def _start_up(now: float, policy: Policy, state: State) -> float:
    """Seconds that a start takes, as far as is known: one that is under way takes at least as long as it has."""
    if _is_new(now, policy, state):
        return policy.activation_timeout  # the start that was seen may have begun long before
    under_way = 0.0 if state.starting_since is None else now - state.starting_since
    return max(state.seconds_to_start, under_way)


# --- History that was lost --------------------------------------------------------------------------------------


def _is_new(now: float, policy: Policy, state: State) -> bool:
    """Whether there has been no stable window of history yet."""
    return state.began is None or now - state.began < policy.stable_window


def _begun(now: float, seen: Observation, policy: Policy, state: State) -> State:
    """What the first observations tell of what was not seen."""
    if not state.samples and state.desired and not seen.ready and policy.least == 0:
        # It was at zero and is being woken: whoever began that has left it to us.
        state = state._replace(activating_since=now)
    if not state.heard and state.samples and now - state.samples[0].at >= policy.panic_window:
        state = state._replace(heard=True)  # who has been silent for so long is not waited for
    if not _is_new(now, policy, state):
        return state
    if not seen.ready:
        return state._replace(began=None)
    return state._replace(began=now) if seen.waiting or state.began is None else state
