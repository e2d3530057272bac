"""Who decides how many replicas a workload has: an HPA for cpu and memory, KEDA or somebody else where that is asked for, demand where it is asked for
or the bounds leave a choice, else minReplicas.

Bounds are KServe's: minReplicas is 1 if not set; a maxReplicas of 0 means no limit. One that is not set is no limit either for whom demand is asked for, by a
metric, a target or a minReplicas of 0, as in KServe's Knative mode; else it is minReplicas, as in its Standard mode. Unlike there, where an HPA on cpu is the
default, demand is: an HPA is made only where cpu or memory, or the autoscalerClass hpa, is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.component import ComponentFields
from fairlead.api.duration import duration
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.predictor import PredictorFields
from fairlead.autoscaling import Metric, Policy
from fairlead.autoscaling.policy import target_per_replica
from fairlead.controllers.inferenceservice.metrics import (
    DEFAULT_CPU_UTILIZATION,
    RESOURCES,
    behavior,
    pod_metric,
    resource_metrics,
)

_HANDS_OFF = ("none", "external", "keda")
_OF_DEMAND = ("concurrency", "rps")


@dataclass(frozen=True)
class HpaTarget:
    """What an HPA is to keep: `metrics` and `behavior` as `autoscaling/v2` has them."""

    metrics: tuple[Open, ...]
    behavior: Open
    min_replicas: int
    max_replicas: int


def has_class(isvc: InferenceService, autoscaler: str) -> bool:
    return isvc.metadata.annotations.get(names.AUTOSCALER_CLASS) == autoscaler


def spans_pods(fields: ComponentFields) -> bool:
    """Whether the model is served by a head and workers: a fixed number of pods, as in KServe."""
    return isinstance(fields, PredictorFields) and fields.worker_spec is not None


def least_replicas(isvc: InferenceService, fields: ComponentFields) -> int:
    """minReplicas; 0 keeps one pod where nothing here would wake it."""
    if spans_pods(fields):
        return 1
    least = fields.effective_min_replicas()
    return least if scaled_by_demand(isvc, fields) else max(1, least)


def canary_least_replicas(stable: int, percent: int) -> int:
    """Of a canary that does not say: its share of the stable predictor's, at least one unless that may be at zero. 20 % of 10 is 2."""
    return max(1, math.ceil(stable * percent / 100)) if stable else 0


def scaled_by_demand(isvc: InferenceService, fields: ComponentFields) -> bool:
    """Whether the replicas follow the requests: that is asked for, or the bounds leave a choice, and nobody else makes it."""
    if isvc.metadata.annotations.get(names.AUTOSCALER_CLASS) in _HANDS_OFF or hpa_target(isvc, fields) is not None:
        return False
    if spans_pods(fields):
        return False
    least, most = fields.effective_min_replicas(), fields.max_replicas
    if most is None:
        return least == 0 or _asks_for_demand(isvc, fields)
    return most == 0 or most > least


def _asks_for_demand(isvc: InferenceService, fields: ComponentFields) -> bool:
    """By name: KServe's documentation scales by `scaleTarget` alone."""
    by = fields.scale_metric or isvc.metadata.annotations.get(names.SCALE_METRIC)
    return by in _OF_DEMAND or fields.scale_target is not None or pod_metric(fields) is not None


def policy(isvc: InferenceService, fields: ComponentFields, *, least: int, proven: bool) -> Policy | None:
    """By what demand scales the workload, None if it does not. A revision that has not been ready yet keeps a pod until it is."""
    if not scaled_by_demand(isvc, fields):
        return None
    annotations = isvc.metadata.annotations
    asked = fields.scale_metric or annotations.get(names.SCALE_METRIC)
    own = pod_metric(fields)
    metric = Metric.CUSTOM if own is not None else Metric.RPS if asked == "rps" else Metric.CONCURRENCY
    scale_target = fields.scale_target if own is None else own.target
    default = Policy()
    stable = _seconds(annotations, names.STABLE_WINDOW, default.stable_window, least=1.0)
    return Policy(
        metric=metric,
        custom="" if own is None else own.name,
        target=target_per_replica(metric, scale_target, fields.container_concurrency or 0),
        min_replicas=least if proven else max(1, least),
        max_replicas=max(1, least, fields.max_replicas) if fields.max_replicas else 0,
        stable_window=stable,
        panic_window=min(stable, _seconds(annotations, names.PANIC_WINDOW, default.panic_window, least=1.0)),
        scale_down_delay=_seconds(annotations, names.SCALE_DOWN_DELAY, default.scale_down_delay),
        scale_to_zero_delay=_seconds(annotations, names.SCALE_TO_ZERO_DELAY, default.scale_to_zero_delay),
        scale_to_zero_starts=_unless_given(annotations, names.SCALE_TO_ZERO_DELAY, default.scale_to_zero_starts),
        activation_timeout=activation_timeout(isvc),
        activation_starts=_unless_given(annotations, names.ACTIVATION_TIMEOUT, default.activation_starts),
        warm_replicas=warm_replicas(isvc),
        behavior=behavior(fields),
    )


def warm_replicas(isvc: InferenceService) -> int:
    given = isvc.metadata.annotations.get(names.WARM_REPLICAS, "")
    return int(given) if given.isdecimal() else 0


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


def _seconds(annotations: Mapping[str, str], name: str, default: float, *, least: float = 0.0) -> float:
    """What cannot be read is left at the default; `notes` tells of it."""
    found = duration(annotations.get(name, ""))
    return default if found is None else max(least, found)


def _unless_given(annotations: Mapping[str, str], name: str, default: float) -> float:
    """0 where their owner has set the seconds: a default that grows with the starts is none then."""
    return default if duration(annotations.get(name, "")) is None else 0.0


def hpa_target(isvc: InferenceService, fields: ComponentFields) -> HpaTarget | None:
    """What a real HPA is to keep, None if there is to be none: cpu and memory are what it sees and Fairlead does not."""
    annotations = isvc.metadata.annotations
    if annotations.get(names.AUTOSCALER_CLASS) in _HANDS_OFF or spans_pods(fields):
        return None
    metrics = resource_metrics(fields)
    metric = fields.scale_metric or annotations.get(names.SCALE_METRIC) or ("cpu" if has_class(isvc, "hpa") else None)
    if not metrics and metric in RESOURCES:
        given = annotations.get(names.TARGET_UTILIZATION, "")
        default = int(given) if given.isdecimal() else DEFAULT_CPU_UTILIZATION
        target = {"type": "Utilization", "averageUtilization": fields.scale_target or default}
        metrics = [{"type": "Resource", "resource": {"name": metric, "target": target}}]
    if not metrics:
        return None
    least = max(1, fields.effective_min_replicas())
    given_behavior = (fields.auto_scaling.behavior if fields.auto_scaling else None) or {}
    return HpaTarget(tuple(metrics), given_behavior, least, max(least, fields.max_replicas or 0))


def replicas(
    isvc: InferenceService, fields: ComponentFields, *, least: int, now: int | None, scaled_by: int | None
) -> int | None:
    """The number to scale a Deployment to, None to leave it.

    `now`: its replicas, None if it was just made, with one; `scaled_by`: the least that it was last scaled by. Within the bounds, what somebody else
    has chosen stays: `kubectl scale` holds until minReplicas changes. What demand scales begins with what `least` says and is the autoscaler's from then on.
    """
    if now is not None and scaled_by_demand(isvc, fields):
        return None
    if spans_pods(fields):
        return None if now in (None, 1) else 1
    least = max(1, least)
    if hpa_target(isvc, fields) is not None:
        # Its first look comes after some 15 s. At 0, which only a user sets, it does nothing.
        return least if (now is None and least > 1) or 0 < (now or 0) < least else None
    if now is not None and isvc.metadata.annotations.get(names.AUTOSCALER_CLASS) in _HANDS_OFF:
        return None
    most = max(least, fields.max_replicas or max(least, now or 0))
    wanted = least if now is None or scaled_by != least else min(max(now, least), most)
    return None if wanted == (1 if now is None else now) else wanted
