"""What an operator needs around it on an API server without a cluster: CRDs, runtimes, a node that makes pods ready, and patience."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fairlead.kube.client import Client
from fairlead.kube.errors import NotFound
from fairlead.kube.resources import (
    CLUSTER_SERVING_RUNTIMES,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
)

MANIFESTS = Path(__file__).parents[2] / "manifests"


async def install(client: Client) -> None:
    """The CRDs and our runtimes, as the chart has them."""
    for path in sorted((MANIFESTS / "crds").glob("*.yaml")) + sorted((MANIFESTS / "runtimes").glob("*.yaml")):
        for obj in yaml.safe_load_all(path.read_text()):
            crd = obj["kind"] == "CustomResourceDefinition"
            resource = CUSTOM_RESOURCE_DEFINITIONS if crd else CLUSTER_SERVING_RUNTIMES
            await eventually(lambda obj=obj, resource=resource: client.apply(resource, obj, field_manager="test"))
    await eventually(lambda: client.list(INFERENCE_SERVICES))


async def node(client: Client, namespace: str) -> None:
    """Makes every Deployment's pods ready at once. Until cancelled."""
    while True:
        for deployment in (await client.list(DEPLOYMENTS, namespace)).items:
            generation, replicas = deployment["metadata"]["generation"], deployment["spec"]["replicas"]
            if deployment.get("status", {}).get("observedGeneration") != generation:
                counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), replicas)
                status = {"status": {"observedGeneration": generation, **counts}}
                with suppress(NotFound):  # deleted since the list
                    name = deployment["metadata"]["name"]
                    await client.patch(DEPLOYMENTS, name, status, namespace, subresource="status")
        await asyncio.sleep(0.05)


async def eventually(call: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    """The result of the call, as soon as it neither raises nor is false."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if (found := await call()) is not False:
                    return found
            except Exception as error:
                if not hasattr(error, "status"):
                    raise
            await asyncio.sleep(0.05)
