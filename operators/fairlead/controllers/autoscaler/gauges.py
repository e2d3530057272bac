"""What was decided last, and what the last starts of pods were made of, as Prometheus gauges.

They are read from what the autoscaler knows when they are asked for, so that a tick over a thousand services costs nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fairlead.autoscaling import Mode
from fairlead.controllers.autoscaler.loop import Autoscaler

LABELS = ("namespace", "inferenceservice", "revision")


class Gauges(Collector):
    def __init__(self, autoscaler: Autoscaler) -> None:
        self._autoscaler = autoscaler
        self._board = autoscaler.board

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._decisions()
        start = GaugeMetricFamily(
            "fairlead_start_seconds", "What the last start of a pod was made of, by phase.", labels=(*LABELS, "phase")
        )
        for service, starts in self._board.all_starts().items():
            for revision, measured in starts.items():
                for phase, seconds in measured.seconds.items():
                    start.add_metric((service.namespace, service.name, revision, phase), seconds)
        yield start

    def _decisions(self) -> Iterator[GaugeMetricFamily]:
        def gauge(name: str, text: str, *more: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"fairlead_autoscaler_{name}", text, labels=(*LABELS, *more))

        desired = gauge("desired_replicas", "Replicas that were decided on.")
        ready = gauge("ready_replicas", "Replicas that answer.")
        value = gauge("metric_value", "What the replicas are asked to carry, averaged as the mode says.", "metric")
        target = gauge("metric_target", "What one replica is to carry.", "metric")
        mode = gauge("mode", "1 for the mode that the last decision was made in.", "mode")
        scaled = self._board.scaled()
        for key, known in self._autoscaler.known.items():
            decision, seen, found = known.decision, known.seen, scaled.get(key)
            if decision is None or seen is None or found is None:
                continue
            labels = (key.namespace, found.owner["metadata"]["name"], found.revision)
            desired.add_metric(labels, decision.desired)
            ready.add_metric(labels, seen.ready)
            value.add_metric((*labels, known.policy.unit), decision.value)
            target.add_metric((*labels, known.policy.unit), decision.target)
            for name in Mode:
                mode.add_metric((*labels, str(name)), float(name is decision.mode))
        yield from (desired, ready, value, target, mode)
