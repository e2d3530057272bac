"""Part of autoscaling.py: what a service at zero is made of, and what the autoscaler's tick costs with a thousand of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from _figures import Figures
from control_plane import Cluster, cpu_seconds, laptop_cluster

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.objects import Object
from fairlead.kube.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INFERENCE_SERVICES,
    PODS,
    REPLICA_SETS,
    SERVICES,
)

KINDS = (
    CONTROLLER_REVISIONS, DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, HORIZONTAL_POD_AUTOSCALERS, PODS, REPLICA_SETS, SERVICES,
)  # fmt: skip
AT_ONCE = 32
PATIENCE = 300.0
WATCHED_SECONDS = 30.0


async def objects(client: Client, namespace: str, name: str) -> Counter[str]:
    """All that there is of one InferenceService but its Events, itself included, by kind."""
    found = Counter({"InferenceService": 1})
    for kind in KINDS:
        count = len((await client.list(kind, namespace, labels=f"{names.LABEL_INFERENCE_SERVICE}={name}")).items)
        found[kind.kind] += count
    return +found


async def measure_tick(figures: Figures, services: int) -> None:
    """On the embedded cluster, with a node that only pretends: it is the operator that is looked at."""
    with laptop_cluster("--fake") as is_up:
        cluster = await asyncio.to_thread(is_up)
        async with await Client.connect(cluster.running.kubeconfig) as client:
            await _create(client, services)
            asleep = await _all_at_zero(client, services)
            figures.add(f"{services} services: not at zero", services - asleep, "services", goal=0)
            busy = await _operator_cpu(cluster, WATCHED_SECONDS)
            figures.add(f"{services} services at zero: operator, CPU a tick of one second", 1000 * busy, "ms", goal=100)


async def _create(client: Client, services: int) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def create(name: str) -> None:
        async with slots:
            await client.create(INFERENCE_SERVICES, _service(name))

    await asyncio.gather(*(create(f"service-{number:04}") for number in range(services)))


def _service(name: str) -> Object:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": f"file:///models/{name}"}
    annotations = {names.SCALE_TO_ZERO_DELAY: "1s", names.STABLE_WINDOW: "4s", names.PANIC_WINDOW: "2s"}
    return {
        "apiVersion": INFERENCE_SERVICES.api_version,
        "kind": INFERENCE_SERVICES.kind,
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"predictor": {"model": model, "minReplicas": 0, "maxReplicas": 2}},
    }


async def _all_at_zero(client: Client, services: int) -> int:
    """How many Deployments there are at zero once all are, or after a while."""
    deadline = time.monotonic() + PATIENCE
    while True:
        deployments = (await client.list(DEPLOYMENTS, "default")).items
        asleep = sum(1 for item in deployments if item["spec"].get("replicas", 1) == 0)
        if asleep >= services or time.monotonic() > deadline:
            return asleep
        await asyncio.sleep(1.0)


async def _operator_cpu(cluster: Cluster, seconds: float) -> float:
    """Seconds of CPU a second, of all that the operator does."""
    await asyncio.sleep(5.0)  # the last scaling's echo is over
    pids = cluster.parts()["operator"]
    before, began = sum(map(cpu_seconds, pids)), time.monotonic()
    await asyncio.sleep(seconds)
    return (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - began)
