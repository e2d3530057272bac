"""What one tick of the autoscaler costs with 1,000 services, in CPU time of one core, and what an hour of its decisions takes in memory.

    python benchmarks/autoscaling_tick.py [--services 1000] [--json FILE]

The operator's own loop over stores as its informers fill them, and the answers that two gateways would give, decoded from JSON with each tick. No cluster,
no network: CPU time, so that other work on the machine matters little. Takes about half a minute of CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._figures import Figures
from fairlead.autoscaling import Policy
from fairlead.controllers.autoscaler.agents import Demand
from fairlead.controllers.autoscaler.board import Board, Scaled
from fairlead.controllers.autoscaler.loop import Autoscaler
from fairlead.controllers.autoscaler.readings import Reading, reading
from fairlead.controllers.autoscaler.scraping import PodMetrics
from fairlead.controllers.cluster import BY_SERVICE, Cluster, by_service
from fairlead.kube.objects import Key
from fairlead.kube.resources import DEPLOYMENTS, PODS
from fairlead.kube.store import Store

GATEWAYS = ("gateway-1", "gateway-2")
WARM_UP, TICKS, HOUR = 62, 30, 3600
"""Ticks: until windows are full, measured, and of an hour."""
POLICY = Policy(target=7, min_replicas=0, max_replicas=1)


class Gateways:
    """Their answers, as bytes; `busy` services have other counts with each tick."""

    def __init__(self, services: int, *, busy: bool) -> None:
        self.services, self.busy = services, busy
        self.now, self.asked = 0.0, 0
        self.bodies: dict[str, bytes] = {}

    def next_tick(self) -> None:
        self.now += 1.0
        self.bodies = {gateway: self._body() for gateway in GATEWAYS}

    def _body(self) -> bytes:
        tick = int(self.now)
        load = (lambda number: (number * 7 + tick * 13) % 6) if self.busy else (lambda number: 0)
        workloads = [
            {
                "namespace": "team",
                "name": f"model-{number}-predictor",
                "inFlight": load(number),
                "queued": 0,
                "held": 0,
                "requests": tick * 50 + load(number) if self.busy else 0,
                "responses": tick * 50 if self.busy else 0,
                "errors": 0,
            }
            for number in range(self.services)
        ]
        return json.dumps({"workloads": workloads}).encode()

    async def addresses(self) -> Sequence[str]:
        return GATEWAYS

    async def stats(self, agent: str) -> Reading:
        self.asked += 1
        return reading(self.now, json.loads(self.bodies[agent]))

    async def demand(self, agent: str, after: int) -> Demand:
        raise AssertionError("a tick asks nobody who waits")


class NoEvents:
    def emit(self, obj: Mapping[str, Any], type: str, reason: str, message: str) -> None:
        pass


async def never(url: str) -> str:
    raise AssertionError(f"{url} is asked for, and no service here scales by a metric of its own")


def autoscaler(gateways: Gateways) -> Autoscaler:
    """Over one workload for each service: at one replica if busy, else at zero."""
    stores = {resource: Store({BY_SERVICE: by_service}) for resource in (DEPLOYMENTS, PODS)}
    board, replicas = Board(), int(gateways.busy)
    for number in range(gateways.services):
        service, workload = f"model-{number}", f"model-{number}-predictor"
        labels = {"serving.kserve.io/inferenceservice": service, "fairlead.dev/workload": workload}
        metadata = {"name": workload, "namespace": "team", "labels": labels, "uid": workload, "resourceVersion": "1"}
        status = {"availableReplicas": replicas}
        stores[DEPLOYMENTS].put({"metadata": metadata, "spec": {"replicas": replicas}, "status": status})
        owner = {"kind": "InferenceService", "metadata": {"name": service, "namespace": "team"}}
        board.plan(Key("team", service), {workload: Scaled(owner, f"{workload}-00001", POLICY)})
    cluster = Cluster(None, stores)  # type: ignore[arg-type]  # nothing is written
    pod_metrics = PodMetrics(never, clock=lambda: gateways.now)
    return Autoscaler(cluster, board, gateways, NoEvents(), lambda _: None, pod_metrics, clock=lambda: gateways.now)


async def ticks(loop: Autoscaler, gateways: Gateways, count: int) -> list[float]:
    """CPU seconds of each."""
    spent = []
    for _ in range(count):
        gateways.next_tick()
        began = time.process_time()
        await loop.tick(GATEWAYS)
        spent.append(time.process_time() - began)
    return spent


def cost(services: int, *, busy: bool) -> tuple[float, float]:
    """(median of a tick, answers asked for with each)."""
    gateways = Gateways(services, busy=busy)
    loop = autoscaler(gateways)
    asyncio.run(ticks(loop, gateways, WARM_UP))
    gateways.asked = 0
    spent = asyncio.run(ticks(loop, gateways, TICKS))
    return median(spent), gateways.asked / TICKS


def hour(services: int, *, busy: bool) -> float:
    """Bytes that an hour of ticks adds for a service, with windows full."""
    gateways = Gateways(services, busy=busy)
    loop = autoscaler(gateways)
    asyncio.run(ticks(loop, gateways, WARM_UP))
    tracemalloc.start()
    asyncio.run(ticks(loop, gateways, HOUR if busy else TICKS))  # at rest it does not grow
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / services


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    arguments = parser.parse_args()
    figures = Figures(f"The autoscaler's tick, {arguments.services} services, {len(GATEWAYS)} gateways")
    for name, busy in (("at zero", False), ("busy", True)):
        seconds, asked = cost(arguments.services, busy=busy)
        figures.add(f"tick, all {name}: CPU", seconds * 1000, "ms", goal=100)
        figures.add(f"tick, all {name}: scrapes", asked, "requests", goal=len(GATEWAYS))
    figures.add("an hour's decisions, a service at rest", hour(20, busy=False) / 1024, "KiB")
    figures.add("an hour's decisions, a service that changes each second", hour(2, busy=True) / 1024, "KiB", goal=300)
    figures.finish(arguments.json)


if __name__ == "__main__":
    main()
