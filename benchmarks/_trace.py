"""Part of autoscaling.py: services of several kinds under a spiky trace, from zero and back again and again; every failed request is a line with its reason."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _calls import Grpc, Http
from _spikes import Call, Tally, arrivals, play
from _tiny import BODY, GRPC_PATH, HTTP_PATH, inference_service

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.errors import KubeError
from fairlead.kube.resources import DEPLOYMENTS

NAMESPACE = "trace"
WAKE_UP_WITHIN, TIMEOUT = 300.0, 330.0
"""Seconds. Longer than the defaults: a node that others keep busy may be slow, and no request may fail for it."""
PEAK = 12.0
"""Requests a second at the top of a spike."""
QUICK = {
    names.SCALE_TO_ZERO_DELAY: "8s",
    names.STABLE_WINDOW: "10s",
    names.PANIC_WINDOW: "3s",
    names.ACTIVATION_TIMEOUT: f"{WAKE_UP_WITHIN:g}s",
}
"""Shorter than the defaults, for more wake-ups in an hour."""

SERVICES: dict[str, tuple[bool, dict[str, Any]]] = {
    # name: called by gRPC, and what it is
    "quick-http": (False, {"work_seconds": 0.02}),
    "quick-grpc": (True, {"work_seconds": 0.02}),
    "busy-http": (False, {"work_seconds": 0.3, "containerConcurrency": 2}),
    "busy-grpc": (True, {"work_seconds": 0.3, "containerConcurrency": 2}),
    "slow-http": (False, {"load_seconds": 4, "work_seconds": 0.1, "scaleTarget": 2}),
    "slow-grpc": (True, {"load_seconds": 4, "work_seconds": 0.1, "scaleTarget": 2}),
}


def services() -> list[dict[str, Any]]:
    return [
        inference_service(name, annotations=QUICK, minReplicas=0, maxReplicas=4, **what)
        for name, (_, what) in SERVICES.items()
    ]


class Replicas:
    """How the Deployments went up and down."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.now: dict[str, int] = {}
        self.most = 0
        self.wakes = 0
        self.pod_seconds = 0.0

    async def watch(self, every: float = 0.5) -> None:
        """Until cancelled."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(every)
            try:
                found = await self.client.list(DEPLOYMENTS, NAMESPACE)
            except KubeError:
                continue
            now = {item["metadata"]["name"]: int(item["spec"].get("replicas", 1)) for item in found.items}
            self.wakes += sum(1 for name, count in now.items() if count and self.now.get(name, count) == 0)
            self.most = max(self.most, *now.values())
            moment = time.monotonic()
            self.pod_seconds += sum(now.values()) * (moment - last)
            self.now, last = now, moment


def _calls(port: int) -> dict[str, Call]:
    http, grpc = Http(port), Grpc(port)

    def by_http(name: str) -> Call:
        path = names.path(name, NAMESPACE) + HTTP_PATH
        return lambda fresh: http.call(path, BODY, timeout=TIMEOUT, fresh=fresh)

    def by_grpc(name: str) -> Call:
        host = names.host(name, NAMESPACE, names.DEFAULT_DOMAIN)
        return lambda fresh: grpc.call(host, GRPC_PATH, b"x", timeout=TIMEOUT, fresh=fresh)

    return {name: (by_grpc if is_grpc else by_http)(name) for name, (is_grpc, _) in SERVICES.items()}


async def run_trace(
    kubeconfig: str, port: int, seconds: float, seed: str, log: Path, tell: Callable[[str], None]
) -> tuple[Tally, Replicas]:
    """The services are there and Ready. Ends when the last request of the trace has ended."""
    async with await Client.connect(kubeconfig) as client:
        replicas = Replicas(client)
        with log.open("a") as failures:
            tally = Tally(failures)
            background = [
                asyncio.create_task(replicas.watch()),
                asyncio.create_task(_tell_each_minute(tally, replicas, tell)),
            ]
            start = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for name, call in _calls(port).items():
                    group.create_task(play(name, arrivals(f"{seed}/{name}", seconds, peak=PEAK), start, call, tally))
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
    return tally, replicas


async def _tell_each_minute(tally: Tally, replicas: Replicas, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(60)
        slowest = max((answer.seconds for answer in tally.answered), default=0.0)
        tell(
            f"{(time.monotonic() - began) / 60:4.0f} min: {tally.sent} sent, {len(tally.answered)} answered, {tally.failed} failed, "
            f"slowest {slowest:.1f} s, {replicas.wakes} wake-ups, replicas {json.dumps(replicas.now)}"
        )
