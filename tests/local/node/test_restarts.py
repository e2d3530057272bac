"""Back-off as a row of runs."""

from __future__ import annotations

import pytest

from fairlead.local.node.restarts import Backoff, Run, restarts


def delays(*runs: Run) -> list[float]:
    backoff, found = Backoff(), []
    for run in runs:
        backoff, delay = backoff.after(run)
        found.append(delay)
    return found


SERVED = Run(60, was_ready=True, exit_code=137)
SERVED_SHORTLY = Run(2, was_ready=True, exit_code=137)
NEVER_SERVED = Run(2, was_ready=False, exit_code=1)


def test_a_container_that_served_starts_again_at_once() -> None:
    assert delays(SERVED, SERVED, SERVED) == [0, 0, 0]


def test_one_that_never_served_waits_twice_as_long_each_time_up_to_ten_seconds() -> None:
    assert delays(*[NEVER_SERVED] * 6) == [1, 2, 4, 8, 10, 10]


def test_one_that_serves_only_shortly_is_let_back_once_without_a_wait() -> None:
    assert delays(*[SERVED_SHORTLY] * 6) == [0, 1, 2, 4, 8, 10]


def test_a_good_run_makes_up_for_what_was_before() -> None:
    assert delays(NEVER_SERVED, NEVER_SERVED, SERVED, NEVER_SERVED)[2:] == [0, 2]


@pytest.mark.parametrize(
    ("policy", "exit_code", "expected"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_the_restart_policy_decides(policy: str, exit_code: int, expected: bool) -> None:
    assert restarts(policy, exit_code) is expected  # type: ignore[arg-type]
