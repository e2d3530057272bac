"""HPAs and ScaledObjects on a real API server: what KServe's autoScaling becomes is what these kinds take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.integration.test_inferenceservice import NoGateways
from tests.integration.world import eventually, install, node

from fairlead.api import names
from fairlead.controllers.autoscaler.agents import HttpAgents
from fairlead.controllers.autoscaler.scraping import HttpFetch
from fairlead.controllers.inferenceservice.keda import SCALED_OBJECTS
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.wiring import inference_service_controller
from fairlead.kube.client import Client
from fairlead.kube.errors import NotFound
from fairlead.kube.events import Events
from fairlead.kube.manager import Manager
from fairlead.kube.objects import Object
from fairlead.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, HORIZONTAL_POD_AUTOSCALERS, INFERENCE_SERVICES

STRING, NUMBER = {"type": "string"}, {"type": "integer", "format": "int32"}
TRIGGER = {
    "type": "object",
    "required": ["metadata", "type"],
    "properties": {
        "type": STRING,
        "metricType": STRING,
        "metadata": {"type": "object", "additionalProperties": STRING},
        "authenticationRef": {"type": "object", "required": ["name"], "properties": {"name": STRING}},
    },
}
SPEC = {
    "type": "object",
    "required": ["scaleTargetRef", "triggers"],
    "properties": {
        "scaleTargetRef": {"type": "object", "required": ["name"], "properties": {"name": STRING}},
        "minReplicaCount": NUMBER,
        "maxReplicaCount": NUMBER,
        "pollingInterval": NUMBER,
        "cooldownPeriod": NUMBER,
        "triggers": {"type": "array", "items": TRIGGER},
        "advanced": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
SCALED_OBJECT_CRD = {
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"plural": "scaledobjects", "singular": "scaledobject", "kind": "ScaledObject", "listKind": "SOList"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": SPEC}}},
            }
        ],
    },
}
"""The part of KEDA's own that a ScaledObject of ours is made of; anything else in it would be refused."""


@pytest.fixture
async def keda(client: Client) -> AsyncIterator[None]:
    await client.create(CUSTOM_RESOURCE_DEFINITIONS, SCALED_OBJECT_CRD)

    async def served() -> bool:
        try:
            await client.list(SCALED_OBJECTS, "default")
        except NotFound:
            return False
        return True

    await eventually(served)
    yield
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "scaledobjects.keda.sh")


@pytest.fixture
async def operator(client: Client, namespace: str) -> AsyncIterator[None]:
    await install(client)
    manager = Manager(client, address=("127.0.0.1", 0))
    events, fetch = Events(client, "fairlead-operator"), HttpFetch()
    controller, *_ = inference_service_controller(
        manager, client, NoGateways(), events, Settings(), HttpAgents([]), fetch, namespace=namespace
    )
    manager.add(controller)
    tasks = [asyncio.create_task(manager.run()), asyncio.create_task(node(client, namespace))]
    yield
    manager.stop()
    await tasks[0]
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await events.close()


def service(namespace: str, annotations: dict[str, str] | None = None, **predictor: Any) -> Object:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///v1"}
    metadata = {"name": "iris", "namespace": namespace, "annotations": annotations or {}}
    return {"metadata": metadata, "spec": {"predictor": {"model": model, **predictor}}}


async def test_an_hpa_gets_several_metrics_and_a_behavior(client: Client, namespace: str, operator: None) -> None:
    metrics = [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "2Gi"}}},
    ]
    down = {"stabilizationWindowSeconds": 90, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    scaling = {"metrics": metrics, "behavior": {"scaleDown": down}}
    await client.apply(INFERENCE_SERVICES, service(namespace, autoScaling=scaling, maxReplicas=5), field_manager="user")

    async def there() -> Object | bool:
        try:
            return await client.get(HORIZONTAL_POD_AUTOSCALERS, "iris-predictor", namespace)
        except NotFound:
            return False

    hpa = (await eventually(there))["spec"]
    assert [metric["resource"]["name"] for metric in hpa["metrics"]] == ["cpu", "memory"]
    assert hpa["metrics"][1]["resource"]["target"] == {"type": "AverageValue", "averageValue": "2Gi"}
    assert hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 90


async def test_keda_gets_a_scaled_object_and_loses_it_again(
    client: Client, namespace: str, keda: None, operator: None
) -> None:
    query = {
        "metric": {"backend": "prometheus", "serverAddress": "http://p:9090", "query": "sum(q)"},
        "target": {"type": "Value", "value": "4"},
    }
    scaling = {"metrics": [{"type": "External", "external": query}], "keda": {"pollingInterval": 15}}
    asked = service(namespace, {names.AUTOSCALER_CLASS: "keda"}, autoScaling=scaling, minReplicas=0, maxReplicas=5)
    await client.apply(INFERENCE_SERVICES, asked, field_manager="user")

    async def there() -> Object | bool:
        try:
            return await client.get(SCALED_OBJECTS, "iris-predictor", namespace)
        except NotFound:
            return False

    spec = (await eventually(there))["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["pollingInterval"]) == (0, 5, 15)
    assert spec["triggers"][0]["metadata"]["threshold"] == "4"

    await client.apply(INFERENCE_SERVICES, service(namespace, maxReplicas=5), field_manager="user")

    async def gone() -> bool:
        return await there() is False

    await eventually(gone)
