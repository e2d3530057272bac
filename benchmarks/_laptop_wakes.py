"""Part of autoscaling.py: a small scikit-learn model from zero on the embedded cluster, by both engines, and where the time goes."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _calls import Failed, Http
from _figures import Figures
from control_plane import Cluster, cpu_seconds, descendants, laptop_cluster

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.resources import DEPLOYMENTS, INFERENCE_SERVICES, PODS

GOALS = {"process": 2.0, "ray": 8.5}
NAMESPACE = "default"
TIMEOUT = 90.0
ROW = [5.1, 3.5, 1.4, 0.2]


def iris_model(directory: Path) -> list[int]:
    """Writes `model.skops`; what it predicts for ROW."""
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    rows, kinds = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(rows, kinds)
    directory.mkdir(parents=True, exist_ok=True)
    skops.io.dump(model, directory / "model.skops")
    return [int(kind) for kind in model.predict([ROW])]


def iris_service(name: str, uri: str, *arguments: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """At zero as soon as nothing asks for a second."""
    model: dict[str, Any] = {"modelFormat": {"name": "sklearn"}, "storageUri": uri}
    if arguments:
        model["args"] = list(arguments)
    annotations = {names.SCALE_TO_ZERO_DELAY: "1s", names.STABLE_WINDOW: "4s", names.PANIC_WINDOW: "2s"}
    return {
        "apiVersion": INFERENCE_SERVICES.api_version,
        "kind": INFERENCE_SERVICES.kind,
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"predictor": {"model": model, "minReplicas": 0, "maxReplicas": 1}},
    }


@dataclass(frozen=True)
class LaptopWake:
    """Seconds from the request on; `cpu` is the model server's and its children's CPU time until the answer."""

    scaled: float
    started: float
    answered: float
    cpu: float


async def measure_laptop(figures: Figures, rounds: int, engines: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="fairlead-model-") as directory, laptop_cluster() as is_up:
        right = await asyncio.to_thread(iris_model, Path(directory))
        cluster = await asyncio.to_thread(is_up)
        async with await Client.connect(cluster.running.kubeconfig) as client:
            for engine in engines:
                name = f"iris-{engine}"
                await client.create(INFERENCE_SERVICES, iris_service(name, f"file://{directory}", f"--engine={engine}"))
                wakes = [await _wake(client, cluster, name, right) for _ in range(rounds)]
                _report(figures, engine, wakes)
                await client.delete(INFERENCE_SERVICES, name, NAMESPACE)


def _report(figures: Figures, engine: str, wakes: list[LaptopWake]) -> None:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    title = f"embedded cluster, {engine} engine"
    figures.add(f"{title}: request from zero", median([w.answered for w in wakes]), "s", goal=GOALS[engine])
    figures.add(f"{title}: worst", max(w.answered for w in wakes), "s")
    figures.add(f"{title}: until the Deployment is scaled", median([w.scaled for w in wakes]), "s")
    figures.add(f"{title}: from there to the process's start", median([w.started - w.scaled for w in wakes]), "s")
    figures.add(f"{title}: from there to the answer", median([w.answered - w.started for w in wakes]), "s")
    figures.add(f"{title}: CPU time of the model server until then", median([w.cpu for w in wakes]), "s")


async def _wake(client: Client, cluster: Cluster, name: str, right: list[int]) -> LaptopWake:
    await _asleep(client, name)
    seen: dict[str, float] = {}
    version = (await client.list(DEPLOYMENTS, NAMESPACE)).resource_version
    watching = asyncio.create_task(_scaled(client, version, f"{name}-predictor", seen))
    http = Http(int(cluster.running.url.rpartition(":")[2]))
    path = f"{names.path(name, NAMESPACE)}/v1/models/{name}:predict"
    sent = time.time()
    try:
        answer = json.loads(
            await http.call(path, json.dumps({"instances": [ROW]}).encode(), timeout=TIMEOUT, fresh=True)
        )
    except Failed as failed:
        raise SystemExit(f"{name}: {failed}") from failed
    answered = time.time()
    watching.cancel()
    if answer["predictions"] != right:
        raise SystemExit(f"{name}: the answer is wrong: {answer}")
    servers = cluster.parts()["model server"]
    used = sum(cpu_seconds(pid) for pid in {*servers, *(child for pid in servers for child in descendants(pid))})
    return LaptopWake(seen.get("scaled", answered) - sent, min(map(_started, servers)) - sent, answered - sent, used)


async def _asleep(client: Client, name: str, timeout: float = 120.0) -> None:
    """At zero after having been Ready, with no pod left."""
    deadline = time.monotonic() + timeout
    labels = f"{names.LABEL_INFERENCE_SERVICE}={name}"
    while time.monotonic() < deadline:
        deployments = (await client.list(DEPLOYMENTS, NAMESPACE, labels=labels)).items
        pods = (await client.list(PODS, NAMESPACE, labels=labels)).items
        if deployments and not pods and all(item["spec"].get("replicas", 1) == 0 for item in deployments):
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"{name} is not at zero after {timeout:g} s")


async def _scaled(client: Client, version: str, deployment: str, seen: dict[str, float]) -> None:
    async for event in client.watch(DEPLOYMENTS, NAMESPACE, resource_version=version):
        if event.object["metadata"].get("name") == deployment and event.object["spec"].get("replicas", 1):
            seen.setdefault("scaled", time.time())


def _started(pid: int) -> float:
    """The moment at which a process was started, by the machine's clock, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age
