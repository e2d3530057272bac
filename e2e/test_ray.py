"""Ray: replicas in a pod, and a model over several pods; what is lost of either is replaced, and no request with it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from e2e.cluster import SAMPLE_MODELS, Cluster, LocalCluster
from e2e.kind import RAY_IMAGE, KindCluster
from e2e.load import Load

START_SECONDS = 240
"""Ray's, on a machine that does other things."""
TITLE = "ray::ServeReplica:fairlead:rule"
FIND = f"""
import pathlib
titles = {{p.parent.name: p.read_bytes() for p in pathlib.Path("/proc").glob("[0-9]*/cmdline")}}
found = [pid for pid, title in titles.items() if title.startswith(b"{TITLE}")]
print(" ".join(found))
"""


def rule(*args: str, **predictor: Any) -> dict[str, Any]:
    """A class that the samples have, which answers a number; on Ray, because that is where classes go unless they say otherwise."""
    model = {
        "modelFormat": {"name": "python"},
        "storageUri": f"{SAMPLE_MODELS}scorer.py",
        "args": list(args),
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "rule", "annotations": {"fairlead.dev/allow-pickle": "true"}},
        "spec": {"predictor": {"model": model, **predictor}},
    }


@pytest.fixture(autouse=True)
def image(cluster: Cluster) -> None:
    if isinstance(cluster, KindCluster) and not cluster.has_image(RAY_IMAGE):
        pytest.skip(f"{RAY_IMAGE} is not built: make images")


@pytest.mark.timeout(480, func_only=True)
def test_a_lost_replica_in_a_pod_is_replaced_without_a_failed_request(cluster: Cluster, namespace: str) -> None:
    cluster.apply(namespace, rule("--workers=2"))
    cluster.wait_ready(namespace, "rule", START_SECONDS)
    until("two replicas", lambda: len(replicas(cluster, namespace)) == 2)
    with Load(cluster.url(namespace, "rule", "/v1/models/rule:predict"), rate=40) as load:
        load.answers.wait_any(40)
        lost = replicas(cluster, namespace)[0]
        kill(cluster, namespace, lost)
        until("replaced", lambda: lost not in (now := replicas(cluster, namespace)) and len(now) == 2)
        load.answers.wait_any(120)
    assert load.answers.failures == []


@pytest.mark.timeout(900, func_only=True)
def test_a_model_over_two_pods_outlives_each_of_them_without_a_failed_request(cluster: Cluster, namespace: str) -> None:
    if isinstance(cluster, LocalCluster):
        pytest.skip("the embedded cluster is one machine: pods find no others by name")
    cluster.apply(namespace, rule(workerSpec={"pipelineParallelSize": 2}))
    cluster.wait_ready(namespace, "rule", START_SECONDS)
    until("two pods that serve", lambda: len(serving(cluster, namespace)) == 2)
    with Load(cluster.url(namespace, "rule", "/v1/models/rule:predict"), rate=40) as load:
        for role in ("worker", "head"):
            time.sleep(1)
            before = serving(cluster, namespace)
            labels = f"fairlead.dev/role={role},serving.kserve.io/inferenceservice=rule"
            deleted = cluster.kubectl("get", "pods", "-n", namespace, "-l", labels, "-o", "name").strip()
            cluster.kubectl("delete", "-n", namespace, deleted, "--wait=false")
            # The worker that is left leaves its head for the new one, too.
            leave = before if role == "head" else {deleted.removeprefix("pod/")}
            until(f"two again after the {role}", two_again(cluster, namespace, before, leave))
            time.sleep(2)
            assert load.answers.failures == [], f"the {role} was deleted"
    assert sum(load.answers.values.values()) > 200
    cluster.wait_ready(namespace, "rule", START_SECONDS)


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not {what}"
        time.sleep(0.5)


def two_again(cluster: Cluster, namespace: str, before: set[str], leave: set[str]) -> Callable[[], bool]:
    """Whether all of `leave` have been seen to take no requests, and two pods do now."""
    left: set[str] = set()

    def holds() -> bool:
        now = serving(cluster, namespace)
        left.update(before - now)
        return left >= leave and len(now) == 2

    return holds


def serving(cluster: Cluster, namespace: str) -> set[str]:
    """The pods that the workload's Service leads to now."""
    selector = "kubernetes.io/service-name=rule-predictor"
    slices = json.loads(cluster.kubectl("get", "endpointslices", "-n", namespace, "-l", selector, "-o", "json"))
    endpoints = [endpoint for item in slices["items"] for endpoint in item["endpoints"] or ()]
    return {endpoint["targetRef"]["name"] for endpoint in endpoints if endpoint["conditions"]["ready"]}


def replicas(cluster: Cluster, namespace: str) -> list[int]:
    """Process ids of Ray's replicas in the namespace's only pod, as the pod sees them."""
    if isinstance(cluster, LocalCluster):
        assert cluster.process is not None
        found = []
        for child in psutil.Process(cluster.process.pid).children(recursive=True):
            try:
                if " ".join(child.cmdline()).startswith(TITLE) and child.environ().get("POD_NAMESPACE") == namespace:
                    found.append(child.pid)
            except psutil.NoSuchProcess:
                continue
        return found
    return [int(pid) for pid in in_pod(cluster, namespace, FIND).split()]


def kill(cluster: Cluster, namespace: str, pid: int) -> None:
    if isinstance(cluster, LocalCluster):
        os.kill(pid, signal.SIGKILL)
    else:
        in_pod(cluster, namespace, f"import os; os.kill({pid}, 9)")


def in_pod(cluster: Cluster, namespace: str, script: str) -> str:
    return cluster.kubectl("exec", "-n", namespace, "deployment/rule-predictor", "--", "python", "-c", script)
