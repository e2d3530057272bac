"""A thousand services on a real API server, reconciled by the operator's own process: in bounded time and memory, each child written once."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Self

import pytest
from tests.integration.conftest import ApiServer
from tests.integration.operator_process import operator_process, rendered
from tests.integration.world import eventually, install

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.informer import Informer
from fairlead.kube.objects import Object
from fairlead.kube.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    NAMESPACES,
    SERVICES,
    Resource,
)

SERVICES_ASKED_FOR = 1000
AT_ONCE = 32
PATIENCE = 300.0
"""For a machine that has much else to do; on two free cores it takes about half a minute."""
MEMORY = 250.0
"""MiB."""
QUIET = 2.0

pytestmark = [
    pytest.mark.skipif(shutil.which("helm") is None, reason="needs helm on PATH"),
    pytest.mark.timeout(500),
    pytest.mark.slow,
]


async def test_a_thousand_services_are_reconciled_once_each_in_bounded_time_and_memory(
    client: Client, namespace: str, kube_apiserver: ApiServer, tmp_path: Path
) -> None:
    await install(client)
    chart = rendered("operator.namespace=" + namespace, "config.enabled=false")
    await eventually(lambda: client.apply(NAMESPACES, {"metadata": {"name": "fairlead-system"}}, field_manager="test"))
    async with _Following(client, namespace) as following:
        # Without a Lease, which a machine that is busy with other things may not renew in time.
        with operator_process(kube_apiserver.kubeconfig, tmp_path, chart, "--no-leader-election") as operator:
            await _create(client, namespace)
            began = time.monotonic()
            while (done := following.reconciled()) < SERVICES_ASKED_FOR:
                assert operator.running, operator.log
                assert time.monotonic() - began < PATIENCE, f"{done} of {SERVICES_ASKED_FOR} after {PATIENCE:.0f} s"
                await asyncio.sleep(0.5)
            lists = operator.metric("fairlead_informer_lists_total")
            reconciles = -1.0
            while reconciles != (
                now := operator.metric("controller_runtime_reconcile_total")
            ):  # what it still has to do
                assert time.monotonic() - began < PATIENCE, f"{now} reconciles, and ever more"
                reconciles = now
                await asyncio.sleep(QUIET)
            await asyncio.sleep(QUIET)
            assert operator.resident() < MEMORY
            assert operator.metric("fairlead_informer_lists_total") == lists, "nothing is listed again"
            assert operator.metric("controller_runtime_reconcile_total") == reconciles, "nothing is looked at again"
            assert operator.metric("controller_runtime_reconcile_errors_total") == 0, operator.log
        generations = Counter(obj["metadata"]["generation"] for obj in following.all(DEPLOYMENTS))
    assert generations == Counter({1: SERVICES_ASKED_FOR}), "no Deployment is written twice"


async def _create(client: Client, namespace: str) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def create(number: int) -> None:
        model = {"modelFormat": {"name": "sklearn"}, "storageUri": f"s3://models/{number}"}
        metadata = {"name": f"service-{number:04}", "namespace": namespace}
        kind = {"apiVersion": INFERENCE_SERVICES.api_version, "kind": INFERENCE_SERVICES.kind}
        async with slots:
            await client.create(
                INFERENCE_SERVICES, {**kind, "metadata": metadata, "spec": {"predictor": {"model": model}}}
            )

    await asyncio.gather(*map(create, range(SERVICES_ASKED_FOR)))


class _Following:
    """The services and their children, by informers."""

    def __init__(self, client: Client, namespace: str) -> None:
        kinds = (INFERENCE_SERVICES, DEPLOYMENTS, SERVICES, CONTROLLER_REVISIONS)
        self._informers = {kind: Informer(client, kind, namespace=namespace) for kind in kinds}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(informer.run()) for informer in self._informers.values()]
        for informer in self._informers.values():
            await informer.synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def all(self, kind: Resource) -> list[Object]:
        return self._informers[kind].store.list()

    def reconciled(self) -> int:
        """How many have one child of each kind, and a status that speaks of them."""
        children = [Counter(map(_service, self.all(kind))) for kind in self._informers if kind != INFERENCE_SERVICES]
        return sum(
            obj.get("status", {}).get("observedGeneration") == obj["metadata"]["generation"]
            and all(kind[obj["metadata"]["name"]] == 1 for kind in children)
            for obj in self.all(INFERENCE_SERVICES)
        )


def _service(child: Object) -> str:
    return str(child["metadata"]["labels"].get(names.LABEL_INFERENCE_SERVICE))
