"""How fast a service on a kind cluster starts and answers, beside a plain Deployment and NodePort Service that take turns with it."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from _figures import Figures
from _kind import GATEWAY_PORT, PLAIN_PORT, Kind, Object, Unmeasurable
from _kind_model import BODY, NAMESPACE, PODS, PREDICT, THROUGH, answer, fast, plain
from _load import http_load, http_request

from fairlead.kube.client import Client
from fairlead.kube.conditions import is_true
from fairlead.kube.resources import DEPLOYMENTS, INFERENCE_SERVICES, Resource

PATIENCE = 90.0
LOOK_EVERY = 0.01
SETTLE = 20.0


# --- From apply to Ready and to the first answer ------------------------------------------------------------------


class Start(NamedTuple):
    """Seconds from `kubectl apply`."""

    ready: float
    answered: float


def measure_ready(kind: Kind, figures: Figures, rounds: int) -> None:
    taken = [(_start_plain(kind), _start_fast(kind)) for _ in range(rounds)]
    available, first = (statistics.median(column) for column in zip(*(without for without, _ in taken), strict=True))
    ready, answered = (statistics.median(column) for column in zip(*(with_it for _, with_it in taken), strict=True))
    figures.add("apply to available, plain", available, "s")
    figures.add("apply to Ready", ready, "s", goal=available + 0.2)
    figures.add("apply to first right answer, plain", first, "s")
    figures.add("apply to first right answer", answered, "s", goal=first + 0.2)
    late = max(with_it.answered - with_it.ready for _, with_it in taken)
    figures.add("first right answer after Ready, worst", late, "s", goal=0)


def _start_plain(kind: Kind) -> Start:
    kind.kubectl("delete", "deployment,service", "plain", "-n", NAMESPACE, "--ignore-not-found", "--wait")
    kind.await_pods(NAMESPACE, PODS["plain"], 0)
    return asyncio.run(_start(kind, plain(kind), DEPLOYMENTS, "Available", PLAIN_PORT, ""))


def _start_fast(kind: Kind) -> Start:
    kind.kubectl("delete", "isvc", "fast", "-n", NAMESPACE, "--ignore-not-found", "--wait")
    kind.await_pods(NAMESPACE, PODS["fast"], 0)
    return asyncio.run(_start(kind, [fast(kind)], INFERENCE_SERVICES, "Ready", GATEWAY_PORT, THROUGH))


async def _start(
    kind: Kind, objects: list[Object], resource: Resource, condition: str, port: int, prefix: str
) -> Start:
    """Watches the object, and asks for an answer every few milliseconds."""
    async with await Client.connect(kind.kubeconfig) as client, asyncio.timeout(PATIENCE):
        version = (await client.list(resource, NAMESPACE)).resource_version
        began = time.monotonic()

        async def ready() -> float:
            name = objects[0]["metadata"]["name"]
            async with contextlib.aclosing(client.watch(resource, NAMESPACE, resource_version=version)) as events:
                async for event in events:
                    conditions = event.object.get("status", {}).get("conditions") or ()
                    if event.object["metadata"].get("name") == name and is_true(conditions, condition):
                        return time.monotonic() - began
            raise Unmeasurable(f"the watch of {resource} ended")

        async def answered() -> float:
            request = http_request(f"{prefix}{PREDICT}", BODY, {"Connection": "close"})
            while not (await _response(kind.ports[port], request)).endswith(answer(1)):
                await asyncio.sleep(LOOK_EVERY)
            return time.monotonic() - began

        applied = asyncio.to_thread(kind.apply, *objects)
        seconds = await asyncio.gather(ready(), answered(), applied)
        return Start(seconds[0], seconds[1])


async def _response(port: int, request: bytes) -> bytes:
    """Empty if there is none."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            return await reader.read()
        finally:
            writer.close()
    return b""


# --- Latency and rate ---------------------------------------------------------------------------------------------


def measure_requests(kind: Kind, figures: Figures, rounds: int) -> None:
    serve(kind, replicas=1)
    direct, through = (http_request(f"{prefix}{PREDICT}", BODY) for prefix in ("", THROUGH))

    def both(measure: Callable[[int, bytes], float]) -> tuple[float, float]:
        """The medians, plain and through the gateway; they take turns."""
        taken = [
            (measure(kind.ports[PLAIN_PORT], direct), measure(kind.ports[GATEWAY_PORT], through)) for _ in range(rounds)
        ]
        without, with_it = (statistics.median(column) for column in zip(*taken, strict=True))
        return without, with_it

    without, with_it = both(lambda port, request: http_load(port, request, 1, 2).percentile(50) * 1000)
    figures.add("p50 at 1 connection, plain", without, "ms")
    figures.add("p50 at 1 connection, added", with_it - without, "ms", goal=0.15)
    without, with_it = both(lambda port, request: http_load(port, request, 32, 2).rate)
    figures.add("requests/s at 32 connections, plain", without, "1/s")
    figures.add("requests/s at 32 connections, of plain", with_it / without, "ratio", goal=0.5, at_least=True)


def measure_added(kind: Kind, figures: Figures) -> None:
    """What is in a model's pod beside the model. The kubelet's own figures are those of two pods that have answered alike."""
    serve(kind, replicas=1)
    for port, prefix in ((PLAIN_PORT, ""), (GATEWAY_PORT, THROUGH)):
        http_load(kind.ports[port], http_request(f"{prefix}{PREDICT}", BODY), 8, 2)
    time.sleep(SETTLE)
    usages = kind.usage(NAMESPACE)

    def memory(name: str) -> float:
        return sum(usage.memory for path, usage in usages.items() if path.startswith(f"{name}-"))

    (pod,) = kind.pods(NAMESPACE, PODS["fast"])
    containers = len(pod["spec"]["containers"]) + len(pod["spec"].get("initContainers", [])) - 1
    figures.add("containers added to each model pod", containers, "containers", goal=0)
    figures.add("memory of the model's pod, over the plain one's", memory("fast") - memory("plain"), "MiB")


def serve(kind: Kind, replicas: int) -> None:
    """Both up with so many pods, and nothing of what was before."""
    kind.apply(*plain(kind, replicas), fast(kind, replicas))
    kind.kubectl("rollout", "status", "-n", NAMESPACE, "deployment/plain", f"--timeout={PATIENCE:.0f}s")
    kind.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", "isvc/fast", f"--timeout={PATIENCE:.0f}s")
    for selector in PODS.values():
        kind.await_pods(NAMESPACE, selector, replicas)
    deadline = time.monotonic() + PATIENCE
    for port, prefix in ((PLAIN_PORT, ""), (GATEWAY_PORT, THROUGH)):
        request = http_request(f"{prefix}{PREDICT}", BODY, {"Connection": "close"})
        while not asyncio.run(_response(kind.ports[port], request)).endswith(answer(1)):
            if time.monotonic() > deadline:
                raise Unmeasurable(f"no answer on node port {port} within {PATIENCE:.0f} s")
            time.sleep(0.1)
