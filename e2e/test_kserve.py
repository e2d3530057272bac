"""What KServe's own end-to-end tests ask of an InferenceService, asked in their manner: by its SDK, with its model addresses (told by a
mirror), its runtimes' names, and as little memory as they give a model."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    KServeClient,
    RESTConfig,
    V1beta1CanarySpec,
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1ModelFormat,
    V1beta1ModelSpec,
    V1beta1PredictorSpec,
    V1beta1SKLearnSpec,
)
from kubernetes.client import AppsV1Api, CoreV1Api, V1Container, V1ContainerPort, V1ObjectMeta, V1ResourceRequirements
from kubernetes.client.rest import ApiException

from e2e.cluster import KSERVES_IRIS, KSERVES_OTHER_IRIS, PATIENCE, Cluster

pytestmark = pytest.mark.filterwarnings("ignore")

FLOWERS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
SMALL = V1ResourceRequirements(requests={"cpu": "50m", "memory": "128Mi"}, limits={"cpu": "1", "memory": "256Mi"})
STANDARD = {"serving.kserve.io/deploymentMode": "RawDeployment"}


class Services:
    """KServe's client in a test's namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.client = KServeClient(config_file=str(cluster.kubeconfig))

    def service(self, name: str, predictor: V1beta1PredictorSpec, **more: Any) -> V1beta1InferenceService:
        canary = more.pop("canary", None)
        return V1beta1InferenceService(
            api_version="serving.kserve.io/v1beta1",
            kind="InferenceService",
            metadata=V1ObjectMeta(name=name, namespace=self.namespace, **more),
            spec=V1beta1InferenceServiceSpec(predictor=predictor, canary=canary),
        )

    def create(self, name: str, predictor: V1beta1PredictorSpec, **more: Any) -> dict[str, Any]:
        self.client.create(self.service(name, predictor, **more))
        self.wait(name)
        return self.get(name)

    def patch(self, name: str, predictor: V1beta1PredictorSpec, **more: Any) -> None:
        patched = self.client.patch(name, self.service(name, predictor, **more), namespace=self.namespace)
        self.wait(name, patched["metadata"]["generation"])

    def wait(self, name: str, generation: int | None = None) -> None:
        self.client.wait_isvc_ready(
            name,
            namespace=self.namespace,
            timeout_seconds=int(PATIENCE),
            polling_interval=1,
            expected_generation=generation,
        )

    def get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(name, namespace=self.namespace)
        return found

    def condition(self, name: str, kind: str) -> dict[str, Any] | None:
        conditions = self.get(name)["status"]["conditions"]
        return next((condition for condition in conditions if condition["type"] == kind), None)

    def host(self, name: str) -> str:
        return urlsplit(self.get(name)["status"]["url"]).netloc

    async def predict(self, name: str, body: Any, protocol: str = "v1", model: str | None = None) -> Any:
        client = InferenceRESTClient(config=RESTConfig(protocol=protocol, timeout=60))
        headers = {"Host": self.host(name), "Content-Type": "application/json"}
        try:
            return await client.infer(self.cluster.gateway, body, model_name=model or name, headers=headers)
        finally:
            await client.close()


@pytest.fixture
def services(cluster: Cluster, namespace: str) -> Services:
    return Services(cluster, namespace)


def model(name: str = "sklearn", uri: str = KSERVES_IRIS, **fields: Any) -> V1beta1ModelSpec:
    return V1beta1ModelSpec(
        model_format=V1beta1ModelFormat(name=name), storage_uri=uri, **{"resources": SMALL, **fields}
    )


def predictor(uri: str = KSERVES_IRIS, name: str | None = None, least: int | None = 1) -> V1beta1PredictorSpec:
    return V1beta1PredictorSpec(min_replicas=least, name=name, model=model(uri=uri))


def eventually(holds: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not {what} after {timeout:g} s"
        time.sleep(0.2)


def deployment(name: str, namespace: str) -> Any | None:
    try:
        return AppsV1Api().read_namespaced_deployment(name, namespace)
    except ApiException as error:
        if error.status != 404:
            raise
        return None


def pods(name: str, namespace: str) -> set[str]:
    """The uids of the Deployment's pods, found by its own selector."""
    found = deployment(name, namespace)
    assert found is not None, f"no Deployment {name}"
    selector = ",".join(f"{key}={value}" for key, value in found.spec.selector.match_labels.items())
    return {pod.metadata.uid for pod in CoreV1Api().list_namespaced_pod(namespace, label_selector=selector).items}


async def test_a_framework_field_serves_v1_with_256_mi(services: Services) -> None:
    told = {
        "autoscaling.knative.dev/min-scale": "1",
        "autoscaling.knative.dev/max-scale": "2",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    }
    sklearn = V1beta1SKLearnSpec(storage_uri=KSERVES_IRIS, resources=SMALL)
    spec = V1beta1PredictorSpec(min_replicas=1, sklearn=sklearn, annotations=told)
    services.create("raw-sklearn", spec, annotations={**STANDARD, **told})
    assert (await services.predict("raw-sklearn", {"instances": FLOWERS}))["predictions"] == [1, 1]
    selector = "serving.kserve.io/inferenceservice=raw-sklearn"
    found = services.client.core_api.list_namespaced_pod(services.namespace, label_selector=selector).items
    assert len(found) == 1
    assert not told.keys() & (found[0].metadata.annotations or {}).keys()
    services.client.delete("raw-sklearn", namespace=services.namespace)


async def test_kserves_runtime_names_serve_v2_with_and_without_binary_output(services: Services) -> None:
    services.create("by-name", V1beta1PredictorSpec(model=model(runtime="kserve-mlserver", protocol_version="v2")))
    tensor = {"name": "input-0", "shape": [2, 4], "datatype": "FP32", "data": FLOWERS}
    asked = {"inputs": [tensor]}
    for body in (asked, {**asked, "parameters": {"binary_data_output": True}}):
        assert (await services.predict("by-name", body, "v2")).outputs[0].data == [1, 1]


async def test_a_model_of_another_name_answers_grpc(services: Services) -> None:
    fields = {
        "runtime": "kserve-sklearnserver",
        "args": ["--model_name", "flowers"],
        "ports": [V1ContainerPort(container_port=8081, name="h2c", protocol="TCP")],
    }
    services.create("renamed", V1beta1PredictorSpec(model=model(**fields)))
    authority = [("grpc.ssl_target_name_override", services.host("renamed"))]
    client = InferenceGRPCClient(urlsplit(services.cluster.gateway).netloc, channel_args=authority, timeout=60)
    tensor = InferInput(name="input-0", shape=[2, 4], datatype="FP32", data=FLOWERS[0] + FLOWERS[1])
    answer = await client.infer(InferRequest(model_name="flowers", infer_inputs=[tensor]))
    await client.close()
    assert answer.outputs[0].data == [1, 1]


def test_cpu_makes_a_horizontal_pod_autoscaler_and_an_update_keeps_the_replicas(services: Services) -> None:
    scaled = {"min_replicas": 2, "scale_metric": "cpu", "scale_target": 50}
    labels = {"serving.kserve.io/test": "env-update"}

    def with_env(*names: str) -> V1beta1PredictorSpec:
        env = [{"name": name, "value": name.lower()} for name in names]
        return V1beta1PredictorSpec(**scaled, model=model(env=env))

    services.create("scaled", with_env("ONE", "TWO"), annotations=STANDARD, labels=labels)
    hpas = services.client.api_instance.list_namespaced_custom_object(
        group="autoscaling",
        version="v2",
        namespace=services.namespace,
        plural="horizontalpodautoscalers",
        label_selector="serving.kserve.io/inferenceservice=scaled",
    )["items"]
    assert [hpa["metadata"]["name"] for hpa in hpas] == ["scaled-predictor"]
    assert hpas[0]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50

    services.patch("scaled", with_env("ONE"), annotations=STANDARD, labels=labels)
    found = AppsV1Api().list_namespaced_deployment(
        services.namespace, label_selector="serving.kserve.io/test=env-update"
    )
    assert [item.spec.replicas for item in found.items] == [2]
    env = {variable.name for variable in found.items[0].spec.template.spec.containers[0].env}
    assert "ONE" in env
    assert "TWO" not in env


def test_a_scheduler_and_a_sidecar_of_the_users_are_the_pods(services: Services) -> None:
    sidecar = V1Container(
        name="agent",
        image="python:3.11-slim",
        command=["sh", "-c", 'exec python -m http.server 9000 --bind "${HOST:-0.0.0.0}" --directory /tmp'],
        resources=SMALL,
    )
    services.create(
        "accompanied",
        V1beta1PredictorSpec(model=model(), containers=[sidecar], scheduler_name="default-scheduler"),
        annotations={"serving.kserve.io/autoscalerClass": "none"},
    )
    found = deployment("accompanied-predictor", services.namespace)
    assert found is not None
    assert [container.name for container in found.spec.template.spec.containers] == ["kserve-container", "agent"]
    assert found.spec.template.spec.scheduler_name == "default-scheduler"


class Canaried:
    """A service with 20 % for a canary called v2, there from the first create on."""

    def __init__(self, services: Services) -> None:
        self.services, self.name = services, "flowers"
        self.stable, self.canary = f"{self.name}-predictor", f"{self.name}-v2-predictor"
        self.annotations = {"serving.kserve.io/deploymentMode": "Standard", "serving.kserve.io/autoscalerClass": "none"}
        self.entries = [
            V1beta1CanarySpec(traffic_percent=20, predictor=predictor(KSERVES_OTHER_IRIS, "v2", least=None))
        ]
        services.create(self.name, predictor(), annotations=self.annotations, canary=self.entries)
        eventually(lambda: self.reason() == "AllCanariesReady", "said to have all canaries ready")

    def reason(self) -> str | None:
        condition = self.services.condition(self.name, "CanaryPredictorReady")
        return None if condition is None else condition.get("reason")

    def deployed(self) -> list[str]:
        namespace = self.services.namespace
        return [name for name in (self.stable, self.canary) if deployment(name, namespace) is not None]


@pytest.fixture
def canaried(services: Services) -> Canaried:
    return Canaried(services)


def test_a_canary_that_is_there_from_the_start_is_deployed_beside_the_stable_one(canaried: Canaried) -> None:
    assert canaried.deployed() == [canaried.stable, canaried.canary]
    status = canaried.services.get(canaried.name)["status"]
    assert status["canaryStatuses"][0]["name"] == "v2"
    traffic = status["components"]["predictor"]["traffic"]
    assert {item["serviceName"]: item["percent"] for item in traffic} == {canaried.stable: 80, canaried.canary: 20}


def test_a_canary_is_promoted_by_its_name_and_its_pods_stay(canaried: Canaried) -> None:
    services, before = canaried.services, pods(canaried.canary, canaried.services.namespace)
    assert before
    promoted = predictor(KSERVES_OTHER_IRIS, "v2")
    services.patch(canaried.name, promoted, annotations=canaried.annotations, canary=[])
    eventually(lambda: canaried.deployed() == [canaried.canary], "left with the canary's Deployment")
    assert before <= pods(canaried.canary, services.namespace)


def test_a_canary_that_is_dropped_leaves_nothing(canaried: Canaried) -> None:
    canaried.services.patch(canaried.name, predictor(), annotations=canaried.annotations, canary=[])
    eventually(lambda: canaried.deployed() == [canaried.stable], "left with the stable Deployment")
    eventually(lambda: canaried.reason() is None, "said to have no canaries")


def test_a_service_that_is_stopped_says_so_of_its_canaries_too(canaried: Canaried) -> None:
    stopped = canaried.services.service(
        canaried.name, predictor(), annotations={"serving.kserve.io/stop": "true"}, canary=canaried.entries
    )
    canaried.services.client.patch(canaried.name, stopped, namespace=canaried.services.namespace)
    eventually(lambda: canaried.deployed() == [], "left without Deployments")
    eventually(lambda: canaried.reason() == "Stopped", "said to be stopped")
