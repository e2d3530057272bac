"""The decision as time lines: each step says what was seen and what must follow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.autoscaling import (
    Behavior,
    Decision,
    Metric,
    Mode,
    Observation,
    Policy,
    Rules,
    SpeedLimit,
    State,
    decide,
    initial_state,
)

TICK = 2.0


class TimeLine:
    """Feeds one observation per tick and keeps the last decision."""

    def __init__(self, policy: Policy, replicas: int) -> None:
        self.policy, self.now = policy, 1000.0
        self.state: State = initial_state(self.now, replicas, policy)
        self.peak = replicas

    def see(self, seconds: float, **seen: float) -> Decision:
        """The same observation at every tick for so many seconds; replicas are ready as decided unless said otherwise."""
        decision: Decision | None = None
        for _ in range(max(1, round(seconds / TICK))):
            self.now += TICK
            observation = Observation(**{"ready": self.state.desired, **seen})  # type: ignore[arg-type]
            decision, self.state = decide(self.now, observation, self.policy, self.state)
            self.peak = max(self.peak, decision.desired)
        assert decision is not None
        return decision


FROM_ZERO = Policy(min_replicas=0, max_replicas=20)


def test_one_replica_for_each_target_of_steady_concurrency() -> None:
    line = TimeLine(Policy(target=70), replicas=1)
    assert line.see(120, running=200, arrivals=100, completions=100).desired == 3


def test_a_burst_panics_at_the_next_tick_and_does_not_scale_down_until_it_is_over() -> None:
    line = TimeLine(Policy(target=10), replicas=1)
    line.see(60, running=5, arrivals=50, completions=50)
    burst = line.see(6, running=100, arrivals=1000, completions=1000)
    assert burst.mode is Mode.PANIC
    assert burst.desired == 10
    assert line.see(50, running=5, arrivals=50, completions=50).desired == 10
    assert line.see(70, running=5, arrivals=50, completions=50).desired < 10


def test_replicas_on_their_way_are_not_started_twice() -> None:
    line = TimeLine(Policy(target=10), replicas=1)
    line.see(60, running=5, arrivals=50, completions=50)
    for _ in range(10):
        decision = line.see(TICK, running=40, arrivals=100, completions=100, ready=1, starting=line.state.desired - 1)
    assert decision.desired == 4


def test_a_queue_of_short_requests_behind_a_slow_start_does_not_start_many() -> None:
    # 500 requests of 10 ms held for 10 s: 5 s of work, one replica's.
    line = TimeLine(FROM_ZERO, replicas=0)
    line.see(2, waiting=250, arrivals=125)
    line.see(8, waiting=500, ready=0, starting=1)
    line.see(2, running=60, completions=250, ready=1)
    line.see(30)
    assert line.peak <= 2


def test_what_waits_counts_by_the_time_it_takes_once_that_is_known() -> None:
    # 600 waiting requests of 1 s each, to be done in 6 s: 100 at once.
    line = TimeLine(Policy(target=10), replicas=5)
    line.see(60, running=40, arrivals=40, completions=40)
    assert line.see(10, running=50, waiting=600, arrivals=40, completions=50).desired >= 10


def test_the_first_request_wakes_one_replica_at_once() -> None:
    line = TimeLine(FROM_ZERO, replicas=0)
    assert line.see(TICK).mode is Mode.IDLE
    woken = line.see(TICK, waiting=1, arrivals=0.5)
    assert (woken.desired, woken.mode) == (1, Mode.ACTIVATING)


def test_a_client_that_goes_away_does_not_cancel_the_wake_up() -> None:
    line = TimeLine(FROM_ZERO, replicas=0)
    line.see(TICK, waiting=1)
    assert line.see(100, waiting=0, ready=0, starting=1).desired == 1


def test_a_wake_up_that_fails_pauses_and_tries_again_later() -> None:
    line = TimeLine(FROM_ZERO, replicas=0)
    line.see(TICK, waiting=1)
    failed = line.see(122, waiting=1, ready=0, starting=1)
    assert (failed.desired, failed.mode) == (0, Mode.PAUSED)
    assert line.see(50, waiting=1).desired == 0
    assert line.see(12, waiting=1, ready=0).desired == 1


def test_waiting_for_a_node_does_not_time_the_wake_up_out() -> None:
    line = TimeLine(FROM_ZERO, replicas=0)
    line.see(TICK, waiting=1)
    patient = line.see(1800, waiting=1, ready=0, starting=1, scheduling=True)
    assert (patient.desired, patient.mode) == (1, Mode.ACTIVATING)


def test_to_zero_only_after_the_delay_without_a_sign_of_life() -> None:
    line = TimeLine(replace(FROM_ZERO, stable_window=10, scale_to_zero_delay=30), replicas=1)
    line.see(20, running=1, arrivals=1, completions=1)
    assert line.see(28).desired == 1
    gone = line.see(4)
    assert (gone.desired, gone.mode) == (0, Mode.IDLE)


def test_a_fast_request_that_ends_between_ticks_is_a_sign_of_life() -> None:
    line = TimeLine(replace(FROM_ZERO, stable_window=10, scale_to_zero_delay=30), replicas=1)
    for _ in range(20):
        line.see(26)
        assert line.see(TICK, running=0, arrivals=0.5, completions=0.5).desired == 1


def test_an_operator_that_restarts_never_scales_down_on_lost_history() -> None:
    line = TimeLine(Policy(target=10), replicas=8)
    restarted = line.see(58, running=20, arrivals=20, completions=20)
    assert (restarted.desired, restarted.mode) == (8, Mode.PANIC)
    assert line.see(120, running=20, arrivals=20, completions=20).desired == 2


def test_a_clock_that_goes_back_changes_nothing() -> None:
    policy = Policy(target=10)
    state = initial_state(1000, 2, policy)
    for now in (1002.0, 1004.0, 500.0, 1006.0):
        decision, state = decide(now, Observation(running=15, arrivals=15, completions=15, ready=2), policy, state)
        assert decision.desired == 2


def test_rps_scales_on_arrivals() -> None:
    line = TimeLine(Policy(metric=Metric.RPS, target=100), replicas=1)
    assert line.see(120, running=1, arrivals=350, completions=350).desired == 4


def test_behavior_limits_the_speed_up_and_says_so() -> None:
    slow = Behavior(up=Rules(limits=(SpeedLimit("Pods", 2, 60),)))
    line = TimeLine(Policy(target=10, behavior=slow), replicas=1)
    decision = line.see(10, running=100, arrivals=100, completions=100)
    assert decision.desired == 3
    assert "behavior" in decision.reason
    assert line.see(60, running=100, arrivals=100, completions=100).desired == 5


def test_scale_down_delay_keeps_the_highest_recommendation() -> None:
    line = TimeLine(Policy(target=10, stable_window=10, scale_down_delay=60), replicas=1)
    line.see(90, running=50, arrivals=50, completions=50)
    assert line.see(50, running=5, arrivals=5, completions=5).desired == 5
    assert line.see(40, running=5, arrivals=5, completions=5).desired == 2  # down by half a step at most
    assert line.see(70, running=5, arrivals=5, completions=5).desired == 1


@pytest.mark.parametrize(
    "wrong", [{"target": 0}, {"min_replicas": 3, "max_replicas": 1}, {"panic_window": 90}, {"min_replicas": -1}]
)
def test_a_policy_that_cannot_be_met_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Policy(**wrong)  # type: ignore[arg-type]


observations = st.builds(
    Observation,
    running=st.floats(0, 1e4),
    waiting=st.floats(0, 1e4),
    arrivals=st.floats(0, 1e4),
    completions=st.floats(0, 1e4),
    ready=st.integers(0, 50),
    starting=st.integers(0, 50),
    scheduling=st.booleans(),
)


@given(st.lists(observations, min_size=1, max_size=60), st.integers(0, 3), st.integers(0, 10))
def test_it_always_stays_within_the_bounds_that_were_asked_for(seen: list[Observation], low: int, extra: int) -> None:
    policy = Policy(min_replicas=low, max_replicas=low + extra)
    now, state = 0.0, initial_state(0.0, low, policy)
    for observation in seen:
        now += TICK
        decision, state = decide(now, observation, policy, state)
        assert low <= decision.desired
        assert not policy.max_replicas or decision.desired <= policy.max_replicas
        assert decision.reason


@given(st.lists(observations, min_size=1, max_size=60))
def test_never_to_zero_while_anything_asks(seen: list[Observation]) -> None:
    policy = Policy(min_replicas=0)
    now, state = 0.0, initial_state(0.0, 1, policy)
    for observation in seen:
        now += TICK
        before = state.desired
        decision, state = decide(now, observation, policy, state)
        if before > 0 and not observation.idle and state.paused_until is None:
            assert decision.desired > 0
