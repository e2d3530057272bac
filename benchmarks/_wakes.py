"""Part of autoscaling.py: wake-ups from zero, one at a time, ours and those of a plain Deployment that is scaled by hand when the request comes."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from _calls import Failed, Grpc, Http
from _tiny import BODY, GRPC_PATH, HTTP_PATH

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.resources import DEPLOYMENTS, PODS

TIMEOUT = 60.0
RETRY = 0.02
"""Seconds between a client's tries at a plain Service that has no pod."""


@dataclass(frozen=True)
class Wake:
    """One request from zero; all times are seconds of the machine's clock, the middle four as the server took them."""

    sent: float
    began: float
    ready: float
    probed: float
    received: float
    answered: float

    @property
    def whole(self) -> float:
        return self.answered - self.sent

    @property
    def since_began(self) -> float:
        return self.answered - self.began

    @property
    def since_ready(self) -> float:
        """From the moment the readiness path could answer."""
        return self.answered - self.ready

    @property
    def to_began(self) -> float:
        return self.began - self.sent


Send = Callable[[], Awaitable[bytes]]


@dataclass
class Subject:
    """Something at zero that a request wakes."""

    client: Client
    namespace: str
    deployment: str
    send: Send
    selector: str

    async def asleep(self, moment: float | None = None, *, timeout: float = 60.0) -> None:
        """Until no replica is wanted and no pod is left, and then `moment` seconds; if it is not given, any up to one.

        A kubelet lists its containers once a second: that is when it sees that the last pod has ended, and when it tells the next one's address. Requests
        sent at once would all come at the same moment of that second, and say more of the moment than of what they wake. Two that are compared come at the
        same one.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            deployment = await self.client.get(DEPLOYMENTS, self.deployment, self.namespace)
            if deployment["spec"].get("replicas", 1) == 0:
                pods = await self.client.list(PODS, self.namespace, labels=self.selector)
                if not pods.items:
                    await asyncio.sleep(random.random() if moment is None else moment)
                    return
            await asyncio.sleep(0.1)
        raise SystemExit(f"{self.namespace}/{self.deployment} is not at zero after {timeout:g} s")

    async def wake(self, moment: float | None = None) -> Wake:
        await self.asleep(moment)
        sent = time.time()
        answer = json.loads(await self.send())
        return wake(sent, answer, time.time())


def wake(sent: float, answer: dict[str, float], answered: float) -> Wake:
    return Wake(sent, answer["began"], answer["ready"], answer["probed"], answer["received"], answered)


def served(client: Client, namespace: str, name: str, port: int, *, grpc: bool) -> Subject:
    """An InferenceService behind the gateway; a new connection for each request."""
    deployment = f"{name}-predictor"
    return Subject(
        client, namespace, deployment, caller(namespace, name, port, grpc=grpc), f"{names.LABEL_WORKLOAD}={deployment}"
    )


def caller(namespace: str, name: str, port: int, *, grpc: bool) -> Send:
    if grpc:
        host = names.host(name, namespace, names.DEFAULT_DOMAIN)
        return lambda: Grpc(port).call(host, GRPC_PATH, b"x", timeout=TIMEOUT, fresh=True)
    path = names.path(name, namespace) + HTTP_PATH
    return lambda: Http(port).call(path, BODY, timeout=TIMEOUT, fresh=True)


@dataclass
class ByHand(Subject):
    """A plain Deployment: whoever has the request scales it up, tries until there is an answer, and scales it down."""

    async def wake(self, moment: float | None = None) -> Wake:
        await self.asleep(moment)
        sent = time.time()
        await self._scale(1)
        answer = json.loads(await self._insist())
        answered = time.time()
        await self._scale(0)
        return wake(sent, answer, answered)

    async def _scale(self, replicas: int) -> None:
        patch = {"spec": {"replicas": replicas}}
        await self.client.patch(DEPLOYMENTS, self.deployment, patch, self.namespace, subresource="scale")

    async def _insist(self) -> bytes:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return await self.send()
            except Failed:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(RETRY)


def by_hand(client: Client, namespace: str, name: str, port: int) -> ByHand:
    """By HTTP. Its pods share a Service with those of other plain Deployments: all are waited for."""
    return ByHand(
        client, namespace, name, lambda: Http(port).call(HTTP_PATH, BODY, timeout=1.0, fresh=True), "plain=yes"
    )


async def taking_turns(subjects: dict[str, Subject], rounds: int) -> tuple[dict[str, list[Wake]], list[str]]:
    """Each subject once a round; one that has just been woken goes to zero while the others are. The wakes, and what failed."""
    found: dict[str, list[Wake]] = {name: [] for name in subjects}
    failures: list[str] = []
    for _ in range(rounds):
        for name, subject in subjects.items():
            try:
                found[name].append(await subject.wake())
            except Failed as failed:
                failures.append(f"{name}: {failed}")
    return found, failures
