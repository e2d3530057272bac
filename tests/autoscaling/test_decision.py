"""The decision as time lines: each step says what was seen and what must follow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
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
from fairlead.autoscaling.state import LONGEST_TICK

TICK = 2.0


class TimeLine:
    """Feeds one observation per tick and keeps the last decision."""

    def __init__(self, policy: Policy, replicas: int) -> None:
        self.policy, self.now = policy, 1000.0
        self.state: State = initial_state(self.now, replicas)
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


def test_a_replica_that_came_up_is_the_end_of_failed_wake_ups() -> None:
    line = TimeLine(FROM_ZERO, replicas=0)
    line.see(124, waiting=1, ready=0, starting=1)
    line.see(70, waiting=1, ready=0, starting=1)
    line.see(TICK, ready=1)
    assert line.state.failures == 0


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
    state = initial_state(1000, 2)
    for now in (1002.0, 1004.0, 500.0, 502.0, 504.0):
        decision, state = decide(now, Observation(running=15, arrivals=15, completions=15, ready=2), policy, state)
        assert decision.desired == 2
    assert state.now == 1008.0


def test_a_process_that_was_stopped_for_an_hour_does_not_scale_down_by_the_one_moment_that_it_sees_then() -> None:
    line = TimeLine(Policy(target=10, min_replicas=0), replicas=8)
    line.see(200, running=80, arrivals=80, completions=80)
    line.now += 3600
    assert line.see(TICK).desired == 8
    assert line.see(40).desired > 0
    assert line.see(200).desired == 0


def test_what_a_silent_gateway_may_have_counts_until_it_speaks_again() -> None:
    line = TimeLine(Policy(target=10, min_replicas=0), replicas=1)
    line.see(120, running=40, arrivals=40, completions=40)
    line.see(600, running=20, arrivals=20, completions=20, complete=False)
    assert line.see(TICK, running=20, arrivals=20, completions=20, complete=False).desired == 4
    assert line.see(10, running=20, arrivals=20, completions=20).desired == 4
    assert line.see(60, running=20, arrivals=20, completions=20).desired == 2


def test_while_a_gateway_is_silent_it_grows_and_says_why_it_does_not_shrink() -> None:
    line = TimeLine(Policy(target=10), replicas=1)
    line.see(60, running=40, arrivals=40, completions=40)
    line.see(20, running=20, arrivals=20, completions=20)
    silent = line.see(120, running=1, arrivals=20, completions=20, complete=False)
    assert silent.desired == 4
    assert "heard" in silent.reason
    assert line.see(60, running=80, arrivals=80, completions=80, complete=False).desired == 8


def test_a_burst_that_was_held_and_is_thrown_at_one_replica_starts_no_others() -> None:
    # Without a limit of its own a replica is given all 500 at once; it has done them two seconds later.
    line = TimeLine(FROM_ZERO, replicas=0)
    line.see(10, waiting=500, ready=0, starting=1)
    line.see(TICK, running=500, ready=1)
    line.see(TICK, running=200, completions=150, ready=1)
    line.see(TICK, running=0, completions=100, ready=1)
    line.see(30)
    assert line.peak == 1


def test_long_requests_that_were_held_do_get_their_replicas() -> None:
    line = TimeLine(FROM_ZERO, replicas=0)
    line.see(10, waiting=500, ready=0, starting=1)
    assert line.see(20, running=500, ready=1).desired >= 7


class WakeUp:
    """A service at zero that is asked for at a steady rate: each request takes `seconds`, a replica `start` seconds to come up.

    With `limit` a replica works on so many at a time, and the gateway queues the rest; without, it is given all there are and works on them side by side.
    """

    def __init__(self, rate: float, seconds: float, start: float, limit: int | None) -> None:
        self.line = TimeLine(Policy(target=7, min_replicas=0, max_replicas=100), replicas=0)
        self.rate, self.seconds, self.start, self.limit = rate, seconds, start, limit
        self.waiting, self.running, self.done, self.ready = 0.0, 0.0, 0.0, 0
        self.pending: list[float] = []
        self.steady = -(-rate * seconds // 7)

    def works(self, seconds: float) -> None:
        """Without an operator, who sees nothing of it."""
        for _ in range(round(seconds / TICK)):
            self.line.now += TICK
            self._tick()

    def is_decided_on(self, seconds: float, **seen: float) -> Decision:
        """With one. `seen`: where it sees something else than there is."""
        for _ in range(round(seconds / TICK)):
            self._tick(self.line.now + TICK)
            rates = {"arrivals": self.rate, "completions": self.done / TICK}
            queue = {"running": self.running, "waiting": self.waiting}
            there = {"ready": self.ready, "starting": len(self.pending)}
            decision = self.line.see(TICK, **{**queue, **rates, **there, **seen})
            more = decision.desired - self.ready - len(self.pending)
            self.pending += [self.line.now + self.start] * more
            self.ready += min(0, more)
        return decision

    def is_taken_over(self) -> None:
        """By an operator that knows the Deployment's replicas and nothing else. Its first look tells no rates, which take two."""
        self.line.state = initial_state(self.line.now, self.line.state.desired)
        self.is_decided_on(TICK, arrivals=0.0, completions=0.0, complete=False)

    def _tick(self, now: float | None = None) -> None:
        now = self.line.now if now is None else now
        self.ready += sum(at <= now for at in self.pending)
        self.pending = [at for at in self.pending if at > now]
        there = self.waiting + self.rate * TICK
        self.done = (
            min(self.ready * self.limit * TICK / self.seconds, there) if self.limit else there * bool(self.ready)
        )
        self.waiting, self.running = there - self.done, self.done * self.seconds / TICK


wake_ups = st.builds(
    WakeUp,
    rate=st.integers(5, 500),
    seconds=st.sampled_from([0.02, 0.1, 0.5]),
    start=st.integers(2, 30),
    limit=st.sampled_from([10, None]),
)


@settings(deadline=None, max_examples=60)
@given(wake_ups)
def test_a_queue_that_builds_during_a_start_asks_for_one_replica_more_than_the_steady_load_at_most(
    wake: WakeUp,
) -> None:
    wake.is_decided_on(240)
    assert wake.line.peak <= max(wake.steady + 1, 1.1 * wake.steady)
    assert wake.waiting == 0


# --- An operator that takes over --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(wake_ups, st.integers(1, 40), st.integers(0, 10))
def test_an_operator_that_takes_over_at_any_moment_of_a_wake_up_asks_for_hardly_more_than_that(
    wake: WakeUp, seconds: int, away: int
) -> None:
    wake.is_decided_on(TICK * seconds)
    before = wake.line.state.desired
    wake.works(TICK * away)
    wake.is_taken_over()
    assert wake.is_decided_on(20).desired >= before
    wake.is_decided_on(300)
    # While nobody decides, for 20 s at most, the queue grows: up to 1.18 times the steady load has been seen.
    assert wake.line.peak <= max(wake.steady + 1, 1.25 * wake.steady)
    assert wake.waiting == 0


def test_an_operator_that_takes_over_as_held_requests_are_let_go_takes_them_for_no_steady_load() -> None:
    # 500 of 50 ms that were held for 12 s, all with the one replica that should have two at a time.
    wake = WakeUp(rate=40, seconds=0.05, start=12, limit=None)
    wake.is_decided_on(4)
    wake.works(10)
    wake.is_taken_over()
    wake.line.see(TICK, running=500, arrivals=40, ready=1)
    wake.line.see(TICK, running=2, arrivals=40, completions=290, ready=1)
    wake.is_decided_on(200)
    assert wake.line.peak <= 2


def test_an_operator_that_takes_over_follows_a_rise_that_it_sees_within_the_panic_window() -> None:
    line = TimeLine(Policy(target=10), replicas=2)
    line.see(TICK, running=18, complete=False)
    line.see(2 * TICK, running=18, arrivals=18, completions=18)
    assert line.see(8, running=100, arrivals=100, completions=95).desired >= 8
    assert line.see(6, running=100, arrivals=100, completions=100).desired == 10


def test_an_operator_that_takes_over_follows_a_rise_of_long_requests_too() -> None:
    # A minute each: none of the hundred that have come since has been completed.
    line = TimeLine(Policy(target=10), replicas=2)
    line.see(TICK, running=100, complete=False)
    assert line.see(12, running=100, arrivals=2).desired >= 8


def test_a_gateway_that_was_never_heard_does_not_keep_a_rise_from_being_followed() -> None:
    line = TimeLine(Policy(target=10), replicas=1)
    assert line.see(16, running=100, arrivals=100, completions=100, complete=False).desired == 10


def test_an_operator_that_takes_over_a_wake_up_goes_on_with_it_and_gives_it_up_in_its_time() -> None:
    line = TimeLine(FROM_ZERO, replicas=1)
    taken = line.see(TICK, waiting=1, ready=0, starting=1, complete=False)
    assert (taken.desired, taken.mode) == (1, Mode.ACTIVATING)
    assert line.see(600, waiting=1, ready=0, starting=1, scheduling=True).mode is Mode.ACTIVATING
    given_up = line.see(122, waiting=1, ready=0, starting=1)
    assert (given_up.desired, given_up.mode) == (0, Mode.PAUSED)


def test_an_operator_that_takes_over_a_service_that_may_not_be_at_zero_takes_its_first_start_for_no_wake_up() -> None:
    line = TimeLine(Policy(min_replicas=1), replicas=1)
    assert line.see(600, waiting=1, ready=0, starting=1).mode is not Mode.ACTIVATING


# --- Spares, metrics, behavior ----------------------------------------------------------------------------------


def test_a_spare_is_kept_beyond_what_demand_needs_and_is_no_demand_itself() -> None:
    line = TimeLine(Policy(target=10, min_replicas=0, max_replicas=5, warm_replicas=1), replicas=0)
    first = line.see(TICK)
    assert first.desired == 1
    assert line.see(200, ready=1).desired == 1
    busy = line.see(120, running=25, arrivals=10, completions=10)
    assert busy.desired == 4
    assert "spare" in busy.reason
    assert line.see(120, running=60, arrivals=10, completions=10).desired == 5
    assert line.see(300).desired == 1


def test_a_model_that_never_starts_is_tried_ever_more_rarely() -> None:
    line = TimeLine(FROM_ZERO, replicas=0)
    started = 0
    for _ in range(int(4 * 3600 / TICK)):
        before = line.state.desired
        line.see(TICK, waiting=1, ready=0, starting=before)
        started += line.state.desired > before
    # 2, 4, 8 and then 9 minutes each, and pauses of 1, 2, 4, 8 and then 10 minutes.
    assert started == 15


def test_a_model_that_starts_more_slowly_than_a_wake_up_may_take_comes_up_at_the_second_or_third_try() -> None:
    line = TimeLine(FROM_ZERO, replicas=0)
    started_for = 0.0
    while started_for < 200 and line.now < 3600:
        line.see(TICK, waiting=1, ready=0, starting=line.state.desired)
        started_for = started_for + TICK if line.state.desired else 0.0
    assert line.see(TICK, ready=1).desired == 1
    assert line.state.failures == 0


def test_its_own_metric_scales_by_the_sum_over_the_replicas() -> None:
    line = TimeLine(Policy(metric=Metric.CUSTOM, custom="queue_length", target=5), replicas=1)
    decision = line.see(120, running=1, custom=18)
    assert decision.desired == 4
    assert "18.00 queue_length" in decision.reason


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


def test_bounds_that_are_new_hold_at_once_whatever_else_keeps_replicas() -> None:
    line = TimeLine(Policy(target=10, max_replicas=10), replicas=10)
    slow = Behavior(down=Rules(limits=(SpeedLimit("Pods", 1, 60),), tolerance=0.5))
    line.policy = Policy(target=10, max_replicas=9, behavior=slow)
    assert line.see(TICK, running=100, complete=False).desired == 9


@pytest.mark.parametrize("scheduling", [True, False])
@pytest.mark.parametrize(("least", "then"), [(5, (0, 2)), (0, (2, 10))], ids=["fewer", "more"])
def test_bounds_that_are_new_hold_at_once_while_the_first_replica_starts(
    least: int, then: tuple[int, int], scheduling: bool
) -> None:
    """Five that wait for a node may wait for ever, where there would be room for two."""
    line = TimeLine(Policy(target=10, min_replicas=least, max_replicas=10), replicas=0)
    woken = line.see(TICK, waiting=1).desired
    assert woken == (least or 1)
    line.policy = replace(line.policy, min_replicas=then[0], max_replicas=then[1])
    decision = line.see(TICK, waiting=1, ready=0, starting=woken, scheduling=scheduling)
    assert (decision.desired, decision.mode) == (2, Mode.ACTIVATING)


def test_the_last_replica_stays_and_says_for_how_long() -> None:
    line = TimeLine(replace(FROM_ZERO, stable_window=10), replicas=1)
    kept = line.see(20)
    assert kept.desired == 1
    assert "until nothing has asked for 30 s" in kept.reason


def woken(policy: Policy, seconds: float) -> TimeLine:
    """After a first wake-up that took so long."""
    line = TimeLine(policy, replicas=0)
    line.see(TICK, waiting=1)
    line.see(seconds, waiting=1, ready=0, starting=1)
    line.see(2 * TICK, running=1, arrivals=1, completions=1, ready=1)
    return line


def test_a_model_that_takes_long_to_start_is_kept_for_longer_and_says_why() -> None:
    line = woken(FROM_ZERO, 60)
    kept = line.see(290)
    assert kept.desired == 1
    assert "300 s, since a start takes 60 s" in kept.reason
    assert line.see(10).desired == 0
    assert woken(FROM_ZERO, 4).see(66).desired == 0


def test_a_delay_to_zero_that_its_owner_has_set_stays_what_it_is() -> None:
    line = woken(replace(FROM_ZERO, scale_to_zero_starts=0), 60)
    assert line.see(66).desired == 0


def test_no_start_however_long_keeps_an_idle_replica_for_more_than_ten_minutes() -> None:
    assert woken(replace(FROM_ZERO, activation_timeout=1000), 900).see(610).desired == 0


def test_a_wake_up_is_given_up_after_twice_what_the_last_start_took() -> None:
    # Its first start came before anybody could say that it was too slow: a new service is not at zero before it has been ready.
    line = TimeLine(Policy(min_replicas=1), replicas=1)
    line.see(180, ready=0, starting=1)
    line.policy = FROM_ZERO
    line.see(700, ready=1)
    assert line.state.desired == 0
    line.see(TICK, waiting=1)
    assert line.see(340, waiting=1, ready=0, starting=1).mode is Mode.ACTIVATING
    assert line.see(30, waiting=1, ready=0, starting=1).mode is Mode.PAUSED
    line = TimeLine(replace(FROM_ZERO, activation_timeout=8, activation_starts=0), replicas=0)
    line.see(TICK, waiting=1)
    assert line.see(10, waiting=1, ready=0, starting=1).mode is Mode.PAUSED


@pytest.mark.parametrize("warm", [0, 4])
@pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.5, 0.9])
def test_a_tolerance_is_for_small_differences_in_demand_and_keeps_no_idle_replicas(tolerance: float, warm: int) -> None:
    """No more than half of them go at a time: that step is not what is asked for."""
    behavior = Behavior(up=Rules(tolerance=tolerance), down=Rules(tolerance=tolerance))
    line = TimeLine(Policy(target=10, min_replicas=0, warm_replicas=warm, behavior=behavior), replicas=50 + warm)
    line.see(90, running=500)
    assert line.see(90, running=500 * (1 - 0.8 * tolerance)).desired == 50 + warm
    assert line.see(300, running=500 * (1 + 0.8 * tolerance)).desired == 50 + warm
    assert line.see(600).desired == warm


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


steps = st.lists(st.tuples(observations, st.floats(-1e4, 1e4)), min_size=1, max_size=60)
"""What is seen, and by how much the clock moves until then."""


@settings(deadline=None, max_examples=100)
@given(steps, st.integers(0, 3), st.integers(0, 10), st.integers(0, 3))
def test_it_always_stays_within_the_bounds_that_were_asked_for(
    seen: list[tuple[Observation, float]], low: int, extra: int, warm: int
) -> None:
    policy = Policy(min_replicas=low, max_replicas=low + extra, warm_replicas=warm)
    now, state = 0.0, initial_state(0.0, low)
    for observation, passed in seen:
        now += passed
        decision, state = decide(now, observation, policy, state)
        assert low <= decision.desired
        assert not policy.max_replicas or decision.desired <= policy.max_replicas
        assert decision.reason


@settings(deadline=None, max_examples=100)
@given(steps)
def test_never_to_zero_while_anything_asks(seen: list[tuple[Observation, float]]) -> None:
    policy = Policy(min_replicas=0)
    now, state = 0.0, initial_state(0.0, 1)
    for observation, passed in seen:
        now += passed
        before = state.desired
        decision, state = decide(now, observation, policy, state)
        if before > 0 and not observation.idle and state.paused_until is None:
            assert decision.desired > 0


@settings(deadline=None, max_examples=100)
@given(steps)
def test_nothing_shrinks_while_a_gateway_is_silent(seen: list[tuple[Observation, float]]) -> None:
    policy = Policy(min_replicas=0)
    now, state = 0.0, initial_state(0.0, 3)
    for observation, passed in seen:
        now += passed
        before = state.desired
        decision, state = decide(now, observation._replace(complete=False), policy, state)
        assert decision.desired >= before


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 50), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_no_jump_of_the_clock_replaces_a_window_that_was_seen(replicas: int, jumps: list[float]) -> None:
    # Twenty ticks stand for 200 s at the most, and without a jump of that kind for much less.
    policy = Policy(min_replicas=0)
    now, state = 0.0, initial_state(0.0, replicas)
    for count, jump in enumerate(jumps, 1):
        now += jump
        decision, state = decide(now, Observation(ready=replicas), policy, state)
        if count * LONGEST_TICK < policy.scale_to_zero_delay:
            assert decision.desired == replicas


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 50), st.lists(observations.map(lambda seen: seen._replace(scheduling=False)), max_size=25))
def test_an_operator_that_restarts_scales_down_nothing_before_a_stable_window(
    replicas: int, seen: list[Observation]
) -> None:
    policy = Policy(min_replicas=0)
    now, state = 0.0, initial_state(0.0, replicas)
    for observation in seen:
        now += TICK
        decision, state = decide(now, observation, policy, state)
        assert decision.desired >= replicas


@settings(deadline=None, max_examples=40)
@given(steps, st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.0, 0.5]))
def test_whatever_was_seen_it_comes_to_rest_when_nothing_asks_any_more(
    seen: list[tuple[Observation, float]], low: int, warm: int, tolerance: float
) -> None:
    """No state holds replicas for ever: ten minutes is the longest delay to zero."""
    behavior = Behavior(down=Rules(tolerance=tolerance))
    policy = Policy(min_replicas=low, max_replicas=20, warm_replicas=warm, behavior=behavior)
    now, state = 0.0, initial_state(0.0, 1)
    for observation, passed in seen:
        now += passed
        _, state = decide(now, observation, policy, state)
    for _ in range(400):
        now += TICK
        decision, state = decide(now, Observation(ready=state.desired), policy, state)
    assert decision.desired == max(low, warm)
