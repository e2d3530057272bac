"""`autoScaling` of KServe's API: `metrics[]` and `behavior`, read for whoever scales: an HPA, KEDA, or demand.

    metrics: [{type: Resource, resource: {name: cpu|memory, target: {type, averageUtilization|averageValue}}},
              {type: PodMetric, podmetric: {metric: {metricNames: [NAME]}, target: {value|averageValue}}},
              {type: External, external: {metric: {backend, serverAddress, query, namespace}, target: {value}, authenticationRef}}]
    behavior: {scaleUp, scaleDown: {stabilizationWindowSeconds, policies: [{type, value, periodSeconds}], selectPolicy, tolerance}}

What cannot be read is left out, and `unreadable` names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fairlead.api.base import Open
from fairlead.api.component import ComponentFields
from fairlead.api.quantity import parse_quantity
from fairlead.autoscaling import Behavior, Rules, SpeedLimit

RESOURCES = ("cpu", "memory")
DEFAULT_CPU_UTILIZATION = 80
RATE = "rate"
_SELECT = {"Max", "Min", "Disabled"}
_WAYS = {"scaleUp": "up", "scaleDown": "down"}


class PodMetric(NamedTuple):
    """A metric that the model servers export: its sum over the pods, and what one replica is to have of it."""

    name: str
    target: float
    rate: bool = False
    """Of a counter: its increase a second."""


def of_type(fields: ComponentFields, type: str) -> list[Open]:
    """The metrics of one type, as given."""
    metrics = (fields.auto_scaling.metrics if fields.auto_scaling else None) or []
    return [metric for metric in metrics if metric.get("type") == type]


def resource_metrics(fields: ComponentFields) -> list[Open]:
    """As `autoscaling/v2` has them: cpu without a target is kept at 80 %."""
    found = []
    for metric in of_type(fields, "Resource"):
        resource = metric.get("resource") or {}
        target = resource.get("target") or {}
        if resource.get("name") not in RESOURCES:
            continue
        if resource["name"] == "cpu" and not target.keys() & {"averageUtilization", "averageValue"}:
            target = {"type": "Utilization", "averageUtilization": DEFAULT_CPU_UTILIZATION}
        found.append({"type": "Resource", "resource": {"name": resource["name"], "target": target}})
    return found


def pod_metric(fields: ComponentFields) -> PodMetric | None:
    """The first that is complete: one metric scales."""
    return next((metric for spec in of_type(fields, "PodMetric") if (metric := _pod_metric(spec)) is not None), None)


def behavior(fields: ComponentFields) -> Behavior:
    """For demand; an HPA gets it as it was given."""
    given = (fields.auto_scaling.behavior if fields.auto_scaling else None) or {}
    return Behavior(**{ours: _rules(given.get(theirs) or {}) for theirs, ours in _WAYS.items()})


def unreadable(fields: ComponentFields) -> Iterator[tuple[str, str]]:
    """(path below the component, why)."""
    if fields.auto_scaling is None:
        return
    for index, metric in enumerate(fields.auto_scaling.metrics or ()):
        path = f"autoScaling.metrics[{index}]"
        kind = metric.get("type")
        if kind == "PodMetric" and _pod_metric(metric) is None:
            yield path, "has no effect: podmetric.metric.metricNames and a podmetric.target.value above 0 are needed"
        elif kind == "Resource" and (metric.get("resource") or {}).get("name") not in RESOURCES:
            yield path, "has no effect: resource.name is cpu or memory"
        elif kind not in ("PodMetric", "Resource", "External"):
            yield path, f"has no effect: its type is {kind!r}, not Resource, PodMetric or External"
    given = fields.auto_scaling.behavior or {}
    for way in given.keys() - _WAYS.keys():
        yield f"autoScaling.behavior.{way}", "has no effect: there are scaleUp and scaleDown"
    for way in given.keys() & _WAYS.keys():
        for index, limit in enumerate((given[way] or {}).get("policies") or ()):
            if _limit(limit) is None:
                path = f"autoScaling.behavior.{way}.policies[{index}]"
                yield path, "has no effect: type (Pods or Percent), value and periodSeconds are needed"


def number(given: Any) -> float | None:
    """Of a quantity such as 5, "0.8" or 500m."""
    try:
        return None if given is None else float(parse_quantity(given))
    except ValueError:
        return None


def _pod_metric(spec: Mapping[str, Any]) -> PodMetric | None:
    source = spec.get("podmetric") or {}
    metric, target = source.get("metric") or {}, source.get("target") or {}
    wanted = number(target.get("averageValue", target.get("value")))
    name = next(iter(metric.get("metricNames") or ()), None) or metric.get("query")
    if not name or not wanted or wanted <= 0:
        return None
    return PodMetric(name, wanted, rate=metric.get("operationOverTime") == RATE)


def _rules(given: Mapping[str, Any]) -> Rules:
    limits = [limit for policy in given.get("policies") or () if (limit := _limit(policy)) is not None]
    select = given.get("selectPolicy")
    return Rules(
        tuple(limits),
        select if select in _SELECT else "Max",
        number(given.get("stabilizationWindowSeconds")) or 0.0,
        number(given.get("tolerance")) or 0.0,
    )


def _limit(policy: Mapping[str, Any]) -> SpeedLimit | None:
    value, period = number(policy.get("value")), number(policy.get("periodSeconds"))
    kind = policy.get("type")
    if kind not in ("Pods", "Percent") or not value or not period:
        return None
    return SpeedLimit(kind, int(value), period)
