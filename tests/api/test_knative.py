"""Knative's annotations on an InferenceService, in our words."""

from __future__ import annotations

import pytest

from fairlead.api import names
from fairlead.api.duration import duration
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.knative import PREFIX, acted_on, in_our_words
from fairlead.api.unsupported import not_acted_on


def isvc(annotations: dict[str, str], **predictor: object) -> InferenceService:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/m"}
    return InferenceService.parse(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "iris", "namespace": "team", "annotations": annotations},
            "spec": {"predictor": {"model": model, **predictor}},
        }
    )


def knative(**annotations: str) -> dict[str, str]:
    return {PREFIX + name.replace("_", "-"): value for name, value in annotations.items()}


def test_a_service_without_them_is_left_as_it_is() -> None:
    given = isvc({"team": "a"})
    assert in_our_words(given) is given


@pytest.mark.parametrize(
    ("annotations", "ours"),
    [
        (knative(metric="rps"), {names.SCALE_METRIC: "rps"}),
        (knative(**{"class": "kpa.autoscaling.knative.dev"}), {names.SCALE_METRIC: "concurrency"}),
        (
            knative(**{"class": "hpa.autoscaling.knative.dev"}, metric="memory"),
            {names.SCALE_METRIC: "memory", names.AUTOSCALER_CLASS: "hpa"},
        ),
        (knative(window="2m"), {names.STABLE_WINDOW: "120s", names.PANIC_WINDOW: "12s"}),
        (
            knative(window="100s", panic_window_percentage="20"),
            {names.STABLE_WINDOW: "100s", names.PANIC_WINDOW: "20s"},
        ),
        (knative(scale_down_delay="1m30s"), {names.SCALE_DOWN_DELAY: "90s"}),
        (knative(scale_to_zero_pod_retention_period="5m"), {names.SCALE_TO_ZERO_DELAY: "360s"}),
    ],
)
def test_an_annotation_is_said_in_one_of_ours(annotations: dict[str, str], ours: dict[str, str]) -> None:
    given = isvc(annotations)
    said = in_our_words(given).metadata.annotations
    assert {key: value for key, value in said.items() if key not in annotations} == ours
    assert acted_on(annotations) == annotations.keys()
    assert not_acted_on(given) == []


def test_target_and_max_scale_are_fields_where_those_are_not_set() -> None:
    annotations = knative(target="5", maxScale="7")
    filled = in_our_words(isvc(annotations)).spec.predictor
    assert (filled.scale_target, filled.max_replicas) == (5, 7)
    kept = in_our_words(isvc(annotations, scaleTarget=2, maxReplicas=0)).spec.predictor
    assert (kept.scale_target, kept.max_replicas) == (2, 0)


def test_what_we_are_told_ourselves_goes_before() -> None:
    said = in_our_words(isvc({**knative(window="2m", metric="rps"), names.STABLE_WINDOW: "30s"})).metadata.annotations
    assert (said[names.STABLE_WINDOW], said[names.SCALE_METRIC]) == ("30s", "rps")


@pytest.mark.parametrize(
    "annotations",
    [
        knative(target="0.5"),
        knative(target="100", metric="memory"),
        knative(window="soon"),
        knative(max_scale="-1"),
        knative(min_scale="1"),
        knative(minScale="1"),
        knative(initial_scale="3"),
        knative(panic_window_percentage="ten"),
        knative(**{"class": "acme.example.com"}),
        knative(metric="tokens"),
    ],
)
def test_what_has_no_effect_is_named_once(annotations: dict[str, str]) -> None:
    without = annotations.keys() - acted_on(annotations)
    assert len(without) == 1
    assert [note.path for note in not_acted_on(isvc(annotations))] == [f"metadata.annotations[{next(iter(without))}]"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("1.5m", 90), ("1h2m3s", 3723), ("250ms", 0.25), (" 5m ", 300)],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "soon", "5 minutes", "1m-3s", "-5s", "1e3", "5d", "m5"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert duration(text) is None
