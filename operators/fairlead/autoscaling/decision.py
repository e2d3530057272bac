"""The decision: how many replicas now, in which mode, and why. Pure: `(clock, observation, policy, state) -> (decision, state)`.

After Knative Serving's pkg/autoscaler/scaling/autoscaler.go, with these differences:

- replicas on their way count as capacity, so a burst is answered once and not again at each tick until they are ready;
- requests that wait count as work, not as concurrency (see `demand`);
- scaling to zero has a delay of its own, counted from the last sign of life, and a longer one where starts take long;
- waking from zero is a lease: it lasts until a replica is ready or the wake-up has failed, whether or not the client stays;
- only time that was observed counts (see `state`), so neither a restart, nor a silent gateway, nor a clock that jumps scales down.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, floor

from fairlead.autoscaling.behavior import Change, limited, within_tolerance
from fairlead.autoscaling.demand import Observation, average
from fairlead.autoscaling.policy import Policy
from fairlead.autoscaling.state import State, observed, recent


class Mode(StrEnum):
    STABLE = "Stable"
    PANIC = "Panic"
    """The short window asks for at least twice what there is: scale up by it, and never down until it is over."""
    ACTIVATING = "Activating"
    """From zero: the first replica is on its way."""
    IDLE = "Idle"
    """At zero, and nothing asks."""
    PAUSED = "Paused"
    """A wake-up failed; the next one waits."""


FIRST_PAUSE, LONGEST_PAUSE = 60.0, 600.0
"""Seconds between a wake-up that failed and the next one. Each failure in a row doubles it: a model that can never start does not thrash."""

ROUNDING = 1e-6
"""Of a replica: 0.7 * 50 / 7 is 5, whatever floating point says."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided and the numbers behind it; `reason` is one sentence for people."""

    desired: int
    mode: Mode
    value: float
    target: float
    reason: str


def decide(clock: float, seen: Observation, policy: Policy, state: State) -> tuple[Decision, State]:
    """One tick. Pass the returned state to the next; `clock` is any clock in seconds."""
    state = observed(clock, seen, policy, state)
    if state.desired == 0 or state.activating_since is not None:
        return _from_zero(seen, policy, state)
    return _running(seen, policy, state)


# --- from zero --------------------------------------------------------------------------------------------------


def _from_zero(seen: Observation, policy: Policy, state: State) -> tuple[Decision, State]:
    value = state.samples[-1].value
    if state.activating_since is None:
        return _at_zero(seen, policy, state, value)
    if seen.ready:
        # The burst that woke it has been held, not carried: its samples would read as concurrency.
        awake = state._replace(activating_since=None, failures=0, samples=state.samples[-1:], last_active=state.now)
        return _running(seen, policy, awake)
    wanted = policy.bounded(state.desired)  # the bounds may be new, and hold at once
    if seen.scheduling:
        # A node may take minutes to come; the clock of the wake-up runs only while a replica could start.
        waiting = state._replace(activating_since=state.now)
        return _settle(waiting, wanted, Mode.ACTIVATING, value, policy, "its pods wait for a node")
    waited = state.now - state.activating_since
    if waited >= policy.patience(state.seconds_to_start, state.failures) and policy.least == 0 and seen.complete:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**state.failures)
        failed = state._replace(
            activating_since=None, paused_until=state.now + pause, failures=min(state.failures + 1, 8)
        )
        reason = f"no replica was ready {waited:.0f} s after the wake-up; the next try is in {pause:.0f} s"
        return _settle(failed, 0, Mode.PAUSED, value, policy, reason)
    reason = f"the first replica has been starting for {waited:.0f} s"
    return _settle(state, wanted, Mode.ACTIVATING, value, policy, reason)


def _at_zero(seen: Observation, policy: Policy, state: State, value: float) -> tuple[Decision, State]:
    # A pause is one also while nobody asks: the gateways refuse requests at once during it, with the reason, instead of holding them.
    if state.paused_until is not None and state.now < state.paused_until and policy.least == 0:
        reason = f"the last wake-up failed; the next try is in {state.paused_until - state.now:.0f} s"
        return Decision(0, Mode.PAUSED, value, policy.target, reason), state
    if seen.idle and policy.least == 0:
        return Decision(0, Mode.IDLE, value, policy.target, "nothing asks for it"), state
    woken = state._replace(activating_since=state.now, paused_until=None)
    wanted = policy.bounded(max(1, _replicas(value, policy)))
    reason = f"{seen.waiting:g} requests wait for it" if seen.waiting else "it is asked for"
    if seen.idle:
        reason = f"{policy.least} replicas are to be there"
    return _settle(woken, wanted, Mode.ACTIVATING, value, policy, reason)


# --- from one to many -------------------------------------------------------------------------------------------


def _running(seen: Observation, policy: Policy, state: State) -> tuple[Decision, State]:
    wanted, mode, value, reason, state = _recommended(seen, policy, state)
    delay = policy.delay_to_zero(state.seconds_to_start)
    if wanted == 0 and state.now - state.last_active < delay:
        wanted, reason = (
            1,
            f"{reason}; the last one stays until nothing has asked for {_in_words(delay, policy, state)}",
        )
    if (bounded := policy.bounded(wanted)) != wanted:
        reason += f"; {wanted} is outside {policy.least}..{policy.max_replicas or 'unlimited'}"
        wanted = bounded
    current = policy.bounded(state.desired)  # the bounds may be new, and hold at once
    if wanted < current and not seen.complete:
        reason += f"; {wanted} would do, but not everything that could ask for it has been heard"
        wanted = current
    allowed = limited(state.now, current, wanted, policy.behavior, state.changes)
    if allowed != wanted:
        reason += f"; behavior allows {allowed} of {wanted} now"
    if allowed == 0:
        mode, reason = Mode.IDLE, f"nothing asked for it in the last {_in_words(delay, policy, state)}"
    return _settle(state, allowed, mode, value, policy, reason)


def _recommended(seen: Observation, policy: Policy, state: State) -> tuple[int, Mode, float, str, State]:
    """What demand asks for, before bounds and speed limits: (replicas, mode, the value that says so, why, state)."""
    stable = average(state.samples, state.now, policy.stable_window)
    panic = average(state.samples, state.now, policy.panic_window)
    # Worked example: target 70, 2 ready, 1 on its way, panic average 500: ceil(500/70) = 8 wanted against 3, so 8/3 >= 2: panic.
    capacity = max(1, seen.ready + seen.starting)
    ceiling = ceil(policy.max_scale_up_rate * capacity)
    floor_ = floor(max(1, seen.ready) / policy.max_scale_down_rate)
    by_stable = min(max(_asked(stable, policy, state), floor_), ceiling)
    by_panic = min(max(_asked(panic, policy, state), floor_), ceiling)

    state = _panic(policy, state, over=_replicas(panic, policy) / capacity >= policy.panic_threshold)
    if state.panic_since is not None:
        wanted, mode, value, window = max(by_stable, by_panic, state.desired), Mode.PANIC, panic, policy.panic_window
    else:
        wanted, mode, value, window = _delayed(policy, state, by_stable), Mode.STABLE, stable, policy.stable_window
    recommended = (*state.recommended, Change(state.now, by_stable))
    state = state._replace(recommended=recent(state.now, policy, recommended))
    reason = f"{value:.2f} {policy.unit} over {window:g} s at {policy.target:g} a replica"
    if policy.warm_replicas:
        reason += f" and {policy.warm_replicas} to spare"
    return wanted, mode, value, reason, state


def _in_words(seconds: float, policy: Policy, state: State) -> str:
    """A delay to zero, with where it comes from."""
    because = f", since a start takes {state.seconds_to_start:.0f} s" if seconds > policy.scale_to_zero_delay else ""
    return f"{round(seconds, 1):g} s{because}"


def _replicas(value: float, policy: Policy) -> int:
    return ceil(value / policy.target - ROUNDING)


def _asked(value: float, policy: Policy, state: State) -> int:
    """Replicas for the value, or as many as there are for it if that is hardly different; and those to spare."""
    asked, there = _replicas(value, policy), max(0, state.desired - policy.warm_replicas)
    return policy.warm_replicas + (there if within_tolerance(there, asked, policy.behavior) else asked)


def _panic(policy: Policy, state: State, *, over: bool) -> State:
    """Enter panic, refresh it while it lasts, leave it after a stable window without."""
    if over:
        return state._replace(panic_since=state.now)
    if state.panic_since is not None and state.now - state.panic_since > policy.stable_window:
        return state._replace(panic_since=None)
    return state


def _delayed(policy: Policy, state: State, wanted: int) -> int:
    """The most cautious recommendation of the delay: the highest for a way down, the lowest for a way up."""
    if wanted < state.desired:
        since = state.now - max(policy.scale_down_delay, policy.behavior.down.stabilization)
        return min(state.desired, max([wanted, *(c.desired for c in state.recommended if c.at > since)]))
    since = state.now - policy.behavior.up.stabilization
    return max(state.desired, min([wanted, *(c.desired for c in state.recommended if c.at > since)]))


def _settle(
    state: State, desired: int, mode: Mode, value: float, policy: Policy, reason: str
) -> tuple[Decision, State]:
    decision = Decision(desired, mode, value, policy.target, reason)
    if desired == state.desired:
        return decision, state
    changes = recent(state.now, policy, (*state.changes, Change(state.now, desired)))
    return decision, state._replace(desired=desired, changes=changes)
