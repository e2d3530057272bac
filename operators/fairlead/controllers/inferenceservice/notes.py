"""What the spec asks for and this controller does not do, or does otherwise, for the status and a Warning event."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.api.inferenceservice import InferenceService
from fairlead.api.unsupported import FieldNote, not_acted_on
from fairlead.controllers.inferenceservice.scaling import metric_target

_BY_HPA = ("maxReplicas", "scaleTarget", "scaleMetric")


def notes(isvc: InferenceService) -> list[str]:
    by_hpa = {
        f"spec.{kind}.{field}"
        for kind, fields in isvc.spec.components().items()
        if metric_target(isvc, fields) is not None
        for field in _BY_HPA
    }
    found = [note for note in not_acted_on(isvc) if note.path not in by_hpa]
    return [str(note) for note in (*found, *_own(isvc))]


def _own(isvc: InferenceService) -> Iterator[FieldNote]:
    for kind, fields in isvc.spec.components().items():
        if fields.min_replicas == 0:
            yield FieldNote(f"spec.{kind}.minReplicas", "one pod is kept: there is no scaling to zero yet")
    predictor = isvc.spec.predictor
    if isvc.spec.canary and predictor.canary_traffic_percent is not None:
        yield FieldNote(
            "spec.predictor.canaryTrafficPercent", "has no effect beside spec.canary, which says the weights"
        )
    model = predictor.implementation()
    if model is not None and model.storage is not None:
        yield FieldNote(
            "spec.predictor.model.storage", "has no effect yet: give the model's whole address as storageUri"
        )
