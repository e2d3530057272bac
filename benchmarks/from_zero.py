"""From zero on the embedded cluster: what the gateway adds to a start, and what becomes of many requests at once.

    python benchmarks/from_zero.py                      # about three minutes on two cores
    python benchmarks/from_zero.py --repetitions 20     # of the bursts: about ten
    python benchmarks/from_zero.py --json figures.json

The pod is the tiny server (tiny/server.py), which loads for 1.5 s and writes into each answer since when its readiness path could answer: what
lies between that and the client's answer is the gateway's. autoscaling.py measures the same on kind, and a whole scikit-learn start on both.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from pathlib import Path
from typing import Any

from _bursts import Burst, burst
from _figures import Figures
from _process import end_with_us
from _tiny import inference_service
from _wakes import Subject, served
from control_plane import cpu_seconds, laptop_cluster

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.errors import NotFound
from fairlead.kube.resources import INFERENCE_SERVICES

NAMESPACE = "default"
PROTOCOLS = ("http", "grpc")
LOADS_FOR = 1.5
BURST = 500
SOON = {names.SCALE_TO_ZERO_DELAY: "1s", names.STABLE_WINDOW: "4s", names.PANIC_WINDOW: "2s"}


def service(name: str, load_seconds: float, **predictor: Any) -> dict[str, Any]:
    found = inference_service(name, load_seconds=load_seconds, annotations=SOON, brief=True, minReplicas=0, **predictor)
    [container] = found["spec"]["predictor"]["containers"]
    container["command"] = [sys.executable, str(Path(__file__).parent / "tiny" / "server.py")]
    found["metadata"]["namespace"] = NAMESPACE
    return found


async def measure(figures: Figures, rounds: int, repetitions: int) -> None:
    with laptop_cluster() as is_up:
        cluster = await asyncio.to_thread(is_up)
        port = int(cluster.running.url.rpartition(":")[2])
        async with await Client.connect(cluster.running.kubeconfig) as client:
            for protocol in PROTOCOLS:
                grpc, wakes, bursts = protocol == "grpc", f"wakes-{protocol}", f"bursts-{protocol}"
                await client.create(INFERENCE_SERVICES, service(wakes, LOADS_FOR, maxReplicas=1))
                await _wakes(figures, protocol, served(client, NAMESPACE, wakes, port, grpc=grpc), rounds)
                await client.delete(INFERENCE_SERVICES, wakes, NAMESPACE)

                limited = service(bursts, 0.5, maxReplicas=3, containerConcurrency=100)
                await client.create(INFERENCE_SERVICES, limited)
                subject = served(client, NAMESPACE, bursts, port, grpc=grpc)
                await _bursts(figures, protocol, subject, bursts, port, repetitions)
                await client.delete(INFERENCE_SERVICES, bursts, NAMESPACE)
        agent = cluster.parts()["gateway agent"]
        before = sum(map(cpu_seconds, agent))
        await asyncio.sleep(10.0)
        figures.add("agent, no service: CPU", (sum(map(cpu_seconds, agent)) - before) * 10, "% of a core")


async def _wakes(figures: Figures, protocol: str, subject: Subject, rounds: int) -> None:
    await _once_ready(subject)
    wakes = [await subject.wake() for _ in range(rounds)]
    since_ready = sorted(wake.since_ready for wake in wakes)
    title = f"{protocol}: readiness path to answer"
    figures.add(f"{title}, p50", statistics.median(since_ready), "s", goal=0.05)
    figures.add(f"{title}, worst of {rounds}", since_ready[-1], "s", goal=0.15)
    figures.add(f"{protocol}: until the process starts, p50", statistics.median(w.to_began for w in wakes), "s")


async def _bursts(figures: Figures, protocol: str, subject: Subject, name: str, port: int, repetitions: int) -> None:
    await _once_ready(subject)
    alone = statistics.median([(await subject.wake()).whole for _ in range(3)])
    found: list[Burst] = [await burst(subject, name, port, BURST, grpc=protocol == "grpc") for _ in range(repetitions)]
    title = f"{BURST} at once, {protocol}"
    complete = sum(len(each.latencies) == BURST for each in found)
    figures.add(f"{title}: all answered", complete, f"of {repetitions}", goal=repetitions, at_least=True)
    figures.add(f"{title}: one alone, p50 of 3", alone, "s")
    ratios = [each.p99 / alone for each in found]
    figures.add(f"{title}: p99, of one alone, median", statistics.median(ratios), "ratio", goal=1.5)
    figures.add(f"{title}: p99, of one alone, worst", max(ratios), "ratio", goal=1.5)
    for each in found:
        for reason, count in each.failures.items():
            print(f"{title}: {count} failed: {reason}", flush=True)


async def _once_ready(subject: Subject) -> None:
    """A service that has been ready once is one that a request wakes."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await subject.asleep()
            except NotFound:  # its Deployment is not made yet
                await asyncio.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=10, help="of single requests, for each protocol")
    parser.add_argument("--repetitions", type=int, default=3, help=f"of {BURST} requests at once, for each protocol")
    options = parser.parse_args()
    end_with_us()
    figures = Figures("From zero, embedded cluster")
    try:
        asyncio.run(measure(figures, options.rounds, options.repetitions))
    finally:  # what was measured until then, in any case
        figures.finish(options.json)


if __name__ == "__main__":
    main()
