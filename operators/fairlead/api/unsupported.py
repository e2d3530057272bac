"""What a manifest may say that Fairlead accepts and does not act on, so that the operator can name it and nothing is dropped in silence.

One table. A feature that is built removes its lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from fairlead.api import names
from fairlead.api.component import Logger
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.knative import acted_on
from fairlead.api.predictor import IMPLEMENTATIONS


class FieldNote(NamedTuple):
    """A field that is set and has no effect: where, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


_KNATIVE = "is Knative's; Fairlead has no Knative"


class Entry(NamedTuple):
    """`path` begins at `spec`, at `component` (predictor, transformer, explainer, a canary's predictor) or at `model` (their `model`
    or framework field). `when` tells from the value, its component and the annotations whether it is really without effect."""

    path: str
    why: str
    when: Callable[[Any, Mapping[str, Any], Mapping[str, str]], bool] = lambda value, component, annotations: True


FIELDS = (
    Entry(
        "spec.tracing",
        "has no effect: Fairlead's images have no OpenTelemetry. In one with fairlead[tracing], set OTEL_EXPORTER_OTLP_ENDPOINT on the container",
    ),
    Entry("spec.explainer.art", "has no effect: give the explainer containers of its own"),
    Entry(
        "component.scaleMetricType",
        "has no effect: it is Utilization; autoScaling.metrics takes other types",
        lambda value, *_: value != "Utilization",
    ),
    Entry(
        "component.autoScaling.keda",
        f"has no effect without the annotation {names.AUTOSCALER_CLASS}: keda",
        lambda value, component, annotations: annotations.get(names.AUTOSCALER_CLASS) != "keda",
    ),
    Entry(
        "component.logger",
        "has no effect without a url, an http:// or https:// address: there is no default one",
        lambda value, *_: not Logger.model_validate(value).reachable(),
    ),
    *(
        Entry(f"component.logger.{field}", "has no effect: each payload is an event of its own, sent to logger.url")
        for field in ("storage", "marshallerUrl", "batchSize", "batchInterval")
    ),
    Entry("component.batcher.timeout", "has no effect: a request has the component's timeout"),
    Entry("component.ephemeralContainers", "has no effect: Kubernetes does not take them in a pod template"),
    Entry(
        "model.name",
        "has no effect: the container keeps the runtime's name",
        lambda value, *_: value not in ("", names.PREDICTOR_CONTAINER),  # KServe's SDK always sends an empty one
    ),
    Entry("model.storage.schemaPath", "has no effect: the model says itself what it takes"),
    Entry("model.confidential", "has no effect: models are not decrypted"),
)

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
    ("autoscaling.knative.dev/min-scale", "*", "has no effect: minReplicas says it, as in KServe"),
    ("autoscaling.knative.dev/minScale", "*", "has no effect: minReplicas says it, as in KServe"),
    (
        "autoscaling.knative.dev/*",
        "*",
        "has no effect: it is Knative's, and nothing here is like it, or its value cannot be read",
    ),
)
"""(annotation, value, why), with `*` for anything."""

LABELS: tuple[tuple[str, str, str], ...] = (
    ("serving.knative.dev/visibility", "*", f"{_KNATIVE}: use networking.kserve.io/visibility"),
)  # fmt: skip


def not_acted_on(isvc: InferenceService) -> list[FieldNote]:
    """Every field, annotation and label that is set and has no effect."""
    spec = isvc.spec.to_dict()
    notes = [FieldNote(path, entry.why) for entry in FIELDS for path in _set_paths(isvc, spec, entry)]
    knative = acted_on(isvc.metadata.annotations)
    for field, given, table in (
        ("annotations", isvc.metadata.annotations, ANNOTATIONS),
        ("labels", isvc.metadata.labels, LABELS),
    ):
        notes += [
            FieldNote(f"metadata.{field}[{key}]", why)
            for key, value in given.items()
            if key not in knative and (why := _why(key, value, table))
        ]
    return notes


def _why(key: str, value: str, table: Iterable[tuple[str, str, str]]) -> str:
    """That of the first entry that fits, else nothing."""
    return next((why for name, given, why in table if fnmatchcase(key, name) and fnmatchcase(value, given)), "")


def _set_paths(isvc: InferenceService, spec: dict[str, Any], entry: Entry) -> Iterator[str]:
    first, *rest = entry.path.split(".")
    for path, node in _places(isvc, spec, first):
        value: Any = node
        for name in rest:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None and entry.when(value, node, isvc.metadata.annotations):
            yield ".".join([path, *rest])


def _places(isvc: InferenceService, spec: dict[str, Any], word: str) -> Iterator[tuple[str, dict[str, Any]]]:
    match word:
        case "spec":
            yield "spec", spec
        case "component":
            for name in isvc.spec.components():
                yield f"spec.{name}", spec[name]
            for index, canary in enumerate(spec.get("canary", ())):
                yield f"spec.canary[{index}].predictor", canary["predictor"]
        case "model":
            for path, component in _places(isvc, spec, "component"):
                yield from ((f"{path}.{field}", component[field]) for field in IMPLEMENTATIONS if field in component)
        case _:
            raise ValueError(f"{word!r} begins no path: spec, component and model do")
