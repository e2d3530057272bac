"""What the control plane costs on a kind cluster: to install, idle, with services at zero, with a thousand services."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from _figures import Figures
from _kind import SYSTEM, Kind, Object, Unmeasurable, Usage
from _kind_model import pod, versions

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.informer import Informer
from fairlead.kube.resources import DEPLOYMENTS, INFERENCE_SERVICES, SERVICES

CRDS = Path(__file__).parent.parent / "manifests" / "crds"
SETTLE = 20.0
"""Seconds until what starting has cost is over, and the kubelet has looked again."""
WATCHED = 60.0
"""Seconds over which CPU is averaged: requests' worth, not the moment's."""
LIMIT = 240.0
"""Seconds in which each of the two long parts must have come to where its cost can be taken. On two free cores they take half of that."""
AT_ONCE = 32


def measure_idle(kind: Kind, figures: Figures) -> None:
    memory, cpu = _cost(kind)
    figures.add("idle: memory of the control plane", sum(memory.values()), "MiB", goal=160)
    for part, mib in memory.items():
        figures.add(f"idle: memory of {part}", mib, "MiB")
    figures.add("idle: CPU of the control plane", sum(cpu.values()), "m", goal=8)
    for part, millicores in cpu.items():
        figures.add(f"idle: CPU of {part}", millicores, "m")
    figures.add("idle: CPU that the control plane asks for", kind.requested(), "m", goal=150)


def measure_crds(kind: Kind, figures: Figures) -> None:
    sizes = {path.name: path.stat().st_size / 1000 for path in CRDS.glob("*.yaml")}
    figures.add("CRDs: all", sum(sizes.values()), "KB", goal=250)
    figures.add("CRDs: InferenceService", sizes["serving.kserve.io_inferenceservices.yaml"], "KB", goal=100)
    began = time.monotonic()
    kind.kubectl("apply", "-f", str(CRDS))  # fails above 256 KB: kubectl keeps what it applied in an annotation
    figures.add("CRDs: kubectl apply", time.monotonic() - began, "s")


def measure_zero(kind: Kind, figures: Figures, services: int = 100) -> None:
    """As many services as a node has room for, each ready once and then at zero."""
    before, _ = _cost(kind, watched=0)
    namespace, began = "at-zero", time.monotonic()
    end = began + LIMIT
    annotations = {names.SCALE_TO_ZERO_DELAY: "1s", names.STABLE_WINDOW: "6s"}
    try:
        _create(kind, namespace, services, annotations, {"minReplicas": 0, **pod(kind)})

        def at_zero() -> bool:
            deployments = kind.get("deployments", "-n", namespace)["items"]
            proven = [d for d in deployments if names.PROVEN in d["metadata"]["annotations"]]
            return len(proven) == services and all(d["spec"]["replicas"] == 0 for d in proven)

        _until(at_zero, f"{services} services at zero", end)
        kind.await_pods(namespace, names.LABEL_INFERENCE_SERVICE, 0, max(1.0, end - time.monotonic()))
        figures.add(f"{services} services: created, ready and back at zero", time.monotonic() - began, "s")
        memory, cpu = _cost(kind)
        added = sum(memory.values()) - sum(before.values())
        figures.add(f"{services} services at zero: memory added", added, "MiB", goal=15)
        for part, mib in memory.items():
            figures.add(f"{services} services at zero: memory of {part}", mib, "MiB")
        figures.add(f"{services} services at zero: CPU of the control plane", sum(cpu.values()), "m")
    finally:  # the next part must not be measured beside it
        kind.kubectl("delete", "namespace", namespace, "--wait=false")


def measure_many(kind: Kind, figures: Figures, services: int = 1000) -> None:
    """Services whose pods find no node: all that the operator does for them, and nothing that two cores could not run."""
    namespace, began = "many", time.monotonic()
    end = began + LIMIT
    predictor = {**pod(kind), "nodeSelector": {"fairlead.dev/bench": "nowhere"}}
    _create(kind, namespace, services, {}, predictor)
    figures.add(f"{services} services: created", time.monotonic() - began, "s")
    missing = asyncio.run(_reconciled(kind, namespace, services, end))
    figures.add(f"{services} services: not reconciled", missing, "services", goal=0)
    figures.add(f"{services} services: all reconciled after", time.monotonic() - began, "s", goal=120)
    _until(lambda: _settled(kind, namespace, services), "Kubernetes' own controllers done", end)
    lists = _metric(kind, "fairlead_informer_lists_total")
    memory, cpu = _cost(kind)
    figures.add(f"{services} services: memory of operator", memory["operator"], "MiB", goal=250)
    for part, mib in memory.items():
        if part != "operator":
            figures.add(f"{services} services: memory of {part}", mib, "MiB")
    figures.add(f"{services} services: CPU of the control plane when idle", sum(cpu.values()), "m")
    relists = _metric(kind, "fairlead_informer_lists_total") - lists
    figures.add(f"{services} services: full lists in {WATCHED:.0f} s", relists, "lists", goal=0)
    kind.kubectl("delete", "namespace", namespace, "--wait=false")


# --- Helpers ------------------------------------------------------------------------------------------------------


def _cost(kind: Kind, watched: float = WATCHED) -> tuple[dict[str, float], dict[str, float]]:
    """MiB and millicores of operator, agent and HAProxy, each summed over its pods."""
    time.sleep(SETTLE)
    before = kind.usage()
    if watched:
        time.sleep(watched)
    after = kind.usage() if watched else before
    return _by_part(after, lambda _, usage: usage.memory), _by_part(
        after, lambda name, usage: usage.millicores_since(before.get(name, usage))
    )


def _by_part(usages: dict[str, Usage], value: Callable[[str, Usage], float]) -> dict[str, float]:
    parts: dict[str, float] = {}
    for name, usage in sorted(usages.items()):
        part = name.rpartition("/")[2]
        parts[part] = parts.get(part, 0.0) + value(name, usage)
    return parts


def _create(kind: Kind, namespace: str, services: int, annotations: dict[str, str], predictor: Object) -> None:
    """In a new namespace: a kept cluster may have that of a run that was stopped."""
    kind.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=300s", timeout=310)
    kind.kubectl("create", "namespace", namespace)
    kind.apply(*versions(namespace))
    asyncio.run(_create_services(kind, namespace, services, annotations, predictor))


async def _create_services(
    kind: Kind, namespace: str, services: int, annotations: dict[str, str], predictor: Object
) -> None:
    slots = asyncio.Semaphore(AT_ONCE)
    async with await Client.connect(kind.kubeconfig) as client:

        async def create(number: int) -> None:
            metadata = {"name": f"service-{number:04}", "namespace": namespace, "annotations": annotations}
            manifest = {"apiVersion": INFERENCE_SERVICES.api_version, "kind": INFERENCE_SERVICES.kind}
            async with slots:
                await client.create(
                    INFERENCE_SERVICES, {**manifest, "metadata": metadata, "spec": {"predictor": predictor}}
                )

        await asyncio.gather(*map(create, range(services)))


async def _reconciled(kind: Kind, namespace: str, services: int, end: float) -> int:
    """Waits until each has a Deployment, a Service and a status that speaks of it; for how many not, when the time is over.

    By watching: to list thousands of objects again and again would be half of what is measured.
    """
    kinds = (INFERENCE_SERVICES, DEPLOYMENTS, SERVICES)
    async with await Client.connect(kind.kubeconfig) as client:
        found, deployments, ways = informers = [Informer(client, resource, namespace=namespace) for resource in kinds]
        following = [asyncio.create_task(informer.run()) for informer in informers]
        try:
            while True:
                both = _names(deployments.store.list()) & _names(ways.store.list())
                done = sum(
                    f"{obj['metadata']['name']}-predictor" in both
                    and obj.get("status", {}).get("observedGeneration") == obj["metadata"]["generation"]
                    for obj in found.store.list()
                )
                if done >= services or time.monotonic() > end:
                    return services - done
                await asyncio.sleep(0.5)
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)


def _names(objects: Iterable[Object]) -> set[str]:
    return {obj["metadata"]["name"] for obj in objects}


def _settled(kind: Kind, namespace: str, services: int) -> bool:
    return len(kind.kubectl("get", "pods", "-n", namespace, "-o", "name").split()) == services


def _until(condition: Callable[[], bool], what: str, end: float) -> None:
    while not condition():
        if time.monotonic() > end:
            raise Unmeasurable(f"{what}: not within {LIMIT:.0f} s")
        time.sleep(2.0)


def _metric(kind: Kind, name: str) -> float:
    """The sum of a metric's series over operator and agents, as they tell it."""
    total = 0.0
    for part, port in (("operator", names.OPERATOR_PORT), ("gateway", names.GATEWAY_AGENT_PORT)):
        for found in kind.pods(SYSTEM, f"app.kubernetes.io/name=fairlead-{part}"):
            path = f"/api/v1/namespaces/{SYSTEM}/pods/{found['metadata']['name']}:{port}/proxy/metrics"
            text = kind.kubectl("get", "--raw", path)
            total += sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))
    return total
