"""Parts of autoscaling.py: one request from zero. The tiny server beside a plain Deployment that is scaled by hand, and scikit-learn on our runtime."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from _calls import Http
from _kind import PLAIN_PORT, SYSTEM, Object
from _laptop_wakes import ROW, iris_model, iris_service
from _many import objects
from _timeline import timeline
from _tiny import IMAGE, inference_service, plain
from _wakes import Subject, Wake, by_hand, served, taking_turns
from _zero import NAMESPACE, SOON, Bench, p99

from fairlead.api import names

KNATIVE_WHOLE, KNATIVE_PROCESS_START = 1.57, 0.70
"""Measured on such a node, seconds. What is before the process's start is the node's, so the goal moves with it."""
LOADS_FOR = 1.5


async def measure_wakes(bench: Bench) -> None:
    wakes, failures = await taking_turns(_subjects(bench), bench.options.rounds)
    bench.figures.add("single wake-ups: failed", len(failures), "requests", goal=0)
    print("".join(f"{failure}\n" for failure in failures), end="", flush=True)
    if not all(wakes.values()):
        return
    for protocol in ("http", "grpc"):
        _report_loading(bench, protocol, wakes[f"loads-{protocol}"])
        _report_quick(bench, protocol, wakes[f"quick-{protocol}"])
    add = bench.figures.add
    title = f"loads {LOADS_FOR:g} s, plain: readiness path to answer, p50"
    add(title, _median(wakes["plain-loads"], lambda wake: wake.since_ready), "s")
    quick = wakes["plain-quick"]
    add("ready at once, plain: process start to answer, p50", _median(quick, lambda wake: wake.since_began), "s")
    add("ready at once, plain: scaled by hand, whole, p50", _median(quick, lambda wake: wake.whole), "s")
    found = await objects(bench.client, NAMESPACE, "quick-http")
    told = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in found.items())
    add(f"objects of a service at zero ({told})", sum(found.values()), "objects", goal=8)
    bench.kind.kubectl("delete", "-n", NAMESPACE, "deployment,service", "-l", "plain=yes")


def _report_loading(bench: Bench, protocol: str, wakes: list[Wake]) -> None:
    values = [wake.since_ready for wake in wakes]
    title = f"loads {LOADS_FOR:g} s, {protocol}: readiness path to answer"
    bench.figures.add(f"{title}, p50", statistics.median(values), "s", goal=0.05)
    bench.figures.add(f"{title}, p99", p99(values), "s", goal=0.15)


def _report_quick(bench: Bench, protocol: str, wakes: list[Wake]) -> None:
    add = bench.figures.add
    values = [wake.since_began for wake in wakes]
    title = f"ready at once, {protocol}: process start to answer"
    add(f"{title}, p50", statistics.median(values), "s", goal=0.40)
    add(f"{title}, p99", p99(values), "s", goal=0.85)
    start = _median(wakes, lambda wake: wake.to_began)
    title = f"ready at once, {protocol}: one request from zero"
    add(f"{title}, until the process starts, p50", start, "s")
    knative = KNATIVE_WHOLE - KNATIVE_PROCESS_START + start
    add(f"{title}, whole, p50", _median(wakes, lambda wake: wake.whole), "s", goal=0.73 * knative)


async def print_timelines(bench: Bench) -> None:
    for name, subject in _subjects(bench).items():
        _, events = await timeline(bench.client, subject, bench.kind.node, SYSTEM)
        print(f"\n{name}: seconds since the request was sent")
        for at, what in events:
            print(f"  {at:7.3f}  {what}")


def _subjects(bench: Bench) -> dict[str, Subject]:
    loads = {"quick-http": 0.0, "quick-grpc": 0.0, "loads-http": LOADS_FOR, "loads-grpc": LOADS_FOR}
    ours = [
        inference_service(name, load_seconds=seconds, annotations=SOON, brief=True, minReplicas=0, maxReplicas=1)
        for name, seconds in loads.items()
    ]
    bench.apply(*ours, *plain(PLAIN_PORT, {"plain-quick": 0.0, "plain-loads": LOADS_FOR}))
    bench.await_ready(loads)
    client, direct = bench.client, bench.kind.ports[PLAIN_PORT]
    found: dict[str, Subject] = {
        name: served(client, NAMESPACE, name, bench.gateway, grpc=name.endswith("grpc")) for name in loads
    }
    found |= {name: by_hand(client, NAMESPACE, name, direct) for name in ("plain-quick", "plain-loads")}
    return found


def _median(wakes: list[Wake], value: Callable[[Wake], float]) -> float:
    return statistics.median(map(value, wakes))


# --- scikit-learn -------------------------------------------------------------------------------------------------


async def measure_iris(bench: Bench) -> None:
    """The model server is ours, and fetches the model over HTTP from a pod of the cluster, as it would from a bucket."""
    with TemporaryDirectory() as directory:
        right = iris_model(Path(directory))
        bench.kind.kubectl("create", "configmap", "iris", "-n", NAMESPACE, f"--from-file={directory}/model.skops")
    bench.apply(*_model_store())
    bench.kind.kubectl("rollout", "status", "-n", NAMESPACE, "deployment/models", "--timeout=60s")
    bench.apply(iris_service("iris", f"http://models.{NAMESPACE}.svc.cluster.local/model.skops", namespace=NAMESPACE))
    bench.await_ready(["iris"])
    path = f"{names.path('iris', NAMESPACE)}/v1/models/iris:predict"
    body = json.dumps({"instances": [ROW]}).encode()
    http = Http(bench.gateway)
    subject = Subject(
        bench.client,
        NAMESPACE,
        "iris-predictor",
        lambda: http.call(path, body, timeout=60.0, fresh=True),
        f"{names.LABEL_WORKLOAD}=iris-predictor",
    )
    took = []
    for _ in range(bench.options.rounds):
        await subject.asleep()
        began = time.monotonic()
        answer = json.loads(await subject.send())
        took.append(time.monotonic() - began)
        if answer["predictions"] != right:
            raise SystemExit(f"iris: the answer is wrong: {answer}")
    bench.figures.add("sklearn iris from zero, our runtime, whole, p50", statistics.median(took), "s", goal=2.2)
    bench.figures.add("sklearn iris from zero, our runtime, worst", max(took), "s")


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
    deployment = {"selector": {"matchLabels": labels}, "template": template}
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "models"}, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "models"}, "spec": service},
    ]
