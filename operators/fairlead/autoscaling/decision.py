"""The decision: how many replicas now, in which mode, and why. Pure: `(now, observation, policy, state) -> (decision, state)`.

After Knative Serving's pkg/autoscaler/scaling/autoscaler.go, with these differences:

- replicas on their way count as capacity, so a burst is answered once and not again at each tick until they are ready;
- requests that wait count as work, not as concurrency (see `demand`);
- scaling to zero has a delay of its own, counted from the last sign of life;
- waking from zero is a lease: it lasts until a replica is ready or the wake-up has failed, whether or not the client stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, floor

from fairlead.autoscaling.behavior import Change, limited, within_tolerance
from fairlead.autoscaling.demand import Observation, Sample, average, demand, service_time
from fairlead.autoscaling.policy import Policy


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


RETRY_AFTER_FAILED_ACTIVATION = 60.0
"""Seconds between a wake-up that failed and the next one, so that a model that can never start does not thrash."""


@dataclass(frozen=True, slots=True)
class State:
    """What must be remembered from one tick to the next. `changes`: desired replicas over time, oldest first."""

    desired: int
    samples: tuple[Sample, ...] = ()
    recommended: tuple[Change, ...] = ()
    changes: tuple[Change, ...] = ()
    seconds_per_request: float | None = None
    first_ready: float | None = None
    panic_since: float | None = None
    last_active: float | None = None
    activating_since: float | None = None
    paused_until: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided and the numbers behind it; `reason` is one sentence for people."""

    desired: int
    mode: Mode
    value: float
    target: float
    reason: str


def initial_state(now: float, replicas: int, policy: Policy) -> State:
    """The state of an autoscaler that has just started: in panic at the current scale, since its history is lost.

    So a restart never scales down before a stable window has been seen.
    """
    started = State(desired=replicas, last_active=now, changes=(Change(now, replicas),))
    return replace(started, panic_since=now) if replicas > 1 else started


def decide(now: float, seen: Observation, policy: Policy, state: State) -> tuple[Decision, State]:
    """One tick. Pass the returned state to the next; `now` is any clock in seconds that never goes back."""
    now = max([now, *(sample.at for sample in state.samples[-1:])])
    state = _remember(now, seen, policy, state)
    if state.desired == 0 or state.activating_since is not None:
        return _from_zero(now, seen, policy, state)
    return _running(now, seen, policy, state)


def _remember(now: float, seen: Observation, policy: Policy, state: State) -> State:
    known = service_time(state.seconds_per_request, seen)
    first_ready = now if state.first_ready is None and seen.ready else state.first_ready
    seconds = known if known is not None or first_ready is None else now - first_ready
    samples = tuple(s for s in state.samples if s.at > now - policy.stable_window)
    return replace(
        state,
        seconds_per_request=known,
        first_ready=first_ready,
        samples=(*samples, Sample(now, demand(seen, policy, seconds))),
        last_active=state.last_active if seen.idle and state.last_active is not None else now,
    )


# --- from zero --------------------------------------------------------------------------------------------------


def _from_zero(now: float, seen: Observation, policy: Policy, state: State) -> tuple[Decision, State]:
    value = state.samples[-1].value
    if state.activating_since is None:
        return _at_zero(now, seen, policy, state, value)
    if seen.ready:
        # The burst that woke it has been held, not carried: its samples would read as concurrency.
        awake = replace(state, activating_since=None, samples=state.samples[-1:], last_active=now)
        return _running(now, seen, policy, awake)
    if seen.scheduling:
        # A node may take minutes to come; the clock of the wake-up runs only while a replica could start.
        waiting = replace(state, activating_since=now)
        return Decision(state.desired, Mode.ACTIVATING, value, policy.target, "its pods wait for a node"), waiting
    waited = now - state.activating_since
    if waited >= policy.activation_timeout and policy.min_replicas == 0:
        reason = f"no replica was ready {waited:.0f} s after the wake-up; the next try is in {RETRY_AFTER_FAILED_ACTIVATION:.0f} s"
        failed = replace(state, activating_since=None, paused_until=now + RETRY_AFTER_FAILED_ACTIVATION)
        return _settle(now, failed, 0, Mode.PAUSED, value, policy, reason)
    reason = f"the first replica has been starting for {waited:.0f} s"
    return Decision(state.desired, Mode.ACTIVATING, value, policy.target, reason), state


def _at_zero(now: float, seen: Observation, policy: Policy, state: State, value: float) -> tuple[Decision, State]:
    if seen.idle and policy.min_replicas == 0:
        return Decision(0, Mode.IDLE, value, policy.target, "nothing asks for it"), replace(state, paused_until=None)
    if state.paused_until is not None and now < state.paused_until:
        reason = f"the last wake-up failed; the next try is in {state.paused_until - now:.0f} s"
        return Decision(0, Mode.PAUSED, value, policy.target, reason), state
    woken = replace(state, activating_since=now, paused_until=None)
    wanted = policy.bounded(max(1, _replicas(value, policy)))
    reason = f"{seen.waiting:g} requests wait for it" if seen.waiting else "it is asked for"
    return _settle(now, woken, wanted, Mode.ACTIVATING, value, policy, reason)


# --- from one to many -------------------------------------------------------------------------------------------


def _running(now: float, seen: Observation, policy: Policy, state: State) -> tuple[Decision, State]:
    stable = average(state.samples, now, policy.stable_window)
    panic = average(state.samples, now, policy.panic_window)
    # Worked example: target 70, 2 ready, 1 on its way, panic average 500: ceil(500/70) = 8 wanted against 3, so 8/3 >= 2: panic.
    capacity = max(1, seen.ready + seen.starting)
    ceiling = ceil(policy.max_scale_up_rate * capacity)
    floor_ = floor(max(1, seen.ready) / policy.max_scale_down_rate)
    by_stable = min(max(_replicas(stable, policy), floor_), ceiling)
    by_panic = min(max(_replicas(panic, policy), floor_), ceiling)

    over = _replicas(panic, policy) / capacity >= policy.panic_threshold
    state = _panic(now, policy, state, over=over)
    if state.panic_since is not None:
        wanted = max(by_stable, by_panic, state.desired)
        mode, value = Mode.PANIC, panic
    else:
        wanted = _delayed(now, policy, state, by_stable)
        mode, value = Mode.STABLE, stable
    state = replace(state, recommended=_recent(now, policy, (*state.recommended, Change(now, by_stable))))

    reason = (
        f"{value:.2f} {policy.metric} over {policy.panic_window if mode is Mode.PANIC else policy.stable_window:g} s"
    )
    reason += f" at {policy.target:g} a replica"
    wanted = _not_yet_zero(now, policy, state, wanted)
    bounded = policy.bounded(wanted)
    if bounded != wanted:
        reason += f"; {wanted} is outside {policy.min_replicas}..{policy.max_replicas or 'unlimited'}"
    if within_tolerance(state.desired, bounded, policy.behavior):
        return Decision(state.desired, mode, value, policy.target, reason), state
    speed = limited(now, state.desired, bounded, policy.behavior, state.changes)
    if speed != bounded:
        reason += f"; behavior allows {speed} of {bounded} now"
    if speed == 0:
        mode, reason = Mode.IDLE, f"nothing asked for it in the last {policy.scale_to_zero_delay:g} s"
    return _settle(now, state, speed, mode, value, policy, reason)


def _replicas(value: float, policy: Policy) -> int:
    return ceil(value / policy.target)


def _panic(now: float, policy: Policy, state: State, *, over: bool) -> State:
    """Enter panic, refresh it while it lasts, leave it after a stable window without."""
    if over:
        return replace(state, panic_since=now)
    if state.panic_since is not None and now - state.panic_since > policy.stable_window:
        return replace(state, panic_since=None)
    return state


def _delayed(now: float, policy: Policy, state: State, wanted: int) -> int:
    """The most cautious recommendation of the delay: the highest for a way down, the lowest for a way up."""
    if wanted < state.desired:
        delay = max(policy.scale_down_delay, policy.behavior.down.stabilization)
        return min(state.desired, max([wanted, *(c.desired for c in state.recommended if c.at > now - delay)]))
    delay = policy.behavior.up.stabilization
    return max(state.desired, min([wanted, *(c.desired for c in state.recommended if c.at > now - delay)]))


def _not_yet_zero(now: float, policy: Policy, state: State, wanted: int) -> int:
    """Keep one replica until the service has been without a sign of life for `scale_to_zero_delay`."""
    quiet = now - (state.last_active if state.last_active is not None else now)
    return max(wanted, 1) if quiet < policy.scale_to_zero_delay else wanted


# --- bookkeeping ------------------------------------------------------------------------------------------------


def _settle(
    now: float, state: State, desired: int, mode: Mode, value: float, policy: Policy, reason: str
) -> tuple[Decision, State]:
    decision = Decision(desired, mode, value, policy.target, reason)
    if desired == state.desired:
        return decision, state
    return decision, replace(
        state, desired=desired, changes=_recent(now, policy, (*state.changes, Change(now, desired)))
    )


def _recent(now: float, policy: Policy, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes that some delay or limit may still ask for, and the one before them."""
    rules = (policy.behavior.up, policy.behavior.down)
    periods = [limit.period for rule in rules for limit in rule.limits]
    reach = max([policy.scale_down_delay, *(rule.stabilization for rule in rules), *periods])
    cut = sum(1 for change in changes if change.at <= now - reach)
    return changes[max(0, cut - 1) :]
