"""Probes as time lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.kube.objects import Object
from fairlead.local.node.probes import ContainerProbes, Kind, Probe, Thresholds, Verdict


def play(container: Object, answer: Callable[[Kind, float], bool], seconds: float) -> list[tuple[float, Verdict]]:
    """The verdicts and when they came, for a container whose probes get `answer(kind, now)`."""
    now = 0.0
    probes = ContainerProbes.begin(container, now)
    line = [(0.0, probes.verdict)]
    while (next_at := probes.next_at()) is not None and next_at <= seconds and probes.verdict is not Verdict.UNHEALTHY:
        now = next_at
        for kind in probes.due(now):
            if kind in probes.running:
                probes = probes.answered(kind, answer(kind, now), now)
        if probes.verdict is not line[-1][1]:
            line.append((round(now, 2), probes.verdict))
    return line


def test_a_container_without_probes_is_ready_when_it_runs() -> None:
    assert ContainerProbes.begin({}, 0.0).verdict is Verdict.READY


def test_the_first_success_is_noticed_within_a_twentieth_of_the_time_waited_whatever_the_period() -> None:
    container = {"readinessProbe": {"periodSeconds": 10}}
    (_, (ready_at, verdict)) = play(container, lambda kind, now: now >= 4.0, 20)
    assert verdict is Verdict.READY
    assert 4.0 <= ready_at <= 4.2


def test_quick_failures_do_not_use_up_what_the_manifest_grants() -> None:
    container = {"startupProbe": {"periodSeconds": 2, "failureThreshold": 5}}
    line = play(container, lambda kind, now: False, 60)
    assert [verdict for _, verdict in line] == [Verdict.STARTING, Verdict.UNHEALTHY]
    assert 8.0 <= line[-1][0] <= 9.0  # the fifth failure is counted 4 periods after the first


def test_readiness_and_liveness_wait_for_startup() -> None:
    asked: list[Kind] = []

    def answer(kind: Kind, now: float) -> bool:
        asked.append(kind)
        return now >= 1

    probe = {"periodSeconds": 1}
    container: Object = {"startupProbe": probe, "readinessProbe": probe, "livenessProbe": probe}
    line = play(container, answer, 5)
    assert [verdict for _, verdict in line] == [Verdict.STARTING, Verdict.NOT_READY, Verdict.READY]
    first_other = next(index for index, kind in enumerate(asked) if kind is not Kind.STARTUP)
    assert all(kind is Kind.STARTUP for kind in asked[:first_other])
    assert Kind.STARTUP not in asked[first_other:]


def test_a_ready_container_is_unready_after_as_many_failures_as_the_threshold_and_comes_back() -> None:
    container = {"readinessProbe": {"periodSeconds": 1, "failureThreshold": 3}}
    line = play(container, lambda kind, now: not 10 <= now < 15, 30)
    assert [verdict for _, verdict in line] == [Verdict.NOT_READY, Verdict.READY, Verdict.NOT_READY, Verdict.READY]
    assert 12 <= line[2][0] <= 13
    assert 15 <= line[3][0] <= 15.3


def test_failing_liveness_is_unhealthy_after_its_threshold() -> None:
    container = {"livenessProbe": {"periodSeconds": 1, "failureThreshold": 2}}
    line = play(container, lambda kind, now: now < 5, 30)
    assert line[-1][1] is Verdict.UNHEALTHY
    assert 6 <= line[-1][0] <= 7.1


def test_initial_delay_is_kept() -> None:
    assert ContainerProbes.begin({"readinessProbe": {"initialDelaySeconds": 7}}, 100.0).next_at() == 107.0


def test_success_threshold_asks_for_that_many_in_a_row() -> None:
    probe = Probe.begin(Thresholds(success=3), 0)
    for ok in (True, True, False, True, True):
        probe = probe.answered(ok, probe.next_at)
    assert probe.result is None
    assert probe.answered(True, probe.next_at).result is True


@given(st.lists(st.booleans(), max_size=50), st.integers(1, 10), st.integers(1, 5))
def test_a_probe_never_asks_faster_than_every_50_ms_nor_slower_than_its_period(
    answers: list[bool], period: int, failure: int
) -> None:
    probe = Probe.begin(Thresholds(period=period, failure=failure), 0)
    for ok in answers:
        asked = probe.next_at
        probe = probe.answered(ok, asked)
        assert 0.05 <= round(probe.next_at - asked, 6) <= period


@pytest.mark.parametrize("field", ["periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold"])
def test_zero_means_one_as_in_kubernetes(field: str) -> None:
    assert Thresholds.of({field: 0}) == Thresholds.of({field: 1})
