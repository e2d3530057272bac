"""Counters, gauges and histograms in Prometheus' text format, cheap enough for every request.

prometheus_client costs several microseconds an observation and 20 MB; an increment here is a dict or list item. What a
user's model registers with prometheus_client, if it does, is appended. KServe's names are kept where it has one.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fairlead.runtime.operations.startup import STARTUP

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Labels = tuple[str, ...]
Snapshot = dict[str, list[tuple[list[str], Any]]]


class Counter:
    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + amount


class Distribution:
    """One labelled child of a histogram."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value


class Histogram:
    __slots__ = ("bounds", "children")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.children: dict[Labels, Distribution] = {}

    def child(self, labels: Labels) -> Distribution:
        found = self.children.get(labels)
        if found is None:
            found = self.children[labels] = Distribution(self.bounds)
        return found


class Gauge:
    """Read when asked for: `read` gives the value of each set of labels."""

    __slots__ = ("read",)

    def __init__(self) -> None:
        self.read: Callable[[], Mapping[Labels, float]] = dict


class Metrics:
    """All of one server's metrics."""

    def __init__(self) -> None:
        self.requests = Counter()
        self.seconds = Histogram(SECONDS)
        self.preprocess = Histogram(SECONDS)
        self.predict = Histogram(SECONDS)
        self.postprocess = Histogram(SECONDS)
        self.explain = Histogram(SECONDS)
        self.batch_rows = Histogram(ROWS)
        self.batch_requests = Histogram(ROWS)
        self.queue_seconds = Histogram(SECONDS)
        self.payloads_sent = Counter()
        self.payloads_failed = Counter()
        self.payloads_dropped = Counter()
        self.load_seconds = Gauge()
        self.startup = Gauge()
        self.startup.read = lambda: {(phase,): seconds for phase, seconds in STARTUP.phases.items()}
        self.process_start = Gauge()
        self.process_start.read = lambda: {(): STARTUP.began}
        self.queue_length = Gauge()
        self.in_flight = Gauge()
        self.ready = Gauge()

    _FAMILIES: tuple[tuple[str, str, str, Labels], ...] = (
        ("requests", "fairlead_requests_total", "Requests answered.", ("model_name", "protocol", "code")),
        ("seconds", "fairlead_request_seconds", "From the request read to the answer ready.", ("model_name", "protocol")),
        ("preprocess", "request_preprocess_seconds", "Time in preprocess.", ("model_name",)),
        ("predict", "request_predict_seconds", "Time in predict; one observation for each batch.", ("model_name",)),
        ("postprocess", "request_postprocess_seconds", "Time in postprocess.", ("model_name",)),
        ("explain", "request_explain_seconds", "Time in explain.", ("model_name",)),
        ("queue_seconds", "fairlead_queue_seconds", "Time between arrival and predict.", ("model_name",)),
        ("batch_rows", "fairlead_batch_rows", "Rows of each predict.", ("model_name",)),
        ("batch_requests", "fairlead_batch_requests", "Requests of each predict.", ("model_name",)),
        ("payloads_sent", "kserve_logger_events_sent_total", "Payloads that were logged.", ("type",)),
        ("payloads_failed", "kserve_logger_events_failed_total", "Payloads that the logger's address did not take.", ("type",)),
        ("payloads_dropped", "kserve_logger_events_dropped_total", "Payloads for which the queue had no room.", ("type",)),
        ("load_seconds", "fairlead_model_load_seconds", "Time the model took to load.", ("model_name",)),
        ("startup", "fairlead_startup_seconds", "What the start was made of, from the start of the process to ready.", ("phase",)),
        ("process_start", "fairlead_process_start_time_seconds", "When the pod's first process started, since the epoch.", ()),
        ("queue_length", "fairlead_queue_length", "Requests that wait for the model.", ("model_name",)),
        ("in_flight", "fairlead_requests_in_flight", "Requests being answered, waiting ones included.", ("model_name",)),
        ("ready", "fairlead_model_ready", "1 while the model can answer.", ("model_name",)),
    )  # fmt: skip

    def snapshot(self) -> Snapshot:
        """Plain lists, so that one worker's metrics can be sent to another and added up."""
        result: Snapshot = {}
        for attribute, *_ in self._FAMILIES:
            metric = getattr(self, attribute)
            if isinstance(metric, Counter):
                result[attribute] = [(list(labels), value) for labels, value in metric.values.items()]
            elif isinstance(metric, Gauge):
                result[attribute] = [(list(labels), value) for labels, value in metric.read().items()]
            else:
                result[attribute] = [
                    (list(labels), [list(child.buckets), child.total]) for labels, child in metric.children.items()
                ]
        return result

    @classmethod
    def render(cls, snapshots: Iterable[Snapshot]) -> str:
        """The text format of the sum of the snapshots: one for each worker process."""
        total = _sum(snapshots)
        lines: list[str] = []
        bounds = {"batch_rows": ROWS, "batch_requests": ROWS}
        for attribute, name, text, label_names in cls._FAMILIES:
            samples = total.get(attribute, {})
            kind = "counter" if name.endswith("_total") else "gauge"
            if any(isinstance(value, list) for value in samples.values()):
                kind = "histogram"
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            for labels, value in samples.items():
                pairs = ",".join(f'{key}="{_escape(label)}"' for key, label in zip(label_names, labels, strict=True))
                if isinstance(value, list):
                    lines += _histogram(name, pairs, bounds.get(attribute, SECONDS), value)
                else:
                    series = f"{name}{{{pairs}}}" if pairs else name
                    lines.append(f"{series} {value:.12g}" if kind == "gauge" else f"{series} {value:.0f}")
        return "\n".join(lines) + "\n" + _from_prometheus_client()


_HIGHEST = ("ready", "load_seconds", "startup", "process_start")
"""Of several workers the highest counts, not the sum."""


def _sum(snapshots: Iterable[Snapshot]) -> dict[str, dict[Labels, Any]]:
    total: dict[str, dict[Labels, Any]] = {}
    for snapshot in snapshots:
        for attribute, samples in snapshot.items():
            family = total.setdefault(attribute, {})
            for labels, value in samples:
                key = tuple(labels)
                before = family.get(key)
                if before is None:
                    family[key] = value
                elif isinstance(value, list):
                    buckets = [a + b for a, b in zip(before[0], value[0], strict=True)]
                    family[key] = [buckets, before[1] + value[1]]
                else:
                    family[key] = max(before, value) if attribute in _HIGHEST else before + value
    return total


def _histogram(name: str, pairs: str, bounds: tuple[float, ...], value: list[Any]) -> list[str]:
    buckets, total = value
    lines = []
    count = 0
    for bound, inside in zip((*bounds, "+Inf"), buckets, strict=True):
        count += inside
        lines.append(f'{name}_bucket{{{pairs},le="{bound}"}} {count}')
    lines.append(f"{name}_sum{{{pairs}}} {total:.9g}")
    lines.append(f"{name}_count{{{pairs}}} {count}")
    return lines


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _from_prometheus_client() -> str:
    module = sys.modules.get("prometheus_client")
    if module is None:
        return ""
    text: str = module.generate_latest().decode()
    return text
