"""The chart's roles against a real API server: the operator and the agents get by with them, and nothing is granted that nobody uses."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.integration.conftest import SERVICE_ACCOUNTS, ApiServer
from tests.integration.operator_process import OperatorProcess, operator_process, rendered
from tests.integration.world import eventually, install, node

from fairlead.api import names
from fairlead.gateway.catalogue import Catalogue
from fairlead.kube.client import Client
from fairlead.kube.conditions import is_true
from fairlead.kube.errors import AlreadyExists
from fairlead.kube.objects import Object
from fairlead.kube.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    EVENTS,
    INFERENCE_SERVICES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)
from fairlead.kube.resources import SERVICE_ACCOUNTS as ACCOUNTS

RBAC = {
    kind: Resource(
        "rbac.authorization.k8s.io", "v1", f"{kind.lower()}s", kind, namespaced=not kind.startswith("Cluster")
    )
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
}
pytestmark = [
    pytest.mark.skipif(shutil.which("helm") is None, reason="needs helm on PATH"),
    pytest.mark.timeout(300),
]


class Right(NamedTuple):
    group: str
    resource: str
    """With its subresource, as roles spell it."""
    verb: str


NEWEST_KIND = "clusterstoragecontainers.serving.kserve.io"
UNSEEN = {
    # Wanted by the admission plugin OwnerReferencesPermissionEnforcement, which OpenShift has on: it makes no request.
    Right("serving.kserve.io", "inferenceservices/finalizers", "update"),
}


@pytest.fixture(scope="module")
def chart() -> list[Object]:
    return rendered()


@pytest.fixture
async def roles(client: Client, chart: list[Object]) -> None:
    """The chart's roles, bound to its service accounts."""
    for namespace in ("fairlead-system", "kserve"):
        with suppress(AlreadyExists):
            await client.create(NAMESPACES, {"metadata": {"name": namespace}})
    for obj in chart:
        if obj["kind"] in RBAC:
            await client.apply(RBAC[obj["kind"]], obj, field_manager="helm")
        if obj["kind"] == "ConfigMap" and obj["metadata"]["name"] == "inferenceservice-config":
            await client.apply(CONFIG_MAPS, obj, field_manager="helm")


async def test_the_operator_gets_by_with_its_rights_and_uses_all_of_them(
    client: Client, namespace: str, kube_apiserver: ApiServer, roles: None, chart: list[Object], tmp_path: Path
) -> None:
    await install(client)
    # As after an upgrade to a version with one kind more: Helm does not install that.
    await client.delete(CUSTOM_RESOURCE_DEFINITIONS, NEWEST_KIND)
    await _gone(client, CUSTOM_RESOURCE_DEFINITIONS, None, NEWEST_KIND)
    account = kube_apiserver.accounts["fairlead-operator"]
    with operator_process(account, tmp_path, chart) as operator:
        async with _node(client, namespace):
            await _all_that_an_operator_does(client, namespace, operator)
    asked = list(_asked(kube_apiserver.audit_log, "fairlead-operator"))
    assert _refused(asked) == set(), operator.log
    assert _unused(chart, "fairlead-operator", asked) == []


async def test_the_agents_get_by_with_their_rights_and_use_all_of_them(
    client: Client, kube_apiserver: ApiServer, roles: None, chart: list[Object]
) -> None:
    await install(client)
    async with await Client.connect(kube_apiserver.accounts["fairlead-gateway"]) as agent:
        catalogue = Catalogue(agent, "example.com")
        tasks = [asyncio.create_task(informer.run()) for informer in catalogue.informers]

        async def watching() -> bool:
            asked = list(_asked(kube_apiserver.audit_log, "fairlead-gateway"))
            return catalogue.synced and len(_used(asked)) >= 2 * len(tasks)

        await eventually(watching)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    asked = list(_asked(kube_apiserver.audit_log, "fairlead-gateway"))
    assert _refused(asked) == set()
    assert _unused(chart, "fairlead-gateway", asked) == []


# --- A life that needs every right --------------------------------------------------------------------------------


async def _all_that_an_operator_does(client: Client, namespace: str, operator: OperatorProcess) -> None:
    await client.create(SECRETS, {"metadata": {"name": "s3", "namespace": namespace}})
    account = {"metadata": {"name": "models", "namespace": namespace}, "secrets": [{"name": "s3"}]}
    await client.create(ACCOUNTS, account)
    await _apply(client, namespace, "v0", serviceAccountName="models", maxReplicas=4, scaleMetric="cpu")
    await _ready(client, namespace, operator)
    # No HPA any more, and more revisions than are kept.
    for number in range(1, 12):
        await _apply(client, namespace, f"v{number}")
        await _ready(client, namespace, operator)
    await _crash(client, namespace)
    # A canary's workload replaces the first one.
    await _apply(client, namespace, "v12", canaryTrafficPercent=50)
    await _ready(client, namespace, operator)
    await _apply(client, namespace, "v12")
    await _gone(client, DEPLOYMENTS, namespace, "iris-predictor")
    # Stopped: Services go, too. Started again under another minimum: scaled, and what was said before is said again.
    stop = {"metadata": {"annotations": {names.STOP: "true"}}}
    await client.patch(INFERENCE_SERVICES, "iris", stop, namespace)
    await _gone(client, SERVICES, namespace, "iris-predictor")
    await client.patch(INFERENCE_SERVICES, "iris", {"metadata": {"annotations": {names.STOP: None}}}, namespace)
    await _apply(client, namespace, "v12", minReplicas=2)
    await _ready(client, namespace, operator)
    # Pods that make one Ray share a Secret.
    await _apply(client, namespace, "v13", workerSpec={"pipelineParallelSize": 2})
    await _ready(client, namespace, operator)

    async def counted() -> bool:
        return any(event.get("count", 1) > 1 for event in (await client.list(EVENTS, namespace)).items)

    await eventually(counted)
    # A Ray of two pods has a token.
    await _apply(client, namespace, "v0", name="large", format="python", workerSpec={"pipelineParallelSize": 2})

    async def token() -> bool:
        return "large-ray" in {secret["metadata"]["name"] for secret in (await client.list(SECRETS, namespace)).items}

    await eventually(token)


async def _apply(
    client: Client, namespace: str, version: str, *, name: str = "iris", format: str = "sklearn", **predictor: Any
) -> None:
    model = {"modelFormat": {"name": format}, "storageUri": f"s3://models/{version}"}
    isvc = {"metadata": {"name": name, "namespace": namespace}, "spec": {"predictor": {"model": model, **predictor}}}
    await client.apply(INFERENCE_SERVICES, isvc, field_manager="user")


async def _ready(client: Client, namespace: str, operator: OperatorProcess) -> None:
    async def ready() -> bool:
        assert operator.running, operator.log
        found = await client.get(INFERENCE_SERVICES, "iris", namespace)
        status = found.get("status", {})
        spoken_of = status.get("observedGeneration") == found["metadata"]["generation"]
        return spoken_of and is_true(status.get("conditions", ()), "Ready")

    await eventually(ready, 60)


async def _gone(client: Client, resource: Resource, namespace: str | None, name: str) -> None:
    async def gone() -> bool:
        return name not in {obj["metadata"]["name"] for obj in (await client.list(resource, namespace)).items}

    await eventually(gone, 60)


async def _crash(client: Client, namespace: str) -> None:
    """A pod of the service that has ended without a word: the operator looks into its log."""
    deployment = await client.get(DEPLOYMENTS, "iris-predictor", namespace)
    spec = {"containers": [{"name": names.PREDICTOR_CONTAINER, "image": "example/model"}]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    await client.create(PODS, {"metadata": {"name": "crashed", "namespace": namespace, "labels": labels}, "spec": spec})
    ended = {"name": names.PREDICTOR_CONTAINER, "image": "example/model", "imageID": "", "ready": False}
    ended |= {"restartCount": 1, "state": {"terminated": {"exitCode": 1}}}
    await client.patch(PODS, "crashed", {"status": {"containerStatuses": [ended]}}, namespace, subresource="status")

    async def told() -> bool:
        status = (await client.get(INFERENCE_SERVICES, "iris", namespace))["status"]
        return "lastFailureInfo" in status.get("modelStatus", {})

    await eventually(told, 60)
    await client.delete(PODS, "crashed", namespace)


@asynccontextmanager
async def _node(client: Client, namespace: str) -> AsyncIterator[None]:
    task = asyncio.create_task(node(client, namespace))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# --- Rights -------------------------------------------------------------------------------------------------------


def _asked(log: Path, account: str) -> Iterator[dict[str, Any]]:
    """What the audit log has of the account's requests for resources."""
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["user"]["username"] == SERVICE_ACCOUNTS[account] and "objectRef" in entry:
            yield entry


def _right(entry: dict[str, Any]) -> Right:
    place = entry["objectRef"]
    subresource = f"/{place['subresource']}" if "subresource" in place else ""
    return Right(place.get("apiGroup", ""), place["resource"] + subresource, entry["verb"])


def _refused(asked: list[dict[str, Any]]) -> set[Right]:
    return {_right(entry) for entry in asked if entry.get("responseStatus", {}).get("code") == 403}


def _used(asked: list[dict[str, Any]]) -> set[Right]:
    """An apply that makes an object needs the right to create it, too."""
    made = {_right(entry)._replace(verb="create") for entry in asked if _made(entry)}
    return {_right(entry) for entry in asked} | made


def _made(entry: dict[str, Any]) -> bool:
    return bool(entry["verb"] == "patch" and entry.get("responseStatus", {}).get("code") == 201)


def _unused(chart: list[Object], account: str, asked: list[dict[str, Any]]) -> list[Right]:
    return sorted(_granted(chart, account) - _used(asked) - UNSEEN)


def _granted(chart: list[Object], account: str) -> set[Right]:
    """By the roles that are bound to the account."""
    bound = {
        (binding["roleRef"]["kind"], binding["roleRef"]["name"])
        for binding in chart
        if binding["kind"].endswith("Binding") and any(s["name"] == account for s in binding["subjects"])
    }
    return {
        Right(group, resource, verb)
        for role in chart
        if (role["kind"], role["metadata"]["name"]) in bound
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
