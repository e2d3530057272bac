"""What the spec asks for and this controller does not do, or does otherwise, for the status and a Warning event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fairlead.api import names
from fairlead.api.component import ComponentFields
from fairlead.api.duration import duration
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.unsupported import FieldNote, not_acted_on
from fairlead.controllers.inferenceservice.metrics import of_type, pod_metric, resource_metrics, unreadable
from fairlead.controllers.inferenceservice.payloads import without_logging
from fairlead.controllers.inferenceservice.podsource import PodSource
from fairlead.controllers.inferenceservice.scaling import (
    DURATIONS,
    has_class,
    hpa_target,
    scaled_by_demand,
    spans_pods,
)


def notes(isvc: InferenceService, sources: Iterable[PodSource] = ()) -> list[str]:
    """`sources`: of the components' pods."""
    return [str(note) for note in (*not_acted_on(isvc), *_own(isvc), *without_logging(sources))]


def _own(isvc: InferenceService) -> Iterator[FieldNote]:
    for kind, fields in isvc.spec.components().items():
        if spans_pods(fields):
            if fields.min_replicas not in (None, 1) or fields.max_replicas not in (None, 1):
                yield FieldNote(
                    f"spec.{kind}.minReplicas", "as maxReplicas, has no effect with workerSpec: there is one head"
                )
            continue
        keda = has_class(isvc, "keda")
        scaled = keda or hpa_target(isvc, fields) is not None or scaled_by_demand(isvc, fields)
        if fields.min_replicas == 0 and not keda and not scaled_by_demand(isvc, fields):
            yield FieldNote(
                f"spec.{kind}.minReplicas",
                "one pod is kept: only demand (concurrency, rps, a PodMetric) and KEDA scale to zero",
            )
        if fields.scale_target is not None and not scaled:
            yield FieldNote(
                f"spec.{kind}.scaleTarget", "has no effect: nothing scales between minReplicas and maxReplicas"
            )
        yield from _metrics(isvc, kind, fields)
    warm = isvc.metadata.annotations.get(names.WARM_REPLICAS)
    if warm is not None and not warm.isdecimal():
        yield FieldNote(f"metadata.annotations[{names.WARM_REPLICAS}]", f"{warm!r} is no number of replicas: give 1")
    elif warm is not None and not any(scaled_by_demand(isvc, fields) for fields in isvc.spec.components().values()):
        yield FieldNote(
            f"metadata.annotations[{names.WARM_REPLICAS}]",
            "has no effect: demand scales nothing here; give a maxReplicas above minReplicas",
        )
    for name in DURATIONS:
        given = isvc.metadata.annotations.get(name)
        if given is not None and duration(given) is None:
            yield FieldNote(f"metadata.annotations[{name}]", f"{given!r} is no duration: give 30, 30s or 5m")
    predictor = isvc.spec.predictor
    if isvc.spec.canary and predictor.canary_traffic_percent is not None:
        yield FieldNote(
            "spec.predictor.canaryTrafficPercent", "has no effect beside spec.canary, which says the weights"
        )


def _metrics(isvc: InferenceService, kind: str, fields: ComponentFields) -> Iterator[FieldNote]:
    for path, why in unreadable(fields):
        yield FieldNote(f"spec.{kind}.{path}", why)
    if has_class(isvc, "keda"):
        return
    metrics = f"spec.{kind}.autoScaling.metrics"
    if of_type(fields, "External"):
        yield FieldNote(metrics, f"External metrics need the annotation {names.AUTOSCALER_CLASS}: keda")
    pods = of_type(fields, "PodMetric")
    if pods and resource_metrics(fields):
        yield FieldNote(metrics, "PodMetric has no effect beside Resource, which an HPA scales by")
    elif len(pods) > 1 or any(
        len((pod.get("podmetric") or {}).get("metric", {}).get("metricNames") or ()) > 1 for pod in pods
    ):
        yield FieldNote(metrics, f"one PodMetric scales: {getattr(pod_metric(fields), 'name', 'none')}")
