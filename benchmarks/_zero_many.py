"""Parts of autoscaling.py: many requests. Bursts into zero, a queue during a slow start, an hour of spikes."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

from _bursts import Burst, burst, steady
from _kind import SYSTEM
from _timeline import in_order, recording
from _tiny import inference_service
from _trace import NAMESPACE as TRACE
from _trace import run_trace, services
from _wakes import Subject, Wake, served
from _zero import NAMESPACE, SOON, Bench, p99

from fairlead.api import names

BURST = 500
PROTOCOLS = ("http", "grpc")

LOAD_SECONDS, WORK_SECONDS, RATE, SECONDS = 10.0, 0.05, 40.0, 45.0
TARGET, UTILIZATION = 2, 0.7


async def measure_bursts(bench: Bench) -> None:
    wanted = [f"burst-{protocol}" for protocol in PROTOCOLS]
    # Without it, as Fairlead's own model servers are. With it, a kubelet that hears of a pod before the API server's node authorizer has is refused the
    # ConfigMap beside the token ("no relationship found"), and tries again 1 to 2 s later: one burst in five.
    fields = {"minReplicas": 0, "maxReplicas": 10, "automountServiceAccountToken": bench.options.token}
    bench.apply(*(inference_service(name, annotations=SOON, brief=True, **fields) for name in wanted))
    bench.await_ready(wanted)
    alone: dict[str, list[Wake]] = {protocol: [] for protocol in PROTOCOLS}
    bursts: dict[str, list[Burst]] = {protocol: [] for protocol in PROTOCOLS}
    for _ in range(bench.options.repetitions):
        for protocol in PROTOCOLS:
            name, grpc = f"burst-{protocol}", protocol == "grpc"
            subject = served(bench.client, NAMESPACE, name, bench.gateway, grpc=grpc)
            moment = random.random()
            alone[protocol].append(await subject.wake(moment))
            bursts[protocol].append(await _one_burst(bench, subject, name, moment, grpc=grpc))
    for protocol in PROTOCOLS:
        _report_bursts(bench, protocol, alone[protocol], bursts[protocol])


async def _one_burst(bench: Bench, subject: Subject, name: str, moment: float, *, grpc: bool) -> Burst:
    if not bench.options.timeline:
        found, events = await burst(subject, name, bench.gateway, BURST, grpc=grpc, moment=moment), []
    else:
        await subject.asleep(moment)
        async with recording(bench.client, subject, bench.kind.node, SYSTEM) as seen:
            found = await burst(subject, name, bench.gateway, BURST, grpc=grpc, moment=0.0)
        events = in_order({**seen, **found.steps}, found.sent)
    print(f"{name}: p99 {found.p99:.2f} s, the process began after {found.began - found.sent:.2f} s", flush=True)
    for at, what in events:
        print(f"  {at:7.3f}  {what}", flush=True)
    return found


def _report_bursts(bench: Bench, protocol: str, alone: list[Wake], bursts: list[Burst]) -> None:
    """Each burst beside the wake-up of one request just before it, at the same moment of the kubelet's second."""
    add = bench.figures.add
    title = f"{BURST} at once into zero, {protocol}"
    complete = sum(1 for found in bursts if len(found.latencies) == BURST)
    add(f"{title}: all answered", complete, f"of {len(bursts)}", goal=len(bursts), at_least=True)
    add(f"{title}: one alone, p50", statistics.median(wake.whole for wake in alone), "s")
    add(f"{title}: one alone, slowest", max(wake.whole for wake in alone), "s")
    add(f"{title}: p99, slowest", max(found.p99 for found in bursts), "s")
    ratios = [found.p99 / wake.whole for found, wake in zip(bursts, alone, strict=True)]
    add(f"{title}: p99, of the one before it, median", statistics.median(ratios), "ratio", goal=1.5)
    add(f"{title}: p99, of the one before it, worst", max(ratios), "ratio", goal=1.5)
    within = sum(1 for ratio in ratios if ratio < 1.5)
    add(f"{title}: p99 under 1.5 of the one before it", within, f"of {len(ratios)}", goal=len(ratios), at_least=True)
    add(f"{title}: most replicas", max(found.replicas for found in bursts), "replicas")
    _tell_failures(title, bursts)


async def measure_overshoot(bench: Bench) -> None:
    need = math.ceil(RATE * WORK_SECONDS / (TARGET * UTILIZATION))
    service = inference_service(
        "slow", load_seconds=LOAD_SECONDS, work_seconds=WORK_SECONDS, brief=True,
        annotations={**SOON, names.PANIC_WINDOW: "4s", names.STABLE_WINDOW: "20s"},
        minReplicas=0, maxReplicas=20, scaleTarget=TARGET,
    )  # fmt: skip
    bench.apply(service)
    bench.await_ready(["slow"])
    subject = served(bench.client, NAMESPACE, "slow", bench.gateway, grpc=False)
    found = await steady(subject, "slow", bench.gateway, RATE, SECONDS)
    title = f"a queue during a {LOAD_SECONDS:g} s start, {RATE:g} requests/s"
    bench.figures.add(f"{title}: replicas that the load needs", need, "replicas")
    bench.figures.add(f"{title}: most replicas", found.replicas, "replicas", goal=need + 1)
    bench.figures.add(f"{title}: failed", sum(found.failures.values()), "requests", goal=0)
    _tell_failures(title, [found])


def _tell_failures(title: str, bursts: Iterable[Burst]) -> None:
    for found in bursts:
        for reason, count in found.failures.items():
            print(f"{title}: {count} failed: {reason}", flush=True)


async def measure_trace(bench: Bench) -> None:
    options, add = bench.options, bench.figures.add
    bench.two_of_everything()
    bench.make_namespace(TRACE)
    bench.apply(*services(), namespace=TRACE)
    bench.await_ready([service["metadata"]["name"] for service in services()], namespace=TRACE)

    def tell(text: str) -> None:
        print(time.strftime("%H:%M:%S", time.gmtime()), text, flush=True)

    log, seconds = Path(options.failures), options.minutes * 60
    tally, replicas = await run_trace(bench.kind.kubeconfig, bench.gateway, seconds, options.seed, log, tell)
    title = f"{options.minutes:g} min of spikes"
    add(f"{title}: requests", tally.sent, "requests")
    add(f"{title}: failed", tally.failed, "requests", goal=0)
    add(f"{title}: wake-ups", replicas.wakes, "wake-ups")
    add(f"{title}: most replicas of a service", replicas.most, "replicas")
    add(f"{title}: pod time, of one pod for each service", replicas.pod_seconds / (len(services()) * seconds), "ratio")
    took = [answer.seconds for answer in tally.answered]
    add(f"{title}: p50", statistics.median(took), "s")
    add(f"{title}: p99", p99(took), "s")
    slowest = max(tally.answered, key=lambda answer: answer.seconds)
    add(f"{title}: slowest", slowest.seconds, "s")
    tell(f"the slowest was {slowest.service}'s, sent at {time.strftime('%H:%M:%S', time.gmtime(slowest.sent))}")
    if tally.failed:
        tell(f"the failed ones, with their reasons: {log}")
