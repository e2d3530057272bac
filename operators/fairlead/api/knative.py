"""Knative's annotations by which its autoscaler is steered, as InferenceServices carry them for KServe, which passes them on.

Each says here what one of our fields or annotations says, unless that is given too. min-scale is not among them: KServe writes minReplicas over it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fairlead.api import names
from fairlead.api.duration import duration
from fairlead.api.inferenceservice import InferenceService, InferenceServiceSpec

PREFIX = "autoscaling.knative.dev/"
_HPA, _KPA = "hpa.autoscaling.knative.dev", "kpa.autoscaling.knative.dev"
_RETENTION = "scale-to-zero-pod-retention-period"
_METRICS = ("concurrency", "rps", "cpu", "memory")
_STABLE_WINDOW, _PANIC_PERCENTAGE = 60.0, 10.0
"""Knative's own."""


def in_our_words(isvc: InferenceService) -> InferenceService:
    """The same service, with what Knative's annotations say where our fields and annotations say nothing."""
    said = _Said(isvc.metadata.annotations)
    if not said.by:
        return isvc
    metadata = isvc.metadata.model_copy(update={"annotations": {**said.annotations, **isvc.metadata.annotations}})
    return isvc.model_copy(update={"metadata": metadata, "spec": _filled(isvc.spec, said.fields)})


def acted_on(annotations: Mapping[str, str]) -> set[str]:
    """Those of Knative's annotations that have an effect."""
    return _Said(annotations).by


class _Said:
    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = {_kebab(key.removeprefix(PREFIX)): key for key in given if key.startswith(PREFIX)}
        self._texts = {name: given[key].strip() for name, key in self._given.items()}
        self.annotations: dict[str, str] = {}
        self.fields: dict[str, int] = {}
        self.by: set[str] = set()
        """Which of Knative's annotations say it."""
        if self._given:
            self._read_metric()
            self._read_numbers()
            self._read_durations()

    def _read_metric(self) -> None:
        metric, kind = self._text("metric"), self._text("class")
        if metric in _METRICS:
            self._say("metric", names.SCALE_METRIC, metric)
        if kind == _HPA:
            self._say("class", names.AUTOSCALER_CLASS, "hpa")
        elif kind == _KPA:  # demand scales, by its default metric
            self._say("class", names.SCALE_METRIC, metric if metric in _METRICS else "concurrency")

    def _read_numbers(self) -> None:
        # Of memory Knative's target is in MiB, ours in percent.
        fields = {"max-scale": "max_replicas"} | (
            {} if self._text("metric") == "memory" else {"target": "scale_target"}
        )
        for name, ours in fields.items():
            if re.fullmatch(r"[1-9]\d{0,8}", self._text(name)):
                self.fields[ours] = int(self._text(name))
                self.by.add(self._given[name])

    def _read_durations(self) -> None:
        given = duration(self._text("window"))
        window = _STABLE_WINDOW if given is None else given
        if given is not None:
            self._say("window", names.STABLE_WINDOW, f"{window:g}s")
            self._say("window", names.PANIC_WINDOW, f"{window * _PANIC_PERCENTAGE / 100:g}s")
        percentage = self._text("panic-window-percentage")
        if re.fullmatch(r"\d{1,3}(\.\d+)?", percentage):
            self._say("panic-window-percentage", names.PANIC_WINDOW, f"{window * float(percentage) / 100:g}s")
        delay, retention = duration(self._text("scale-down-delay")), duration(self._text(_RETENTION))
        if delay is not None:
            self._say("scale-down-delay", names.SCALE_DOWN_DELAY, f"{delay:g}s")
        if retention is not None:  # for which the last pod stays after a window without a request
            self._say(_RETENTION, names.SCALE_TO_ZERO_DELAY, f"{window + retention:g}s")

    def _text(self, name: str) -> str:
        return self._texts.get(name, "")

    def _say(self, name: str, ours: str, value: str) -> None:
        self.annotations[ours] = value
        self.by.add(self._given[name])


def _filled(spec: InferenceServiceSpec, said: Mapping[str, int]) -> InferenceServiceSpec:
    """Canaries have what the predictor has."""
    components: dict[str, Any] = {}
    for name, component in spec.components().items():
        missing = {key: value for key, value in said.items() if getattr(component, key) is None}
        components[name] = component.model_copy(update=missing)
    return spec.model_copy(update=components)


def _kebab(name: str) -> str:
    """Knative takes minScale for min-scale."""
    return re.sub(r"[A-Z]", lambda letter: "-" + letter[0].lower(), name)
