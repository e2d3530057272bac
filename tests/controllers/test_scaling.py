"""Who scales a workload, and by what: demand, an HPA, KEDA, or somebody else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.controllers.harness import KEY, Harness, isvc

from fairlead.api.inferenceservice import InferenceService
from fairlead.autoscaling import Metric, Rules, SpeedLimit
from fairlead.controllers.inferenceservice.keda import SCALED_OBJECTS
from fairlead.controllers.inferenceservice.notes import notes
from fairlead.controllers.inferenceservice.scaling import hpa_target, policy, replicas, scaled_by_demand
from fairlead.kube.objects import Object
from fairlead.kube.resources import INFERENCE_SERVICES

CLASS = "serving.kserve.io/autoscalerClass"
KEDA_API = "/apis/keda.sh/v1alpha1"
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}
MEMORY = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "2Gi"}}}
QUEUE = {
    "type": "PodMetric",
    "podmetric": {"metric": {"metricNames": ["vllm:num_requests_waiting"]}, "target": {"type": "Value", "value": "4"}},
}
QUERY = {
    "type": "External",
    "external": {
        "metric": {"backend": "prometheus", "serverAddress": "http://p:9090", "query": "sum(q)", "namespace": "obs"},
        "target": {"type": "Value", "value": "12.5"},
        "authenticationRef": {"authModes": "bearer", "authenticationRef": {"name": "token"}},
    },
}
BEHAVIOR = {
    "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 30}], "selectPolicy": "Min"},
    "scaleDown": {"stabilizationWindowSeconds": 120, "tolerance": "0.1"},
}


def service(annotations: dict[str, str] | None = None, **predictor: Any) -> InferenceService:
    obj = isvc(**{"minReplicas": 1, "maxReplicas": 5, **predictor})
    obj["metadata"]["annotations"] = annotations or {}
    return InferenceService.parse(obj)


@pytest.mark.parametrize(
    ("asked", "bounds"),
    [
        ({}, None),
        ({"minReplicas": 3}, None),
        ({"minReplicas": 2, "maxReplicas": 2, "scaleTarget": 1}, None),
        ({"scaleTarget": 1, "scaleMetric": "concurrency"}, (1, 0)),
        ({"scaleTarget": 1}, (1, 0)),
        ({"minReplicas": 2, "scaleMetric": "rps"}, (2, 0)),
        ({"autoScaling": {"metrics": [QUEUE]}}, (1, 0)),
        ({"minReplicas": 0}, (0, 0)),
        ({"minReplicas": 0, "maxReplicas": 1}, (0, 1)),
        ({"maxReplicas": 0}, (1, 0)),
        ({"minReplicas": 2, "maxReplicas": 4}, (2, 4)),
    ],
    ids=str,
)
def test_without_a_maximum_what_asks_for_demand_has_none(asked: Object, bounds: tuple[int, int] | None) -> None:
    found = InferenceService.parse(isvc(**asked))
    by = policy(found, found.spec.predictor, least=asked.get("minReplicas", 1), proven=True)
    assert (None if by is None else (by.min_replicas, by.max_replicas)) == bounds


def test_delays_grow_with_what_a_start_takes_unless_their_owner_has_set_them() -> None:
    default = policy(service(), service().spec.predictor, least=0, proven=True)
    assert default is not None
    assert (default.delay_to_zero(60), default.patience(180, 0)) == (300, 360)
    given = service({"fairlead.dev/scale-to-zero-delay": "10s", "fairlead.dev/activation-timeout": "20s"})
    own = policy(given, given.spec.predictor, least=0, proven=True)
    assert own is not None
    assert (own.delay_to_zero(60), own.patience(180, 3)) == (10, 20)


@pytest.mark.parametrize(
    ("now", "wanted"),
    [(None, 3), (1, 3), (3, None), (5, None), (0, None)],
    ids=["new", "fewer", "least", "more", "off"],
)
def test_an_hpa_owns_the_replicas_but_does_not_have_to_bring_them_up_to_its_least(
    now: int | None, wanted: int | None
) -> None:
    found = service(minReplicas=3, scaleMetric="cpu")
    assert replicas(found, found.spec.predictor, least=3, now=now, scaled_by=3) == wanted


def test_cpu_and_memory_with_their_behavior_are_an_hpas() -> None:
    found = service(autoScaling={"metrics": [CPU, MEMORY], "behavior": BEHAVIOR})
    target = hpa_target(found, found.spec.predictor)
    assert target is not None
    assert target.metrics == (CPU, MEMORY)
    assert target.behavior == BEHAVIOR
    assert (target.min_replicas, target.max_replicas) == (1, 5)
    assert not scaled_by_demand(found, found.spec.predictor)


def test_cpu_without_a_target_is_kept_at_80_percent() -> None:
    found = service(autoScaling={"metrics": [{"type": "Resource", "resource": {"name": "cpu"}}]})
    target = hpa_target(found, found.spec.predictor)
    assert target is not None
    assert target.metrics[0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}


def test_a_metric_of_the_pods_is_a_policy_of_its_own_with_behavior_for_each_direction() -> None:
    found = service(autoScaling={"metrics": [QUEUE], "behavior": BEHAVIOR}, minReplicas=0)
    by = policy(found, found.spec.predictor, least=0, proven=True)
    assert by is not None
    assert (by.metric, by.custom, by.target) == (Metric.CUSTOM, "vllm:num_requests_waiting", 4.0)
    assert by.behavior.up == Rules((SpeedLimit("Pods", 2, 30),), "Min")
    assert by.behavior.down == Rules((), "Max", 120.0, 0.1)
    assert notes(found) == []


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ({"type": "Object"}, "its type is 'Object'"),
        ({"type": "PodMetric", "podmetric": {"metric": {}}}, "metricNames"),
        ({"type": "Resource", "resource": {"name": "gpu"}}, "cpu or memory"),
        (QUERY, "autoscalerClass: keda"),
    ],
)
def test_a_metric_that_scales_nothing_is_named(metric: Object, words: str) -> None:
    assert words in notes(service(autoScaling={"metrics": [metric]}))[0]


def test_a_limit_of_the_behavior_that_cannot_be_read_is_named() -> None:
    found = notes(service(autoScaling={"behavior": {"scaleUp": {"policies": [{"type": "Pods"}]}, "sideways": {}}}))
    assert [note.split(":")[0] for note in found] == [
        "spec.predictor.autoScaling.behavior.sideways",
        "spec.predictor.autoScaling.behavior.scaleUp.policies[0]",
    ]


@pytest.mark.parametrize(
    ("warm", "most", "words"), [("one", 5, "no number"), ("1", 1, "demand scales nothing"), ("1", 5, None)]
)
def test_a_spare_that_cannot_be_had_is_named(warm: str, most: int, words: str | None) -> None:
    found = service({"fairlead.dev/warm-replicas": warm}, maxReplicas=most)
    told = notes(found)
    assert (words is None and told == []) or (words is not None and words in told[0])
    by = policy(found, found.spec.predictor, least=1, proven=True)
    assert by is None or by.warm_replicas == (0 if warm == "one" else 1)


@pytest.mark.parametrize("autoscaler", ["none", "external", "keda"])
def test_who_is_told_to_keep_its_hands_off_does(autoscaler: str) -> None:
    found = service({CLASS: autoscaler}, autoScaling={"metrics": [CPU]}, minReplicas=0)
    assert hpa_target(found, found.spec.predictor) is None
    assert policy(found, found.spec.predictor, least=1, proven=True) is None


async def with_keda(metrics: list[Object], *, installed: bool = True, **predictor: Any) -> Harness:
    world = Harness()
    if installed:
        world.api.served.add(KEDA_API)
    obj = isvc(maxReplicas=5, autoScaling={"metrics": metrics}, **predictor)
    obj["metadata"]["annotations"] = {CLASS: "keda"}
    world.apply(obj)
    await world.settle()
    return world


async def test_keda_gets_a_scaled_object_with_the_workloads_name() -> None:
    world = await with_keda([CPU, QUERY, QUEUE], minReplicas=0)
    [scaled] = world.api.of(SCALED_OBJECTS).values()
    assert scaled["metadata"]["name"] == "iris-predictor"
    assert scaled["metadata"]["ownerReferences"][0]["kind"] == "InferenceService"
    spec = scaled["spec"]
    assert (spec["scaleTargetRef"], spec["minReplicaCount"], spec["maxReplicaCount"]) == (
        {"name": "iris-predictor"},
        0,
        5,
    )
    cpu, query, queue = spec["triggers"]
    assert cpu == {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}}
    assert query["metadata"] == {
        "serverAddress": "http://p:9090", "query": "sum(q)", "threshold": "12.5", "namespace": "obs", "authModes": "bearer"
    }  # fmt: skip
    assert query["authenticationRef"] == {"name": "token"}
    assert queue["metadata"]["metricQuery"] == (
        f'sum(vllm:num_requests_waiting{{namespace="{KEY.namespace}", deployment="iris-predictor"}})'
    )


async def test_where_keda_is_not_installed_it_says_so_and_keeps_the_pods() -> None:
    world = await with_keda([QUERY], installed=False)
    conditions = world.api.objects[INFERENCE_SERVICES, KEY]["status"]["conditions"]
    [told] = [condition for condition in conditions if condition["type"] == "FieldsNotActedOn"]
    assert "KEDA is not installed" in told["message"]
    assert world.api.of(SCALED_OBJECTS) == {}


async def test_a_scaled_object_goes_when_keda_is_not_asked_for_any_more() -> None:
    world = await with_keda([CPU])
    obj = isvc(maxReplicas=5)
    world.apply(obj)
    await world.settle()
    assert world.api.of(SCALED_OBJECTS) == {}


async def test_a_scaled_object_that_is_right_is_not_written_again() -> None:
    world = await with_keda([CPU])
    version = next(iter(world.api.of(SCALED_OBJECTS).values()))["metadata"]["resourceVersion"]
    await world.settle()
    assert next(iter(world.api.of(SCALED_OBJECTS).values()))["metadata"]["resourceVersion"] == version
