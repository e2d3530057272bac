"""What happens in the data plane, per workload: autoscaling's input and the agent's metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fairlead.gateway.answers import BackendStats

Workload = tuple[str, str]
"""Namespace and name."""


@dataclass(slots=True)
class WorkloadStats:
    in_flight: int = 0
    """Requests that are somewhere between the client and its answer: in a pod, queued or held."""
    queued: int = 0
    """Of these: waiting because every pod has as many as it may have."""
    held: int = 0
    """Of these: waiting for a first pod."""
    requests: int = 0
    """Requests that have got past holding so far; starts at 0 again with the agent, as do the next two."""
    responses: int = 0
    errors: int = 0
    """Of the responses, those with 5xx."""


Counts = tuple[int, int, int]
"""Requests, responses, errors."""


class Totals:
    """Counters per workload from HAProxy's per backend, which begin anew when it is reloaded and whose backends change hands."""

    def __init__(self) -> None:
        self._last: dict[str, Counts] = {}
        self._totals: dict[Workload, Counts] = {}

    def begin(self, backends: Mapping[str, BackendStats]) -> None:
        """What HAProxy had counted before: it may be older than its agent, and its backends may have served others."""
        self._last = {backend: _counts(stats) for backend, stats in backends.items()}

    def update(
        self, backends: Mapping[str, BackendStats], held: Mapping[str, int], upstreams: Mapping[str, str]
    ) -> dict[Workload, WorkloadStats]:
        """`upstreams` says to which upstream each backend is lent."""
        now: dict[Workload, WorkloadStats] = {}
        for backend, stats in backends.items():
            news = self._since_last(backend, _counts(stats))
            if backend not in upstreams:
                continue
            namespace, name, _ = upstreams[backend].split("/")
            place = (namespace, name)
            workload = now.setdefault(place, WorkloadStats())
            waiting = held.get(backend, 0)
            workload.in_flight += stats.current + waiting
            workload.queued += stats.queued
            workload.held += waiting
            before = self._totals.get(place, (0, 0, 0))
            self._totals[place] = (before[0] + news[0], before[1] + news[1], before[2] + news[2])
        self._totals = {place: total for place, total in self._totals.items() if place in now}
        for place, total in self._totals.items():
            now[place].requests, now[place].responses, now[place].errors = total
        return now

    def _since_last(self, backend: str, counts: Counts) -> Counts:
        last = self._last.get(backend, (0, 0, 0))
        self._last[backend] = counts
        news = counts[0] - last[0], counts[1] - last[1], counts[2] - last[2]
        return news if min(news) >= 0 else counts


def _counts(stats: BackendStats) -> Counts:
    return stats.requests, stats.responses, stats.errors


def metrics(workloads: Mapping[Workload, WorkloadStats]) -> Iterable[Metric]:
    labels = ["namespace", "workload"]
    gauges = {
        "in_flight": "Requests between the client and its answer.",
        "queued": "Requests that wait because every pod has as many as it may have.",
        "held": "Requests that wait for a first pod.",
    }
    counters = {
        "requests": "Requests so far.",
        "responses": "Responses so far.",
        "errors": "Requests answered with 5xx.",
    }
    for name, text in gauges.items():
        gauge = GaugeMetricFamily(f"fairlead_gateway_{name}", text, labels=labels)
        for workload, stats in workloads.items():
            gauge.add_metric(workload, getattr(stats, name))
        yield gauge
    for name, text in counters.items():
        counter = CounterMetricFamily(f"fairlead_gateway_{name}", text, labels=labels)
        for workload, stats in workloads.items():
            counter.add_metric(workload, getattr(stats, name))
        yield counter
