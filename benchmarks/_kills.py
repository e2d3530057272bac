"""Part of autoscaling.py: the operator is killed in the middle of a spike, and a gateway while it holds requests for a model that starts."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from _bursts import steady
from _calls import Failed, Http
from _kind import SYSTEM
from _tiny import BODY, HTTP_PATH, inference_service
from _wakes import Subject, served
from _zero import NAMESPACE, SOON, Bench

from fairlead.api import names
from fairlead.kube.resources import DEPLOYMENTS

RATE, WORK_SECONDS = 30.0, 0.2
"""Six requests in flight: with a target of 2.8 a replica, three replicas."""
SPIKE_SECONDS, KILL_AFTER = 40.0, 15.0
HELD, LOAD_SECONDS = 100, 4.0
TIMEOUT = 90.0


async def measure_kills(bench: Bench) -> None:
    bench.two_of_everything()
    common: dict[str, Any] = {"annotations": SOON, "brief": True, "minReplicas": 0}
    bench.apply(
        inference_service("spike", work_seconds=WORK_SECONDS, maxReplicas=6, scaleTarget=4, **common),
        inference_service("held", load_seconds=LOAD_SECONDS, maxReplicas=1, **common),
    )
    bench.await_ready(["spike", "held"])
    for name, kill in (("spike", kill_operator), ("held", kill_gateway)):
        await kill(bench, name, served(bench.client, NAMESPACE, name, bench.gateway, grpc=False))
        bench.await_system()


async def kill_operator(bench: Bench, name: str, subject: Subject) -> None:
    """All operators at once, so that none can take over before it has started anew."""
    fewest: list[int] = []

    async def watch() -> None:
        while True:
            deployment = await subject.client.get(DEPLOYMENTS, subject.deployment, subject.namespace)
            fewest.append(int(deployment["spec"].get("replicas", 1)))
            await asyncio.sleep(0.25)

    async def kill() -> None:
        await asyncio.sleep(KILL_AFTER)
        for pod in await asyncio.to_thread(bench.kind.pods, SYSTEM, "app.kubernetes.io/name=fairlead-operator"):
            if any("running" in status["state"] for status in pod["status"]["containerStatuses"]):
                await asyncio.to_thread(bench.kind.kill_container, pod, "operator")
        fewest.clear()

    watching = asyncio.create_task(watch())
    found, _ = await asyncio.gather(steady(subject, name, bench.gateway, RATE, SPIKE_SECONDS), kill())
    watching.cancel()
    title = "operator killed in the middle of a spike"
    bench.figures.add(f"{title}: failed", sum(found.failures.values()), "requests", goal=0)
    bench.figures.add(f"{title}: replicas before, at most", found.replicas, "replicas")
    bench.figures.add(f"{title}: replicas after, fewest", min(fewest), "replicas", goal=fewest[0], at_least=True)
    _tell(title, found.failures)


async def kill_gateway(bench: Bench, name: str, subject: Subject) -> None:
    """One of two. Clients of the one that dies see their connection closed, and may send the request again: nothing has read it.

    Until the kubelet has seen that it died, up to a second later, and has started it again, new connections still go there, too, and are closed.
    """
    await subject.asleep()
    path = names.path(name, subject.namespace) + HTTP_PATH
    http = Http(bench.gateway)
    first, second, third = Counter[str](), Counter[str](), Counter[str]()

    async def insist() -> None:
        for failures, pause in ((first, 1.0), (second, 2.0), (third, 0.0)):
            try:
                await http.call(path, BODY, timeout=TIMEOUT, fresh=True)
                return
            except Failed as failed:
                failures[str(failed)] += 1
                await asyncio.sleep(pause)  # what a client waits before it tries again

    async def kill() -> None:
        await asyncio.sleep(LOAD_SECONDS / 2)
        [victim, *_] = await asyncio.to_thread(bench.kind.pods, SYSTEM, "app.kubernetes.io/name=fairlead-gateway")
        await asyncio.to_thread(bench.kind.kill_container, victim, "haproxy")

    await asyncio.gather(kill(), *(insist() for _ in range(HELD)))
    title = f"gateway killed while {HELD} requests are held"
    retryable = sum(count for reason, count in first.items() if _is_retryable(reason))
    bench.figures.add(f"{title}: connections closed", retryable, "requests")
    bench.figures.add(f"{title}: other failures", sum(first.values()) - retryable, "requests", goal=0)
    bench.figures.add(f"{title}: closed again a second later", sum(second.values()), "requests")
    bench.figures.add(
        f"{title}: failed when sent again two seconds after that", sum(third.values()), "requests", goal=0
    )
    _tell(title, first + second + third)


def _is_retryable(reason: str) -> bool:
    return reason.startswith(
        ("IncompleteReadError", "ConnectionResetError", "ConnectionRefusedError", "BrokenPipeError")
    )


def _tell(title: str, failures: Counter[str]) -> None:
    for reason, count in failures.items():
        print(f"{title}: {count} x {reason}", flush=True)
