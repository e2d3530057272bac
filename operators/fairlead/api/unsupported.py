"""What a manifest may say that Fairlead accepts and does not act on, so that the operator can name it and nothing is dropped in silence.

One table. A feature that is built removes its lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from fairlead.api.inferenceservice import InferenceService
from fairlead.api.predictor import IMPLEMENTATIONS


class FieldNote(NamedTuple):
    """A field that is set and has no effect: where, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


_NO_AUTOSCALING = "has no effect yet: the service runs with minReplicas pods"
_NO_LOGGER = "has no effect yet: payloads are not logged"
_KNATIVE = "is Knative's; Fairlead has no Knative"

FIELDS: tuple[tuple[str, str], ...] = (
    # `component`: predictor, transformer, explainer and each canary's predictor; `model`: their `model` or framework field.
    ("spec.tracing", "has no effect yet: no traces are exported"),
    ("spec.explainer.art", "has no effect: give the explainer containers of its own"),
    ("component.maxReplicas", _NO_AUTOSCALING),
    ("component.scaleTarget", _NO_AUTOSCALING),
    ("component.scaleMetric", _NO_AUTOSCALING),
    ("component.scaleMetricType", _NO_AUTOSCALING),
    ("component.autoScaling", _NO_AUTOSCALING),
    ("component.logger", _NO_LOGGER),
    ("component.batcher.timeout", "has no effect: batches do not wait, they are what queued meanwhile"),
    ("component.workerSpec", "has no effect yet: a replica runs on one node"),
    ("component.storageContainerName", "has no effect: there is no ClusterStorageContainer"),
    ("component.ephemeralContainers", "has no effect: Kubernetes does not take them in a pod template"),
    ("model.name", "has no effect: the container keeps the runtime's name"),
    ("model.confidential", "has no effect: models are not decrypted"),
)
"""(path, why); a path begins at `spec` or at one of the words explained in the comment."""

ANNOTATIONS: tuple[tuple[str, str, str], ...] = (
    (
        "serving.kserve.io/deploymentMode",
        "Knative",
        "has no effect: there is one mode, plain Deployments that can scale to zero",
    ),
    (
        "serving.kserve.io/deploymentMode",
        "Serverless",
        "has no effect: there is one mode, plain Deployments that can scale to zero",
    ),
    ("serving.kserve.io/deploymentMode", "ModelMesh", "has no effect: there is one mode, plain Deployments"),
    ("serving.kserve.io/autoscalerClass", "keda", "has no effect: Fairlead scales by itself, without KEDA"),
    ("autoscaling.knative.dev/*", "*", _KNATIVE),
)
"""(annotation, value, why), with `*` for anything."""

LABELS: tuple[tuple[str, str, str], ...] = (
    ("serving.knative.dev/visibility", "*", f"{_KNATIVE}: use networking.kserve.io/visibility"),
)  # fmt: skip


def not_acted_on(isvc: InferenceService) -> list[FieldNote]:
    """Every field, annotation and label that is set and has no effect, in the order of the tables."""
    notes = [FieldNote(path, why) for pattern, why in FIELDS for path in _set_paths(isvc, pattern)]
    for field, given, table in (
        ("annotations", isvc.metadata.annotations, ANNOTATIONS),
        ("labels", isvc.metadata.labels, LABELS),
    ):
        notes += [
            FieldNote(f"metadata.{field}[{key}]", why)
            for pattern, value_pattern, why in table
            for key, value in given.items()
            if fnmatchcase(key, pattern) and fnmatchcase(value, value_pattern)
        ]
    return notes


def _set_paths(isvc: InferenceService, pattern: str) -> Iterator[str]:
    first, *rest = pattern.split(".")
    for path, node in _places(isvc, first):
        value: Any = node
        for name in rest:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            yield ".".join([path, *rest])


def _places(isvc: InferenceService, word: str) -> Iterator[tuple[str, dict[str, Any]]]:
    spec = isvc.spec.to_dict()
    match word:
        case "spec":
            yield "spec", spec
        case "component":
            for name in isvc.spec.components():
                yield f"spec.{name}", spec[name]
            for index, canary in enumerate(spec.get("canary", ())):
                yield f"spec.canary[{index}].predictor", canary["predictor"]
        case "model":
            for path, component in _places(isvc, "component"):
                yield from ((f"{path}.{field}", component[field]) for field in IMPLEMENTATIONS if field in component)
        case _:
            raise ValueError(f"{word!r} begins no path: spec, component and model do")
