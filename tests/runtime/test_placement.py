"""A short predict runs on the event loop only after it was measured to be short at its size."""

from __future__ import annotations

from fairlead.runtime.placement import FIRST_HOLD, INLINE_SECONDS, TRIALS, Placement


def measured_quick(size: int = 4) -> Placement:
    placement = Placement(compute_bound=True)
    for _ in range(TRIALS):
        placement.measured(size, 0.0002, inline=False)
    return placement


def test_a_model_that_does_not_declare_its_time_never_runs_inline():
    placement = Placement(compute_bound=False)
    for _ in range(100):
        placement.measured(4, 0.000_01, inline=False)
    assert not placement.inline(4)


def test_the_first_runs_are_in_the_thread():
    placement = Placement(compute_bound=True)
    assert not placement.inline(4)
    placement.measured(4, 0.0002, inline=False)
    assert not placement.inline(4)


def test_a_quick_model_runs_inline_at_the_sizes_that_were_measured_and_no_other():
    placement = measured_quick(size=4)
    assert placement.inline(4)
    assert placement.inline(7), "the same power of two"
    assert not placement.inline(4000)


def test_a_slow_model_stays_in_the_thread():
    placement = Placement(compute_bound=True)
    for _ in range(100):
        placement.measured(4, 2 * INLINE_SECONDS, inline=False)
    assert not placement.inline(4)


def test_a_predict_that_turns_slow_leaves_the_loop_at_once_and_for_longer_each_time():
    placement = measured_quick()
    placement.measured(4, 1.0, inline=True)
    assert not placement.inline(4)
    returns = []
    for _ in range(2):
        runs = 0
        while not placement.inline(4):
            placement.measured(4, 0.0002, inline=False)
            runs += 1
        returns.append(runs)
        placement.measured(4, 1.0, inline=True)
    assert returns[0] >= FIRST_HOLD
    assert returns[1] >= 2 * FIRST_HOLD
