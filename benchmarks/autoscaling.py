"""To zero and back: what autoscaling costs and loses, on a kind cluster of one node, beside a plain Deployment and NodePort Service of the same image.

    python benchmarks/autoscaling.py                                # all but the trace and the thousand services: about eight minutes
    python benchmarks/autoscaling.py --only wakes --rounds 20 --json figures.json
    python benchmarks/autoscaling.py --only bursts --repetitions 20
    python benchmarks/autoscaling.py --only trace --minutes 60
    python benchmarks/autoscaling.py --timeline                     # one wake-up of each kind, step by step

Needs docker, kind, kubectl, helm and the images of `make images`; builds the tiny server's itself (tiny/server.py). It makes a cluster of its own and
deletes it. What is compared takes turns. `embedded` and `many` run on embedded clusters.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from _bursts import Burst, burst, steady
from _figures import Figures
from _kind import GATEWAY_PORT, PLAIN_PORT, SYSTEM, Kind, Object, cluster, run
from _kind_model import versions
from _kind_serving import measure_ready
from _laptop_wakes import ROW, iris_model, iris_service, measure_laptop
from _many import measure_tick, objects
from _process import end_with_us
from _spikes import Answered
from _timeline import timeline
from _tiny import IMAGE, inference_service, plain
from _trace import NAMESPACE as TRACE
from _trace import run_trace, services
from _wakes import Send, Subject, Wake, by_hand, served, taking_turns

from fairlead.api import names
from fairlead.kube.client import Client

ON_KIND = ("wakes", "iris", "apply", "bursts", "overshoot", "trace")
ELSEWHERE = ("embedded", "many")
LONG = ("trace", "many")
SPACE = "bench"
HERE = Path(__file__).parent
SOON = {names.SCALE_TO_ZERO_DELAY: "1s", names.STABLE_WINDOW: "4s", names.PANIC_WINDOW: "2s"}
KNATIVE = {"process start to answer": 0.93, "whole": 1.57, "its process start": 0.70}
"""Measured on such a node, seconds; a wake-up's share before the process starts is the node's, so the goal moves with it."""
LOADS_FOR = 1.5
BURST = 500

OVERSHOOT_LOAD_SECONDS, OVERSHOOT_WORK, OVERSHOOT_RATE = 10.0, 0.05, 40.0
OVERSHOOT_TARGET = 2.0


# --- One request from zero ----------------------------------------------------------------------------------------


async def measure_wakes(kind: Kind, client: Client, figures: Figures, options: argparse.Namespace) -> None:
    subjects = _subjects(kind, client)
    wakes, failures = await taking_turns(subjects, options.rounds)
    figures.add("single wake-ups: failed", len(failures), "requests", goal=0)
    print("".join(f"{failure}\n" for failure in failures), end="", flush=True)
    if not all(wakes.values()):
        return
    for loads in ("loads-http", "loads-grpc"):
        values = sorted(w.since_ready for w in wakes[loads])
        title = f"loads {LOADS_FOR:g} s, {loads[-4:]}: readiness path to answer"
        figures.add(f"{title}, p50", statistics.median(values), "s", goal=0.05)
        figures.add(f"{title}, p99", _p99(values), "s", goal=0.15)
    figures.add(
        f"loads {LOADS_FOR:g} s, plain: the same, p50", _median(wakes["plain-loads"], lambda w: w.since_ready), "s"
    )
    for quick in ("quick-http", "quick-grpc"):
        values = sorted(w.since_began for w in wakes[quick])
        title = f"ready at once, {quick[-4:]}: process start to answer"
        figures.add(f"{title}, p50", statistics.median(values), "s", goal=0.40)
        figures.add(f"{title}, p99", _p99(values), "s", goal=0.85)
        start = _median(wakes[quick], lambda w: w.to_began)
        knative = KNATIVE["whole"] - KNATIVE["its process start"] + start
        title = f"ready at once, {quick[-4:]}: one request from zero"
        figures.add(f"{title}, until the process starts", start, "s")
        figures.add(f"{title}, whole", _median(wakes[quick], lambda w: w.whole), "s", goal=0.73 * knative)
    figures.add(
        "ready at once, plain: process start to answer", _median(wakes["plain-quick"], lambda w: w.since_began), "s"
    )
    figures.add("ready at once, plain: whole, scaled by hand", _median(wakes["plain-quick"], lambda w: w.whole), "s")
    found = await objects(client, SPACE, "quick-http")
    figures.add(f"objects of a service at zero ({_told(found)})", sum(found.values()), "objects", goal=8)
    kind.kubectl("delete", "-n", SPACE, "deployment,service", "-l", "plain=yes")


def _subjects(kind: Kind, client: Client) -> dict[str, Subject]:
    loads = {"quick-http": 0.0, "quick-grpc": 0.0, "loads-http": LOADS_FOR, "loads-grpc": LOADS_FOR}
    ours = [
        inference_service(name, load_seconds=seconds, annotations=SOON, brief=True, minReplicas=0, maxReplicas=1)
        for name, seconds in loads.items()
    ]
    _apply(kind, *ours, *plain(PLAIN_PORT, {"plain-quick": 0.0, "plain-loads": LOADS_FOR}))
    _await_ready(kind, loads)
    gateway, direct = kind.ports[GATEWAY_PORT], kind.ports[PLAIN_PORT]
    found: dict[str, Subject] = {
        name: served(client, SPACE, name, gateway, grpc=name.endswith("grpc")) for name in loads
    }
    found |= {name: by_hand(client, SPACE, name, direct) for name in ("plain-quick", "plain-loads")}
    return found


async def print_timelines(kind: Kind, client: Client) -> None:
    for name, subject in _subjects(kind, client).items():
        _, events = await timeline(client, subject, kind.node, SYSTEM)
        print(f"\n{name}: seconds since the request was sent")
        for at, what in events:
            print(f"  {at:7.3f}  {what}")


async def measure_iris(kind: Kind, client: Client, figures: Figures, options: argparse.Namespace) -> None:
    """The model server is ours, and fetches the model over HTTP from a pod of the cluster, as it would from a bucket."""
    with TemporaryDirectory() as directory:
        right = iris_model(Path(directory))
        kind.kubectl("create", "configmap", "iris", "-n", SPACE, f"--from-file={directory}/model.skops")
    _apply(kind, *_model_store())
    kind.kubectl("rollout", "status", "-n", SPACE, "deployment/models", "--timeout=60s")
    service = iris_service("iris", f"http://models.{SPACE}.svc.cluster.local/model.skops", namespace=SPACE)
    _apply(kind, service)
    _await_ready(kind, ["iris"])
    path = f"{names.path('iris', SPACE)}/v1/models/iris:predict"
    send = _posting(kind.ports[GATEWAY_PORT], path, json.dumps({"instances": [ROW]}).encode())
    subject = Subject(client, SPACE, "iris-predictor", send, f"{names.LABEL_WORKLOAD}=iris-predictor")
    took = []
    for _ in range(options.rounds):
        await subject.asleep()
        began = time.monotonic()
        answer = json.loads(await send())
        took.append(time.monotonic() - began)
        if answer["predictions"] != right:
            raise SystemExit(f"iris: the answer is wrong: {answer}")
    figures.add("sklearn iris from zero, our runtime, whole, p50", statistics.median(took), "s", goal=2.2)
    figures.add("sklearn iris from zero, our runtime, worst", max(took), "s")


def _model_store() -> list[Object]:
    labels = {"app": "models"}
    container = {
        "name": "http",
        "image": IMAGE,
        "command": ["python", "-m", "http.server", "8080", "--directory", "/models"],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
    }
    pod = {"containers": [container], "volumes": [{"name": "models", "configMap": {"name": "iris"}}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    ports = [{"port": 80, "targetPort": 8080}]
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "models"}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "models"},
            "spec": {"selector": labels, "ports": ports},
        },
    ]


def _posting(port: int, path: str, body: bytes) -> Send:
    from _calls import Http

    return lambda: Http(port).call(path, body, timeout=60.0, fresh=True)


# --- Many requests from zero --------------------------------------------------------------------------------------


async def measure_bursts(kind: Kind, client: Client, figures: Figures, options: argparse.Namespace) -> None:
    protocols = {"burst-http": False, "burst-grpc": True}
    _apply(
        kind,
        *(inference_service(name, annotations=SOON, brief=True, minReplicas=0, maxReplicas=10) for name in protocols),
    )
    _await_ready(kind, protocols)
    gateway = kind.ports[GATEWAY_PORT]
    subjects = {name: served(client, SPACE, name, gateway, grpc=grpc) for name, grpc in protocols.items()}
    alone: dict[str, list[Wake]] = {name: [] for name in protocols}
    bursts: dict[str, list[Burst]] = {name: [] for name in protocols}
    for _ in range(options.repetitions):
        for name, grpc in protocols.items():
            alone[name].append(await subjects[name].wake())
            bursts[name].append(await burst(subjects[name], name, gateway, BURST, grpc=grpc))
    for name in protocols:
        title = f"{BURST} at once into zero, {name[-4:]}"
        single = _median(alone[name], lambda w: w.whole)
        complete = sum(1 for b in bursts[name] if len(b.latencies) == BURST)
        figures.add(f"{title}: all answered", complete, "times", goal=options.repetitions, at_least=True)
        figures.add(f"{title}: one alone", single, "s")
        ratios = [b.p99 / single for b in bursts[name]]
        figures.add(f"{title}: p99, of one alone, median", statistics.median(ratios), "ratio", goal=1.5)
        figures.add(f"{title}: p99, of one alone, worst", max(ratios), "ratio", goal=1.5)
        figures.add(f"{title}: most replicas", max(b.replicas for b in bursts[name]), "replicas")
        for found in bursts[name]:
            for reason, count in found.failures.items():
                print(f"{name}: {count} failed: {reason}", flush=True)


async def measure_overshoot(kind: Kind, client: Client, figures: Figures, options: argparse.Namespace) -> None:
    target = OVERSHOOT_TARGET * 0.7
    need = math.ceil(OVERSHOOT_RATE * OVERSHOOT_WORK / target)
    service = inference_service(
        "slow", load_seconds=OVERSHOOT_LOAD_SECONDS, work_seconds=OVERSHOOT_WORK, brief=True,
        annotations={**SOON, names.PANIC_WINDOW: "4s", names.STABLE_WINDOW: "20s"},
        minReplicas=0, maxReplicas=20, scaleTarget=int(OVERSHOOT_TARGET),
    )  # fmt: skip
    _apply(kind, service)
    _await_ready(kind, ["slow"])
    gateway = kind.ports[GATEWAY_PORT]
    subject = served(client, SPACE, "slow", gateway, grpc=False)
    found = await steady(subject, "slow", gateway, OVERSHOOT_RATE, 45.0)
    title = f"a queue during a {OVERSHOOT_LOAD_SECONDS:g} s start, {OVERSHOOT_RATE:g} requests/s"
    figures.add(f"{title}: replicas that the load needs", need, "replicas")
    figures.add(f"{title}: most replicas", found.replicas, "replicas", goal=need + 1)
    figures.add(f"{title}: failed", sum(found.failures.values()), "requests", goal=0)
    for reason, count in found.failures.items():
        print(f"overshoot: {count} failed: {reason}", flush=True)


# --- An hour of spikes --------------------------------------------------------------------------------------------


async def measure_trace(kind: Kind, client: Client, figures: Figures, options: argparse.Namespace) -> None:
    """Two of everything, as the chart has it by itself."""
    for part in ("fairlead-operator", "fairlead-gateway"):
        kind.scale(part, 2)
    _namespace(kind, TRACE)
    _apply(kind, *services(), namespace=TRACE)
    _await_ready(kind, [service["metadata"]["name"] for service in services()], namespace=TRACE)
    log = Path(options.failures)

    def tell(text: str) -> None:
        print(time.strftime("%H:%M:%S", time.gmtime()), text, flush=True)

    tally, replicas = await run_trace(
        kind.kubeconfig, kind.ports[GATEWAY_PORT], options.minutes * 60, options.seed, log, tell
    )
    title = f"{options.minutes:g} min of spikes"
    figures.add(f"{title}: requests", tally.sent, "requests")
    figures.add(f"{title}: failed", tally.failed, "requests", goal=0)
    figures.add(f"{title}: wake-ups", replicas.wakes, "wake-ups")
    figures.add(f"{title}: most replicas of a service", replicas.most, "replicas")
    figures.add(
        f"{title}: pod seconds, of one pod for each service", replicas.pod_seconds / _always_on(options), "ratio"
    )
    seconds = sorted(answer.seconds for answer in tally.answered)
    figures.add(f"{title}: p50", statistics.median(seconds), "s")
    figures.add(f"{title}: p99", _p99(seconds), "s")
    figures.add(f"{title}: slowest", seconds[-1], "s")
    slowest: Answered = max(tally.answered, key=lambda answer: answer.seconds)
    print(f"the slowest was {slowest.service}'s at {time.strftime('%H:%M:%S', time.gmtime(slowest.sent))}")
    if tally.failed:
        print(f"the failed ones, with their reasons: {log}")


def _always_on(options: argparse.Namespace) -> float:
    return float(len(services()) * options.minutes * 60)


# --- The parts ----------------------------------------------------------------------------------------------------

Measure = Callable[[Kind, Client, Figures, argparse.Namespace], Any]


async def _apply_to_answer(kind: Kind, client: Client, figures: Figures, options: argparse.Namespace) -> None:
    kind.apply(*versions())
    await asyncio.to_thread(measure_ready, kind, figures, options.rounds)


MEASURES: dict[str, Measure] = {
    "wakes": measure_wakes,
    "iris": measure_iris,
    "apply": _apply_to_answer,
    "bursts": measure_bursts,
    "overshoot": measure_overshoot,
    "trace": measure_trace,
}


async def on_kind(parts: list[str], figures: Figures, options: argparse.Namespace) -> None:
    run("docker", "build", "-q", "-t", IMAGE, str(HERE / "tiny"))
    with cluster(options.name, options.tag, keep=options.keep) as kind:
        run("kind", "load", "docker-image", "--name", options.name, IMAGE, f"fairlead/runtime-core:{options.tag}")
        if not options.installed:
            kind.install()
        _namespace(kind, SPACE)
        async with await Client.connect(kind.kubeconfig) as client:
            if options.timeline:
                await print_timelines(kind, client)
                return
            for part in parts:
                began = time.monotonic()
                await MEASURES[part](kind, client, figures, options)
                print(f"{part}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)


async def elsewhere(part: str, figures: Figures, options: argparse.Namespace) -> None:
    if part == "embedded":
        await measure_laptop(figures, options.rounds, options.engines)
    else:
        await measure_tick(figures, options.services)


def _namespace(kind: Kind, name: str) -> None:
    """A new one: whatever an earlier run left in it goes first."""
    kind.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait", timeout=180)
    kind.kubectl("create", "namespace", name)


def _apply(kind: Kind, *objects: Object, namespace: str = SPACE) -> None:
    kind.kubectl("apply", "-n", namespace, "-f", "-", objects=objects)


def _await_ready(kind: Kind, services: Any, *, namespace: str = SPACE) -> None:
    wanted = [f"isvc/{name}" for name in services]
    kind.kubectl("wait", "-n", namespace, "--for=condition=Ready", *wanted, "--timeout=180s", timeout=200)


def _median(wakes: list[Wake], value: Callable[[Wake], float]) -> float:
    return statistics.median(map(value, wakes))


def _p99(values: list[float]) -> float:
    """The largest where there are fewer than a hundred."""
    return values[min(len(values) - 1, math.ceil(0.99 * len(values)) - 1)]


def _told(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in found.items())


def main() -> None:
    parts = (*ON_KIND, *ELSEWHERE)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--only", choices=parts, action="append", help=f"default: all but {' and '.join(LONG)}")
    parser.add_argument("--rounds", type=int, default=5, help="of single wake-ups")
    parser.add_argument("--repetitions", type=int, default=3, help=f"of {BURST} at once")
    parser.add_argument("--minutes", type=float, default=60, help="of the trace")
    parser.add_argument("--seed", default="spikes", help="of the trace")
    parser.add_argument(
        "--failures", default="autoscaling-failures.jsonl", metavar="FILE", help="of the trace, a line each"
    )
    parser.add_argument("--services", type=int, default=1000, help="of the part `many`")
    parser.add_argument("--engines", nargs="+", default=["process", "ray"], help="of the part `embedded`")
    parser.add_argument(
        "--timeline", action="store_true", help="show the steps of one wake-up of each kind, and measure nothing"
    )
    parser.add_argument("--tag", default="0.1.0", help="of the images")
    parser.add_argument("--name", default="fairlead-scale", help="of the cluster")
    parser.add_argument("--keep", action="store_true", help="leave the cluster, and take up the one that was left")
    parser.add_argument("--installed", action="store_true", help="with --keep: leave the chart as it is there")
    options = parser.parse_args()
    end_with_us()
    chosen = options.only or [part for part in parts if part not in LONG]
    figures = Figures("To zero and back")
    try:
        if here := [part for part in chosen if part in ON_KIND] or options.timeline:
            asyncio.run(on_kind(here if isinstance(here, list) else [], figures, options))
        for part in chosen:
            if part in ELSEWHERE and not options.timeline:
                asyncio.run(elsewhere(part, figures, options))
    finally:  # what was measured until then, in any case
        if not options.timeline:
            figures.finish(options.json)


if __name__ == "__main__":
    main()
