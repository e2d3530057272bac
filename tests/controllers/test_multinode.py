"""workerSpec: what a head and its workers are made of, and how they come and go."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.controllers.harness import KEY, RUNTIME, Harness, isvc
from tests.controllers.test_pods import SETTINGS, source

from fairlead.api.inferenceservice import InferenceService
from fairlead.controllers.inferenceservice.multinode import group, pods
from fairlead.controllers.inferenceservice.notes import notes
from fairlead.controllers.inferenceservice.pods import digest, inputs, pod_template
from fairlead.kube.objects import Key, Object
from fairlead.kube.resources import CLUSTER_SERVING_RUNTIMES, CONTROLLER_REVISIONS, DEPLOYMENTS, SECRETS, SERVICES

OTHERS: Object = {
    **RUNTIME,
    "metadata": {"name": "vllm"},
    "spec": {
        **RUNTIME["spec"],
        "workerSpec": {
            "pipelineParallelSize": 2,
            "containers": [{"name": "worker-container", "image": "vllm", "command": ["ray", "start"]}],
        },
    },
}


@pytest.fixture
def harness() -> Harness:
    return Harness()


def spread(size: int = 3, uri: str = "v1", **worker: Any) -> Object:
    return isvc(uri, workerSpec={"pipelineParallelSize": size, **worker})


def stored(obj: Object, runtime: Object = RUNTIME) -> Any:
    made_from = source(obj, runtime=runtime)
    return group(made_from, pod_template(made_from, SETTINGS))


def environment(deployment: Object) -> dict[str, Any]:
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


async def test_a_head_its_workers_a_service_between_them_and_a_token(harness: Harness) -> None:
    harness.apply(spread(3))
    await harness.settle()
    deployments = harness.api.of(DEPLOYMENTS)
    assert {name: obj["spec"].get("replicas", 1) for name, obj in deployments.items()} == {
        "iris-predictor": 1,
        "iris-predictor-worker": 2,
    }
    between = harness.api.of(SERVICES)["iris-head-1"]["spec"]
    assert between["clusterIP"] == "None"
    assert between["publishNotReadyAddresses"]
    head = deployments["iris-predictor"]["spec"]["template"]["metadata"]["labels"]
    worker = deployments["iris-predictor-worker"]["spec"]["template"]["metadata"]["labels"]
    assert between["selector"].items() <= head.items()
    assert not between["selector"].items() <= worker.items()
    assert harness.ready == "True"


async def test_pods_are_told_of_their_group_as_kserve_tells_them(harness: Harness) -> None:
    harness.apply(spread(2))
    await harness.settle()
    deployments = harness.api.of(DEPLOYMENTS)
    head, worker = (environment(deployments[name]) for name in ("iris-predictor", "iris-predictor-worker"))
    assert {**head, **worker}.items() >= {
        "RAY_NODE_COUNT": "2",
        "PIPELINE_PARALLEL_SIZE": "2",
        "TENSOR_PARALLEL_SIZE": "1",
        "REQUEST_GPU_COUNT": "1",
        "HEAD_SVC": "iris-head-1",
        "ISVC_NAME": "iris",
    }.items()
    assert "HEAD_SVC" not in head
    secret = {"secretKeyRef": {"name": "iris-ray", "key": "token"}}
    assert head["RAY_AUTH_TOKEN"] == worker["RAY_AUTH_TOKEN"] == secret
    assert head["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}


async def test_pods_are_not_replaced_when_the_revision_comes_back_as_the_server_stores_it(harness: Harness) -> None:
    harness.apply(spread(2))
    await harness.settle()
    before = {name: obj["spec"]["template"] for name, obj in harness.api.of(DEPLOYMENTS).items()}
    for key, revision in list(harness.api.objects.items()):
        if key[0] == CONTROLLER_REVISIONS:
            harness.api.put(CONTROLLER_REVISIONS, json.loads(json.dumps(revision, sort_keys=True)))
    harness.restart_operator()
    await harness.settle()
    assert {name: obj["spec"]["template"] for name, obj in harness.api.of(DEPLOYMENTS).items()} == before


async def test_the_token_is_made_once_and_stays(harness: Harness) -> None:
    harness.apply(spread(2))
    await harness.settle()
    made = harness.api.of(SECRETS)["iris-ray"]["data"]["token"]
    assert len(base64.b64decode(made)) == 64
    harness.apply(spread(2, uri="v2"))
    harness.restart_operator()
    await harness.settle()
    assert harness.api.of(SECRETS)["iris-ray"]["data"]["token"] == made


async def test_the_workloads_service_leads_to_all_pods_where_all_serve(harness: Harness) -> None:
    harness.apply(spread(2))
    await harness.settle()
    selector = harness.api.of(SERVICES)["iris-predictor"]["spec"]["selector"]
    for deployment in harness.api.of(DEPLOYMENTS).values():
        assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


async def test_of_others_servers_only_the_head_takes_requests(harness: Harness) -> None:
    harness.api.put(CLUSTER_SERVING_RUNTIMES, OTHERS)
    service = isvc(workerSpec={})
    service["spec"]["predictor"]["model"]["runtime"] = "vllm"
    harness.apply(service)
    await harness.settle()
    worker = harness.api.of(DEPLOYMENTS)["iris-predictor-worker"]["spec"]["template"]
    selector = harness.api.of(SERVICES)["iris-predictor"]["spec"]["selector"]
    assert not selector.items() <= worker["metadata"]["labels"].items()
    assert worker["spec"]["containers"][0]["command"] == ["ray", "start"]


async def test_the_next_revisions_workers_join_the_next_revisions_head(harness: Harness) -> None:
    harness.apply(spread(2))
    await harness.settle()
    harness.apply(spread(2, uri="v2"))
    await harness.settle()
    worker = harness.api.of(DEPLOYMENTS)["iris-predictor-worker"]
    assert environment(worker)["HEAD_SVC"] == "iris-head-2"
    assert "iris-head-2" in harness.api.of(SERVICES)
    assert "iris-head-1" not in harness.api.of(SERVICES)


async def test_without_worker_spec_the_workers_go(harness: Harness) -> None:
    harness.apply(spread(2))
    await harness.settle()
    harness.apply(isvc("v1"))
    await harness.settle()
    assert set(harness.api.of(DEPLOYMENTS)) == {"iris-predictor"}
    assert set(harness.api.of(SERVICES)) == {"iris-predictor"}
    assert harness.api.of(SERVICES)["iris-predictor"]["spec"]["selector"] == {"app": "isvc.iris-predictor"}


async def test_a_canarys_workers_go_with_it(harness: Harness) -> None:
    harness.apply(spread(2))
    await harness.settle()
    harness.apply(isvc("v2", workerSpec={"pipelineParallelSize": 2}, canaryTrafficPercent=20))
    await harness.settle()
    assert len(harness.api.of(DEPLOYMENTS)) == 4
    harness.apply(spread(2))
    await harness.settle(rounds=80)
    assert set(harness.api.of(DEPLOYMENTS)) == {"iris-predictor", "iris-predictor-worker"}


async def test_there_is_one_head_whatever_the_replicas(harness: Harness) -> None:
    harness.apply(isvc("v1", workerSpec={"pipelineParallelSize": 2}, minReplicas=3, maxReplicas=5))
    await harness.settle()
    assert harness.api.of(DEPLOYMENTS)["iris-predictor"]["spec"].get("replicas", 1) == 1
    await harness.api.patch(
        DEPLOYMENTS, "iris-predictor", {"spec": {"replicas": 3}}, KEY.namespace, subresource="scale"
    )
    await harness.settle()
    assert harness.api.objects[DEPLOYMENTS, Key(KEY.namespace, "iris-predictor")]["spec"]["replicas"] == 1


def test_replicas_beside_a_worker_spec_are_named() -> None:
    parsed = InferenceService.parse(isvc("v1", workerSpec={"pipelineParallelSize": 2}, minReplicas=3))
    assert notes(parsed) == [
        "spec.predictor.minReplicas: as maxReplicas, has no effect with workerSpec: there is one head"
    ]
    assert notes(InferenceService.parse(spread(2))) == []


def test_what_the_worker_spec_says_of_its_pods_is_theirs_alone() -> None:
    resources = {"limits": {"nvidia.com/gpu": "1"}}
    worker = {"nodeSelector": {"gpu": "a"}, "containers": [{"name": "worker-container", "resources": resources}]}
    found = stored(spread(4, **worker))
    assert found["template"]["spec"]["nodeSelector"] == {"gpu": "a"}
    container = found["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == "fairlead/runtime-core:0.1.0"
    assert found["size"] == 4


def test_pods_with_several_gpus_are_fewer() -> None:
    worker = {"tensorParallelSize": 4, "containers": [{"resources": {"limits": {"nvidia.com/gpu": "4"}}}]}
    assert stored(spread(2, **worker))["size"] == 2


@given(parallel=st.integers(1, 64), gpus=st.integers(0, 16))
def test_there_are_gpus_for_all_parts_and_no_pod_more(parallel: int, gpus: int) -> None:
    size = pods(parallel, gpus)
    assert size * max(gpus, 1) >= parallel
    assert (size - 1) * max(gpus, 1) < parallel


def test_the_runtimes_worker_is_part_of_what_makes_a_revision() -> None:
    changed = {
        **OTHERS,
        "spec": {**OTHERS["spec"], "workerSpec": {**OTHERS["spec"]["workerSpec"], "tensorParallelSize": 2}},
    }
    obj = isvc(workerSpec={})
    assert digest(inputs(source(obj, runtime=OTHERS), SETTINGS)) != digest(
        inputs(source(obj, runtime=changed), SETTINGS)
    )
    plain = isvc()
    assert digest(inputs(source(plain, runtime=OTHERS), SETTINGS)) == digest(
        inputs(source(plain, runtime=changed), SETTINGS)
    )
