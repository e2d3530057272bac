"""What a user reads who made a mistake: from `InferenceService.parse`, and from a real API server with our CRD."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fairlead.api.errors import InvalidObject
from fairlead.api.inferenceservice import InferenceService

MODEL = {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///m"}


def canary(percent: int, name: str | None) -> dict[str, Any]:
    return {"trafficPercent": percent, "predictor": {"name": name} if name else {}}


def service(spec: dict[str, Any], name: str = "iris") -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def predictor(**fields: Any) -> dict[str, Any]:
    return service({"predictor": {"model": MODEL, **fields}})


# what the mistake is: (object, words that parse says, words that the API server says)
MISTAKES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no implementation": (service({"predictor": {}}), "spec.predictor: no implementation", "no implementation: give one"),
    "two implementations": (
        service({"predictor": {"model": MODEL, "sklearn": {}}}),
        "spec.predictor: more than one implementation",
        "more than one implementation",
    ),
    "a model and a custom container": (
        predictor(containers=[{"name": "kserve-container", "image": "x"}]),
        "more than one implementation",
        "more than one implementation",
    ),
    "min above max": (predictor(minReplicas=3, maxReplicas=2), "minReplicas must not be greater", "minReplicas must not be"),
    "a percentage above 100": (
        predictor(canaryTrafficPercent=101),
        "spec.predictor.canaryTrafficPercent: Input should be less than or equal to 100, not 101",
        "should be less than or equal to 100",
    ),
    "a negative percentage": (
        predictor(canaryTrafficPercent=-1),
        "spec.predictor.canaryTrafficPercent",
        "should be greater than or equal to 0",
    ),
    "canaries with more than everything": (
        service({"predictor": {"model": MODEL}, "canary": [canary(60, "a"), canary(50, "b")]}),
        "add up to more than 100",
        "add up to more than 100",
    ),
    "a canary without a name": (
        service({"predictor": {"model": MODEL}, "canary": [canary(10, None)]}),
        "spec.canary[0].predictor.name: required",
        "spec.canary[0].predictor.name: Required value",
    ),
    "a canary without a percentage": (
        service({"predictor": {"model": MODEL}, "canary": [{"predictor": {"name": "a"}}]}),
        "spec.canary[0].trafficPercent: required",
        "spec.canary[0].trafficPercent: Required value",
    ),
    "two canaries of one name": (
        service({"predictor": {"model": MODEL}, "canary": [canary(1, "a"), canary(2, "a")]}),
        "two canaries have the same predictor.name",
        "two canaries have the same predictor.name",
    ),
    "a canary with the predictor's name": (
        service({"predictor": {"model": MODEL, "name": "a"}, "canary": [canary(1, "a")]}),
        "a canary has the predictor's name",
        "a canary has the predictor's name",
    ),
    "a canary with two implementations": (
        service({"predictor": {"model": MODEL}, "canary": [{"trafficPercent": 1, "predictor": {"name": "a", "onnx": {}, "pmml": {}}}]}),
        "spec.canary[0].predictor: more than one implementation",
        "more than one implementation",
    ),
    "a name that begins with a digit": (service({"predictor": {"model": MODEL}}, name="1st"), "must begin with a letter", "must begin with a letter"),
    "a name with a dot": (service({"predictor": {"model": MODEL}}, name="a.b"), "must begin with a letter", "must begin with a letter"),
    "a name that is too long": (service({"predictor": {"model": MODEL}}, name="a" * 41), "at most 40", "at most 40"),
    "names too long together": (
        service({"predictor": {"model": MODEL, "name": "b" * 30}}, name="a" * 30),
        "too long together",
        "too long together",
    ),
    "a predictor name with capitals": (predictor(name="Two"), "spec.predictor.name", "spec.predictor.name"),
    "an unknown scale metric": (
        predictor(scaleMetric="qps"),
        "spec.predictor.scaleMetric: Input should be 'cpu', 'memory', 'concurrency' or 'rps', not 'qps'",
        'supported values: "cpu", "memory", "concurrency", "rps"',
    ),
    "an unknown protocol": (
        service({"predictor": {"model": {**MODEL, "protocolVersion": "v3"}}}),
        "spec.predictor.model.protocolVersion: Input should be 'v1', 'v2'",
        'supported values: "v1", "v2", "grpc-v1", "grpc-v2"',
    ),
    "an unknown logger mode": (
        predictor(logger={"mode": "some"}),
        "spec.predictor.logger.mode: Input should be 'all'",
        'supported values: "all", "request", "response"',
    ),
    "storageUri and storageUris": (
        predictor(storageUris=[{"uri": "file:///a"}]),
        "storageUri and storageUris exclude each other",
        "storageUri and storageUris exclude each other",
    ),
    "no model format": (
        service({"predictor": {"model": {"storageUri": "file:///m"}}}),
        "spec.predictor.model.modelFormat: required",
        "spec.predictor.model.modelFormat: Required value",
    ),
    "a typo for model": (service({"predictor": {"modle": MODEL}}), "spec.predictor.modle: unknown field", 'unknown field "spec.predictor.modle"'),
    "a typo for minReplicas": (predictor(minReplica=1), "spec.predictor.minReplica: unknown field", 'unknown field "spec.predictor.minReplica"'),
    "a typo inside model": (
        service({"predictor": {"model": {**MODEL, "storageURI": "x"}}}),
        "spec.predictor.model.storageURI: unknown field",
        'unknown field "spec.predictor.model.storageURI"',
    ),
    "a typo inside a container": (
        service({"predictor": {"containers": [{"name": "c", "imgae": "x"}]}}),
        "spec.predictor.containers[0].imgae: unknown field",
        'unknown field "spec.predictor.containers[0].imgae"',
    ),
    "a transformer without containers": (
        service({"predictor": {"model": MODEL}, "transformer": {"minReplicas": 1}}),
        "spec.transformer: no implementation",
        "a transformer needs containers",
    ),
    "text for a number": (predictor(minReplicas="2"), "spec.predictor.minReplicas: Input should be a valid integer", "must be of type integer"),
    "a number too large": (predictor(timeout=2**31), "spec.predictor.timeout", "spec.predictor.timeout"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_parse_names_the_place_and_the_mistake(mistake: str) -> None:
    obj, words, _ = MISTAKES[mistake]
    with pytest.raises(InvalidObject) as caught:
        InferenceService.parse(obj)
    assert words in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_real_api_server_names_the_mistake_at_apply_time(cluster: httpx.Client, mistake: str) -> None:
    obj, _, words = MISTAKES[mistake]
    url = "/apis/serving.kserve.io/v1beta1/namespaces/default/inferenceservices?dryRun=All&fieldValidation=Strict"
    answer = cluster.post(url, json=obj)
    assert answer.status_code in (400, 422), answer.text
    assert words in answer.json()["message"]


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidObject) as caught:
        InferenceService.parse(predictor(minReplica=1, scaleMetric="qps"))
    assert {problem.path for problem in caught.value.problems} == {
        "spec.predictor.minReplica",
        "spec.predictor.scaleMetric",
    }


def test_the_error_names_kind_and_object() -> None:
    with pytest.raises(InvalidObject, match=r"^InferenceService iris: "):
        InferenceService.parse(service({"predictor": {}}))
