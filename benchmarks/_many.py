"""Part of autoscaling.py: what a service at zero is made of, and what the autoscaler's tick costs with a thousand of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress

import aiohttp
from _figures import Figures
from control_plane import NAMESPACE, Cluster, cpu_seconds, laptop_cluster, memory

from fairlead.api import names
from fairlead.controllers.autoscaler.scraping import sum_of
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
PATIENCE = 420.0
"""Seconds until all are made and at zero; what is not by then is counted as such."""
WATCHED_SECONDS = 30.0
SAMPLES = 5


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
            began = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(_create(client, services), _all_at_zero(client, services))
            title = f"{services} services"
            figures.add(f"{title}: made, ready once, and at zero after", time.monotonic() - began, "s")
            figures.add(f"{title}: not at zero", services - await _at_zero(client), "services", goal=0)
            sample = [_name(number * services // SAMPLES) for number in range(SAMPLES)]
            most = max([await objects(client, NAMESPACE, name) for name in sample], key=Counter.total)
            figures.add(f"{title} at zero: objects of each", most.total(), "objects", goal=8)
            busy, tick = await _operator(cluster, WATCHED_SECONDS)
            figures.add(f"{title} at zero: operator, CPU time a tick of one second", 1000 * busy, "ms", goal=100)
            figures.add(f"{title} at zero: a tick, asking the gateway included", 1000 * tick, "ms")
            figures.add(f"{title} at zero: operator, memory", sum(map(memory, cluster.parts()["operator"])), "MB")


async def _create(client: Client, services: int) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def create(name: str) -> None:
        async with slots:
            await client.create(INFERENCE_SERVICES, _service(name))

    await asyncio.gather(*(create(_name(number)) for number in range(services)))


def _name(number: int) -> str:
    return f"service-{number:04}"


def _service(name: str) -> Object:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": f"file:///models/{name}"}
    annotations = {names.SCALE_TO_ZERO_DELAY: "1s", names.STABLE_WINDOW: "4s", names.PANIC_WINDOW: "2s"}
    return {
        "apiVersion": INFERENCE_SERVICES.api_version,
        "kind": INFERENCE_SERVICES.kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "spec": {"predictor": {"model": model, "minReplicas": 0, "maxReplicas": 2}},
    }


async def _all_at_zero(client: Client, services: int) -> None:
    began = told = time.monotonic()
    while (asleep := await _at_zero(client)) < services:
        if (now := time.monotonic()) > told + 20:
            print(f"{now - began:.0f} s: {asleep} of {services} are at zero", flush=True)
            told = now
        await asyncio.sleep(2.0)


async def _at_zero(client: Client) -> int:
    deployments = (await client.list(DEPLOYMENTS, NAMESPACE)).items
    return sum(1 for item in deployments if item["spec"].get("replicas", 1) == 0)


async def _operator(cluster: Cluster, seconds: float) -> tuple[float, float]:
    """(seconds of CPU a second, of all that the operator does; seconds that a tick takes)"""
    await asyncio.sleep(5.0)  # the last scaling's echo is over
    pids = cluster.parts()["operator"]
    before, ticks, began = sum(map(cpu_seconds, pids)), await _ticks(cluster), time.monotonic()
    await asyncio.sleep(seconds)
    busy = (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - began)
    spent, count = (now - then for now, then in zip(await _ticks(cluster), ticks, strict=True))
    return busy, spent / max(1.0, count)


async def _ticks(cluster: Cluster) -> tuple[float, float]:
    """(seconds in all, how many), since the operator started."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
        session.get(f"http://{cluster.running.operator}/metrics") as answer,
    ):
        text = await answer.text()
    prefix = "fairlead_autoscaler_tick_seconds"
    return sum_of(text, f"{prefix}_sum"), sum_of(text, f"{prefix}_count")
