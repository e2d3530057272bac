"""Part of autoscaling.py: many requests at once into zero, and a queue that builds while a slow model starts."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field

from _at_once import at_once
from _calls import Failed, Grpc, Http
from _tiny import BODY, GRPC_PATH, HTTP_PATH
from _wakes import Subject

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.resources import DEPLOYMENTS

TIMEOUT = 90.0
CALLS_A_CONNECTION = 25
"""Of gRPC."""


@dataclass
class Burst:
    latencies: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    pods: Counter[str] = field(default_factory=Counter)
    """Answers by pod."""
    sent: float = field(default_factory=time.time)
    began: float = 0.0
    ready: float = 0.0
    """By the machine's clock: the first request; of the pod that answered last, its process's start and when its readiness path could answer."""
    replicas: int = 0
    """The most that were wanted at a time."""

    def answered(self, seconds: float, answer: bytes) -> None:
        said = json.loads(answer)
        self.latencies.append(seconds)
        self.pods[said["pod"]] += 1
        self.began, self.ready = said["began"], said["ready"]

    @property
    def steps(self) -> dict[str, float]:
        """Of a timeline; by the machine's clock."""
        return {
            "process: its first line": self.began,
            "server: the readiness path can answer": self.ready,
            "client: first answer received": self.sent + min(self.latencies, default=0.0),
            "client: last answer received": self.sent + max(self.latencies, default=0.0),
        }

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.latencies, n=100)[98] if len(self.latencies) > 1 else 0.0


async def burst(
    subject: Subject, name: str, port: int, count: int, *, grpc: bool, moment: float | None = None
) -> Burst:
    """`count` requests at one instant, when the service is at zero (`moment`: `Subject.asleep`)."""
    await subject.asleep(moment)
    found = Burst()
    watching = asyncio.create_task(_most_replicas(subject, found))
    await (_grpc_burst if grpc else _http_burst)(found, name, subject.namespace, port, count)
    await asyncio.sleep(2.0)  # what the burst makes the autoscaler do comes a tick or two later
    watching.cancel()
    return found


async def _http_burst(found: Burst, name: str, namespace: str, port: int, count: int) -> None:
    path = names.path(name, namespace) + HTTP_PATH
    found.sent = time.time()
    for ended in await asyncio.to_thread(at_once, port, path, BODY, count, timeout=TIMEOUT):
        if ended.failure:
            found.failures[ended.failure] += 1
        else:
            found.answered(ended.seconds, ended.body)


async def _grpc_burst(found: Burst, name: str, namespace: str, port: int, count: int) -> None:
    channels = [Grpc(port) for _ in range(count // CALLS_A_CONNECTION + 1)]
    host = names.host(name, namespace, names.DEFAULT_DOMAIN)
    began, found.sent = time.monotonic(), time.time()
    calls = (channels[n // CALLS_A_CONNECTION].call(host, GRPC_PATH, b"x", timeout=TIMEOUT) for n in range(count))
    await asyncio.gather(*(_one(call, began, found) for call in calls))
    for channel in channels:
        channel.close()


async def _one(call: Awaitable[bytes], began: float, found: Burst) -> None:
    try:
        answer = await call
    except Failed as failed:
        found.failures[str(failed)] += 1
    else:
        found.answered(time.monotonic() - began, answer)


async def steady(subject: Subject, name: str, port: int, rate: float, seconds: float) -> Burst:
    """Requests at a rate, from zero on, whatever becomes of those before."""
    await subject.asleep()
    found = Burst()
    watching = asyncio.create_task(_most_replicas(subject, found))
    http = Http(port)
    path = names.path(name, subject.namespace) + HTTP_PATH
    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
            began = time.monotonic()
            group.create_task(_one(http.call(path, BODY, timeout=TIMEOUT), began, found))
    watching.cancel()
    http.close()
    return found


async def _most_replicas(subject: Subject, found: Burst) -> None:
    """Until cancelled."""
    client: Client = subject.client
    version = (await client.list(DEPLOYMENTS, subject.namespace)).resource_version
    async for event in client.watch(DEPLOYMENTS, subject.namespace, resource_version=version):
        if event.object["metadata"].get("name") == subject.deployment:
            found.replicas = max(found.replicas, int(event.object["spec"].get("replicas", 1)))
