"""How many replicas a workload should have, as far as nobody else decides it: an HPA for cpu and memory, else minReplicas."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fairlead.api import names
from fairlead.api.component import ComponentFields
from fairlead.api.inferenceservice import InferenceService

DEFAULT_CPU_UTILIZATION = 80
_HANDS_OFF = ("none", "external")


@dataclass(frozen=True)
class MetricTarget:
    """What an HPA is to keep."""

    resource: str
    """`cpu` or `memory`."""
    utilization: int
    """Percent of the request."""
    min_replicas: int
    max_replicas: int


def least_replicas(fields: ComponentFields) -> int:
    """minReplicas; 0 keeps one pod, because nothing here would wake it."""
    return max(1, fields.effective_min_replicas())


def canary_least_replicas(stable: int, percent: int) -> int:
    """Of a canary that does not say: its share of the stable predictor's, at least one. 20 % of 10 is 2."""
    return max(1, math.ceil(stable * percent / 100))


def metric_target(isvc: InferenceService, fields: ComponentFields) -> MetricTarget | None:
    """What a real HPA is to keep, None if there is to be none."""
    annotations = isvc.metadata.annotations
    autoscaler = annotations.get(names.AUTOSCALER_CLASS)
    metric = fields.scale_metric or annotations.get(names.SCALE_METRIC) or ("cpu" if autoscaler == "hpa" else None)
    if autoscaler in _HANDS_OFF or metric not in ("cpu", "memory"):
        return None
    given = annotations.get(names.TARGET_UTILIZATION, "")
    default = int(given) if given.isdecimal() else DEFAULT_CPU_UTILIZATION
    least = least_replicas(fields)
    return MetricTarget(metric, fields.scale_target or default, least, max(least, fields.max_replicas or 0))


def replicas(
    isvc: InferenceService, fields: ComponentFields, *, least: int, now: int | None, scaled_by: int | None
) -> int | None:
    """The number to scale a Deployment to, None to leave it.

    `now`: its replicas, None if it was just made, with one; `scaled_by`: the least that it was last scaled by. Within the bounds, what somebody else
    has chosen stays: `kubectl scale` holds until minReplicas changes.
    """
    if metric_target(isvc, fields) is not None:
        return None
    if now is not None and isvc.metadata.annotations.get(names.AUTOSCALER_CLASS) in _HANDS_OFF:
        return None
    most = max(least, fields.max_replicas or max(least, now or 0))
    wanted = least if now is None or scaled_by != least else min(max(now, least), most)
    return None if wanted == (1 if now is None else now) else wanted
