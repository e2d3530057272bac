"""KServe's manifests are taken as they are; what has no effect is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import kserve
import pytest
import yaml
from kserve.models.v1beta1_tracing_spec import V1beta1TracingSpec

from fairlead.api import component, inferenceservice, predictor, servingruntime, status
from fairlead.api.base import ApiType
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.unsupported import not_acted_on

MANIFESTS: list[dict[str, Any]] = list(
    yaml.safe_load_all(Path(__file__).with_name("kserve_manifests.yaml").read_text())
)
EXPECTED = "fairlead.dev/expect-notes"

# Types of KServe's own SDK, and ours.
SDK_TYPES: dict[type, type[ApiType]] = {
    kserve.V1beta1InferenceServiceSpec: inferenceservice.InferenceServiceSpec,
    kserve.V1beta1PredictorSpec: predictor.Predictor,
    kserve.V1beta1TransformerSpec: inferenceservice.Transformer,
    kserve.V1beta1ExplainerSpec: inferenceservice.Explainer,
    kserve.V1beta1ARTExplainerSpec: inferenceservice.ArtExplainer,
    kserve.V1beta1CanarySpec: inferenceservice.Canary,
    V1beta1TracingSpec: inferenceservice.Tracing,
    kserve.V1beta1ModelSpec: predictor.ModelSpec,
    kserve.V1beta1ModelFormat: predictor.ModelFormat,
    kserve.V1beta1SKLearnSpec: predictor.FrameworkSpec,
    kserve.V1beta1TritonSpec: predictor.FrameworkSpec,
    kserve.V1beta1StorageSpec: component.StorageSpec,
    kserve.V1beta1LoggerSpec: component.Logger,
    kserve.V1beta1Batcher: component.Batcher,
    kserve.V1beta1AutoScalingSpec: component.AutoScaling,
    kserve.V1alpha1ServingRuntimeSpec: servingruntime.ServingRuntimeSpec,
    kserve.V1alpha1SupportedModelFormat: servingruntime.SupportedModelFormat,
    kserve.V1alpha1BuiltInAdapter: servingruntime.BuiltInAdapter,
    kserve.V1beta1InferenceServiceStatus: status.InferenceServiceStatus,
    kserve.V1beta1ComponentStatusSpec: status.ComponentStatus,
    kserve.V1beta1CanaryStatus: status.CanaryStatus,
}


@pytest.mark.parametrize(("theirs", "ours"), SDK_TYPES.items(), ids=lambda kind: kind.__name__)
def test_every_field_of_kserves_sdk_is_known(theirs: Any, ours: type[ApiType]) -> None:
    known = {field.alias for field in ours.model_fields.values()}
    assert set(theirs.attribute_map.values()) - known == set()


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["metadata"]["name"])
def test_a_manifest_in_kserves_style_parses_and_what_has_no_effect_is_named(manifest: dict[str, Any]) -> None:
    isvc = InferenceService.parse(manifest)
    expected = isvc.metadata.annotations.get(EXPECTED, "").split()
    assert sorted(note.path for note in not_acted_on(isvc)) == sorted(expected)


@pytest.mark.parametrize(("name", "named"), [("", False), ("kserve-container", False), ("mine", True)])
def test_the_container_name_that_kserves_sdk_always_sends_asks_for_nothing(name: str, named: bool) -> None:
    spec = {"predictor": {"sklearn": {"storageUri": "gs://a/b", "name": name}}}
    isvc = InferenceService.parse({**MANIFESTS[0], "metadata": {"name": "iris"}, "spec": spec})
    assert [note.path for note in not_acted_on(isvc)] == (["spec.predictor.sklearn.name"] if named else [])


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["metadata"]["name"])
def test_parsing_loses_nothing(manifest: dict[str, Any]) -> None:
    assert InferenceService.parse(manifest).spec.to_dict() == manifest["spec"]


@pytest.mark.slow
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["metadata"]["name"])
def test_a_real_api_server_takes_the_manifest_and_keeps_every_field(
    cluster: httpx.Client, manifest: dict[str, Any]
) -> None:
    name = manifest["metadata"]["name"]
    url = f"/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices/{name}"
    answer = cluster.patch(
        f"{url}?fieldManager=test&fieldValidation=Strict",
        headers={"content-type": "application/apply-patch+yaml"},
        content=yaml.safe_dump(manifest),
    )
    assert answer.status_code == 201, answer.text
    assert cluster.get(url).json()["spec"] == manifest["spec"]


def test_a_kserve_sdk_object_parses_as_the_sdk_sends_it() -> None:
    theirs = kserve.V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata={"name": "iris"},
        spec=kserve.V1beta1InferenceServiceSpec(
            predictor=kserve.V1beta1PredictorSpec(
                min_replicas=1, sklearn=kserve.V1beta1SKLearnSpec(storage_uri="gs://models/iris")
            )
        ),
    )
    isvc = InferenceService.parse(kserve.ApiClient().sanitize_for_serialization(theirs))
    assert isvc.spec.predictor.given_models()[0][0] == "sklearn"


def test_notes_reach_into_transformers_canaries_and_framework_fields() -> None:
    isvc = InferenceService.parse(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "iris"},
            "spec": {
                "predictor": {"sklearn": {"name": "x"}},
                "transformer": {"containers": [{}], "batcher": {"timeout": 5}},
                "canary": [
                    {"trafficPercent": 1, "predictor": {"name": "a", "onnx": {"confidential": {}}, "logger": {}}}
                ],
            },
        }
    )
    assert {note.path for note in not_acted_on(isvc)} == {
        "spec.predictor.sklearn.name",
        "spec.transformer.batcher.timeout",
        "spec.canary[0].predictor.onnx.confidential",
        "spec.canary[0].predictor.logger",
    }
