"""Totals that survive reloads and backends that change hands."""

from __future__ import annotations

from fairlead.gateway.answers import BackendStats
from fairlead.gateway.stats import Totals, WorkloadStats


def test_requests_of_both_ports_and_held_ones_add_up():
    stats = Totals().update(
        {"h1-0001": BackendStats(3, 1, 10, 7, 2), "h2-0001": BackendStats(4, 0, 5, 1, 0)},
        {"h1-0001": 7},
        {"h1-0001": "ns/w/h1", "h2-0001": "ns/w/h2"},
    )[("ns", "w")]
    assert stats == WorkloadStats(in_flight=14, queued=1, held=7, requests=15, responses=8, errors=2)


def test_a_reload_does_not_take_requests_back():
    totals, lent = Totals(), {"h1-0001": "ns/w/h1"}
    counts = [
        totals.update({"h1-0001": BackendStats(0, 0, n, n, 0)}, {}, lent)[("ns", "w")].requests for n in (10, 15, 3, 4)
    ]
    assert counts == [10, 15, 18, 19]


def test_requests_that_take_a_reload_to_be_answered_do_not_take_answers_back():
    """The new worker has had as many requests as the old one, and answered none of them yet."""
    totals, lent = Totals(), {"h1-0001": "ns/w/h1"}
    totals.update({"h1-0001": BackendStats(0, 0, 5, 5, 1)}, {}, lent)
    stats = totals.update({"h1-0001": BackendStats(6, 0, 6, 0, 0)}, {}, lent)[("ns", "w")]
    assert (stats.requests, stats.responses, stats.errors) == (11, 5, 1)


def test_what_haproxy_had_counted_before_its_agent_came_is_nobodys_news():
    totals = Totals()
    totals.begin({"h1-0001": BackendStats(0, 0, 1_000_000, 1_000_000, 9)})
    stats = totals.update({"h1-0001": BackendStats(0, 0, 1_000_002, 1_000_001, 10)}, {}, {"h1-0001": "ns/w/h1"})
    assert stats[("ns", "w")] == WorkloadStats(requests=2, responses=1, errors=1)


def test_a_backend_that_changes_hands_starts_at_nothing_for_the_next():
    totals = Totals()
    totals.update({"h1-0001": BackendStats(0, 0, 100, 100, 9)}, {}, {"h1-0001": "ns/old/h1"})
    totals.update({"h1-0001": BackendStats(0, 0, 110, 110, 9)}, {}, {})
    stats = totals.update({"h1-0001": BackendStats(0, 0, 112, 111, 10)}, {}, {"h1-0001": "ns/new/h1"})
    assert list(stats) == [("ns", "new")]
    assert stats[("ns", "new")] == WorkloadStats(requests=2, responses=1, errors=1)
