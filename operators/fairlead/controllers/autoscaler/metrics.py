"""What the loop counts as it goes, as Prometheus metrics. What was decided last is read from it by `gauges`."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from fairlead.kube.metrics import REGISTRY

TICK_SECONDS = Histogram(
    "fairlead_autoscaler_tick_seconds",
    "From the gateways asked to every workload decided on.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    registry=REGISTRY,
)
SCALINGS = Counter(
    "fairlead_autoscaler_scalings",
    "Changes of replicas, by the reason of their event: Activated, ScaledUp, ScaledDown, ScaledToZero, WakeUpFailed.",
    ["namespace", "reason"],
    registry=REGISTRY,
)
SILENT_AGENTS = Counter(
    "fairlead_autoscaler_silent_agents", "Answers that gateways' agents owed a tick.", registry=REGISTRY
)
