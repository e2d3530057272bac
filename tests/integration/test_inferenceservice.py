"""The InferenceService controller against a real API server: what it applies is accepted, and applied once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from tests.integration.world import eventually, install, node

from fairlead.controllers.autoscaler.agents import HttpAgents
from fairlead.controllers.autoscaler.scraping import HttpFetch
from fairlead.controllers.inferenceservice.gateways import Answer
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.wiring import inference_service_controller
from fairlead.kube.client import Client
from fairlead.kube.errors import ApiError
from fairlead.kube.events import Events
from fairlead.kube.manager import Manager
from fairlead.kube.objects import Key, Object
from fairlead.kube.resources import (
    DEPLOYMENTS,
    EVENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INFERENCE_SERVICES,
    SERVICES,
    Resource,
)


class NoGateways:
    async def ask(self, key: Key) -> Sequence[Answer]:
        return ()


class CountingClient(Client):
    """Remembers what was applied."""

    applied: list[str]

    async def apply(self, resource: Resource, obj: Mapping[str, Any], **options: Any) -> Object:
        self.applied.append(f"{resource.kind} {obj['metadata']['name']}")
        return await super().apply(resource, obj, **options)


@pytest.fixture
async def operator(client: Client, namespace: str) -> AsyncIterator[CountingClient]:
    """The controller at work in the test's namespace, with a node that makes every Deployment ready."""
    await install(client)
    counting = CountingClient(client._transport.connection)
    counting.applied = []
    manager = Manager(counting, address=("127.0.0.1", 0))
    settings = Settings(prune_grace=0.1)
    events = Events(counting, "fairlead-operator")
    controller, *_ = inference_service_controller(
        manager, counting, NoGateways(), events, settings, HttpAgents([]), HttpFetch(), namespace=namespace
    )
    manager.add(controller)
    tasks = [asyncio.create_task(manager.run()), asyncio.create_task(node(client, namespace))]
    yield counting
    manager.stop()
    await tasks[0]
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await events.close()
    await counting.close()


def isvc(namespace: str, uri: str, **predictor: Any) -> Object:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": uri, "resources": {"limits": {"cpu": "1000m"}}}
    transformer = {"containers": [{"image": "acme/tokens:1", "resources": {"requests": {"cpu": "0.5"}}}]}
    return {
        "metadata": {"name": "iris", "namespace": namespace, "labels": {"team": "a"}},
        "spec": {"predictor": {"model": model, **predictor}, "transformer": transformer},
    }


async def settled(client: Client, namespace: str, traffic: Mapping[str, int], seconds: float = 15) -> Object:
    """The service, once it is ready with this traffic and only these predictor workloads are left."""

    async def there() -> Object | bool:
        found = await client.get(INFERENCE_SERVICES, "iris", namespace)
        status = found.get("status", {})
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
        items = status.get("components", {}).get("predictor", {}).get("traffic", ())
        deployments = await client.list(DEPLOYMENTS, namespace, labels="component=predictor")
        done = (
            ready
            and {t["serviceName"]: t["percent"] for t in items} == traffic
            and {d["metadata"]["name"] for d in deployments.items} == traffic.keys()
            and status["observedGeneration"] == found["metadata"]["generation"]
        )
        return found if done else False

    found: Object = await eventually(there, seconds)
    return found


async def test_a_canarys_life_on_a_real_api_server(operator: CountingClient, namespace: str) -> None:
    async def apply(obj: Object) -> None:
        await super(CountingClient, operator).apply(INFERENCE_SERVICES, obj, field_manager="user")

    await apply(isvc(namespace, "file:///v1", minReplicas=2, maxReplicas=4, scaleMetric="cpu"))
    await settled(operator, namespace, {"iris-predictor": 100})
    hpa = await operator.get(HORIZONTAL_POD_AUTOSCALERS, "iris-predictor", namespace)
    assert hpa["spec"]["maxReplicas"] == 4

    await apply(isvc(namespace, "file:///v2", canaryTrafficPercent=20))
    await settled(operator, namespace, {"iris-predictor-00002": 20, "iris-predictor": 80})
    await apply(isvc(namespace, "file:///v2"))
    found = await settled(operator, namespace, {"iris-predictor-00002": 100})
    assert found["status"]["components"]["predictor"]["previousRolledoutRevision"] == "iris-predictor-00001"

    async def address_moved() -> bool:
        service = await operator.get(SERVICES, "iris-predictor", namespace)
        labels, selector = service["metadata"]["labels"], service["spec"]["selector"]
        return selector == {"app": "isvc.iris-predictor-00002"} and "fairlead.dev/workload" not in labels

    await eventually(address_moved)

    applied = len(operator.applied)
    await operator.patch(INFERENCE_SERVICES, "iris", {"spec": {"predictor": {"timeout": 30}}}, namespace)
    await settled(operator, namespace, {"iris-predictor-00002": 100})
    assert operator.applied[applied:] == ["Service iris-predictor-00002"], "what holds is not applied again"

    async def told() -> bool:
        events = (await operator.list(EVENTS, namespace)).items
        return {"RevisionCreated", "RolledOut", "Pruned", "Ready"} <= {event["reason"] for event in events}

    await eventually(told)


POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
BINDINGS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)


async def test_a_policy_that_denies_its_deployments_is_told_in_status_until_it_goes(
    operator: CountingClient, namespace: str
) -> None:
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    policy = {
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
            "validations": [{"expression": "false", "message": "each Deployment must name its cost centre"}],
        },
    }
    binding = {"metadata": {"name": namespace}, "spec": {"policyName": namespace, "validationActions": ["Deny"]}}
    await operator.create(POLICIES, policy)
    await operator.create(BINDINGS, binding)

    async def denied() -> bool:
        trial = {
            "metadata": {"generateName": "trial-", "namespace": namespace},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "trial"}},
                "template": {
                    "metadata": {"labels": {"app": "trial"}},
                    "spec": {"containers": [{"name": "c", "image": "c"}]},
                },
            },
        }
        try:
            made = await operator.create(DEPLOYMENTS, trial)
        except ApiError as error:
            return "cost centre" in error.message
        await operator.delete(DEPLOYMENTS, made["metadata"]["name"], namespace)
        return False

    await eventually(denied)  # an API server hears of its policies after a while
    service = isvc(namespace, "file:///v1")
    await super(CountingClient, operator).apply(INFERENCE_SERVICES, service, field_manager="user")

    async def told() -> bool:
        found = await operator.get(INFERENCE_SERVICES, "iris", namespace)
        failure = found.get("status", {}).get("modelStatus", {}).get("lastFailureInfo", {})
        return (
            failure.get("reason") == "InvalidPredictorSpec"
            and "each Deployment must name its cost centre" in failure["message"]
        )

    await eventually(told)
    await operator.delete(BINDINGS, namespace)
    await operator.delete(POLICIES, namespace)
    await settled(
        operator, namespace, {"iris-predictor": 100}, 180
    )  # the next try comes after as long as the last ones took
