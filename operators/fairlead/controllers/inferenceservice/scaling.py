"""Who decides how many replicas a workload has: an HPA for cpu and memory, demand where the bounds leave a choice, else minReplicas.

Bounds are KServe's: minReplicas is 1 if not set; maxReplicas is minReplicas, at least 1, if not set, and 0 means no limit. Unlike KServe's Standard
mode, where an HPA on cpu is the default, demand is: an HPA is made only where cpu or memory, or the autoscalerClass hpa, is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.api import names
from fairlead.api.component import ComponentFields
from fairlead.api.inferenceservice import InferenceService
from fairlead.autoscaling import Metric, Policy
from fairlead.autoscaling.policy import target_per_replica

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


def least_replicas(isvc: InferenceService, fields: ComponentFields) -> int:
    """minReplicas; 0 keeps one pod where nothing here would wake it."""
    least = fields.effective_min_replicas()
    return least if scaled_by_demand(isvc, fields) else max(1, least)


def canary_least_replicas(stable: int, percent: int) -> int:
    """Of a canary that does not say: its share of the stable predictor's, at least one unless that may be at zero. 20 % of 10 is 2."""
    return max(1, math.ceil(stable * percent / 100)) if stable else 0


def scaled_by_demand(isvc: InferenceService, fields: ComponentFields) -> bool:
    """Whether the replicas follow the requests: the bounds leave a choice, and nobody else makes it."""
    if isvc.metadata.annotations.get(names.AUTOSCALER_CLASS) in _HANDS_OFF or metric_target(isvc, fields) is not None:
        return False
    least, most = fields.effective_min_replicas(), fields.max_replicas
    return least == 0 or most == 0 or (most is not None and most > least)


def policy(isvc: InferenceService, fields: ComponentFields, *, least: int, proven: bool) -> Policy | None:
    """By what demand scales the workload, None if it does not. A revision that has not been ready yet keeps a pod until it is."""
    if not scaled_by_demand(isvc, fields):
        return None
    annotations = isvc.metadata.annotations
    asked = fields.scale_metric or annotations.get(names.SCALE_METRIC)
    metric = Metric.RPS if asked == "rps" else Metric.CONCURRENCY
    default = Policy()
    stable = _seconds(annotations, names.STABLE_WINDOW, default.stable_window, least=1.0)
    return Policy(
        metric=metric,
        target=target_per_replica(metric, fields.scale_target, fields.container_concurrency or 0),
        min_replicas=least if proven else max(1, least),
        max_replicas=0 if fields.max_replicas == 0 else max(1, least, fields.max_replicas or 0),
        stable_window=stable,
        panic_window=min(stable, _seconds(annotations, names.PANIC_WINDOW, default.panic_window, least=1.0)),
        scale_down_delay=_seconds(annotations, names.SCALE_DOWN_DELAY, default.scale_down_delay),
        scale_to_zero_delay=_seconds(annotations, names.SCALE_TO_ZERO_DELAY, default.scale_to_zero_delay),
        activation_timeout=activation_timeout(isvc),
    )


def activation_timeout(isvc: InferenceService) -> float:
    """Seconds."""
    return _seconds(isvc.metadata.annotations, names.ACTIVATION_TIMEOUT, Policy().activation_timeout, least=1.0)


DURATIONS = (
    names.STABLE_WINDOW,
    names.PANIC_WINDOW,
    names.SCALE_DOWN_DELAY,
    names.SCALE_TO_ZERO_DELAY,
    names.ACTIVATION_TIMEOUT,
)
_DURATION = re.compile(r"(\d{1,6}(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def duration(text: str) -> float | None:
    """Seconds, of a text such as 30, 30s, 1.5m; None if it is no duration."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _UNITS[match[2]] if match else None


def _seconds(annotations: Mapping[str, str], name: str, default: float, *, least: float = 0.0) -> float:
    """What cannot be read is left at the default; `notes` tells of it."""
    found = duration(annotations.get(name, ""))
    return default if found is None else max(least, found)


def metric_target(isvc: InferenceService, fields: ComponentFields) -> MetricTarget | None:
    """What a real HPA is to keep, None if there is to be none."""
    annotations = isvc.metadata.annotations
    autoscaler = annotations.get(names.AUTOSCALER_CLASS)
    metric = fields.scale_metric or annotations.get(names.SCALE_METRIC) or ("cpu" if autoscaler == "hpa" else None)
    if autoscaler in _HANDS_OFF or metric not in ("cpu", "memory"):
        return None
    given = annotations.get(names.TARGET_UTILIZATION, "")
    default = int(given) if given.isdecimal() else DEFAULT_CPU_UTILIZATION
    least = max(1, fields.effective_min_replicas())
    return MetricTarget(metric, fields.scale_target or default, least, max(least, fields.max_replicas or 0))


def replicas(
    isvc: InferenceService, fields: ComponentFields, *, least: int, now: int | None, scaled_by: int | None
) -> int | None:
    """The number to scale a Deployment to, None to leave it.

    `now`: its replicas, None if it was just made, with one; `scaled_by`: the least that it was last scaled by. Within the bounds, what somebody else
    has chosen stays: `kubectl scale` holds until minReplicas changes. What demand scales begins with what `least` says and is the autoscaler's from then on.
    """
    if now is not None and scaled_by_demand(isvc, fields):
        return None
    least = max(1, least)
    if metric_target(isvc, fields) is not None:
        return None
    if now is not None and isvc.metadata.annotations.get(names.AUTOSCALER_CLASS) in _HANDS_OFF:
        return None
    most = max(least, fields.max_replicas or max(least, now or 0))
    wanted = least if now is None or scaled_by != least else min(max(now, least), most)
    return None if wanted == (1 if now is None else now) else wanted
