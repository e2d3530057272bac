"""What Fairlead costs on Kubernetes, beside a plain Deployment and NodePort Service of the same image: on a kind cluster of one node.

    python benchmarks/kubernetes.py [--json FILE] [--rounds 5]

Needs docker, kind, kubectl, helm and the images of `make images`. It makes a cluster of its own and deletes it. The model is an HAProxy that answers
by itself, ready at once: the fastest server at hand, so that what is measured is the way to it. Plain and Fairlead take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _figures import Figures
from _load import http_load, http_request

NAME = "fairlead-bench"
NODE = f"{NAME}-control-plane"
NODE_IMAGE = os.environ.get("FAIRLEAD_KIND_NODE", "kindest/node:v1.34.10")
CHART = Path(__file__).parent.parent / "charts" / "fairlead"
IMAGES = ("fairlead/operator:0.1.0", "fairlead/haproxy:0.1.0")
SYSTEM = "fairlead-system"
GATEWAY_PORT, PLAIN_PORT = 30080, 30081
IDLE_SECONDS = 30
REQUEST_PATH = "/v1/models/fast:predict"
BODY = b'{"instances":[[5.1,3.5,1.4,0.2]]}'

ANSWER = """
defaults
    mode http
    timeout client 60s
    timeout http-keep-alive 60s
frontend model
    bind :8080
    http-request return status 200 content-type application/json string '{"predictions":[1]}'
"""


def run(*command: str, text: str | None = None, timeout: float = 300) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:4])} …: {done.stderr.strip()[-1000:]}")
    return done.stdout


class Bench:
    """The cluster, with the chart in it."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = str(kubeconfig)

    def kubectl(self, *arguments: str, objects: list[dict[str, Any]] | None = None) -> str:
        text = None if objects is None else "\n---\n".join(json.dumps(item) for item in objects)
        return run("kubectl", "--kubeconfig", self.kubeconfig, *arguments, text=text)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", objects=list(objects))

    def install(self) -> float:
        """Seconds until all of the chart is ready, with one replica of each part."""
        started = time.monotonic()
        settings = ("gateway.service.type=NodePort", f"gateway.service.nodePort={GATEWAY_PORT}")
        flags = [f"--set={setting}" for setting in (*settings, "operator.replicas=1", "gateway.replicas=1")]
        where = ("--kubeconfig", self.kubeconfig, "--namespace", SYSTEM, "--create-namespace")
        run("helm", "install", "fairlead", str(CHART), *where, *flags, "--wait", "--timeout", "180s")
        return time.monotonic() - started

    def usage(self) -> tuple[float, float]:
        """Working set in MiB and CPU so far in seconds, of all the control plane's containers."""
        summary = json.loads(self.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/stats/summary"))
        pods = [pod for pod in summary["pods"] if pod["podRef"]["namespace"] == SYSTEM]
        containers = [container for pod in pods for container in pod["containers"]]
        memory = sum(container["memory"]["workingSetBytes"] for container in containers) / 2**20
        return memory, sum(container["cpu"]["usageCoreNanoSeconds"] for container in containers) / 1e9


@contextmanager
def cluster() -> Iterator[tuple[Bench, dict[int, int]]]:
    """A new cluster and the local ports that lead to its node ports."""
    with tempfile.TemporaryDirectory() as directory:
        kubeconfig, config = Path(directory, "kubeconfig"), Path(directory, "kind.json")
        mappings = [{"containerPort": port, "listenAddress": "127.0.0.1"} for port in (GATEWAY_PORT, PLAIN_PORT)]
        nodes = [{"role": "control-plane", "extraPortMappings": mappings}]
        config.write_text(json.dumps({"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": nodes}))
        create = ("kind", "create", "cluster", "--name", NAME, "--image", NODE_IMAGE, "--config", str(config))
        try:
            run(*create, "--kubeconfig", str(kubeconfig), "--wait", "180s")
            run("kind", "load", "docker-image", "--name", NAME, *IMAGES)
            ports = {
                port: int(run("docker", "port", NODE, f"{port}/tcp").strip().rpartition(":")[2])
                for port in (GATEWAY_PORT, PLAIN_PORT)
            }
            yield Bench(kubeconfig), ports
        finally:
            run("kind", "delete", "cluster", "--name", NAME, "--kubeconfig", str(kubeconfig))


# --- The model, plain and as an InferenceService ----------------------------------------------------------------


def pod() -> dict[str, Any]:
    container = {
        "name": "kserve-container",
        "image": IMAGES[1],
        "command": ["haproxy", "-f", "/etc/answer/haproxy.cfg"],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"cpu": "2", "memory": "256Mi"}},
        "volumeMounts": [{"name": "answer", "mountPath": "/etc/answer"}],
    }
    return {"containers": [container], "volumes": [{"name": "answer", "configMap": {"name": "answer"}}]}


def plain() -> list[dict[str, Any]]:
    labels = {"app": "plain"}
    template = {"metadata": {"labels": labels}, "spec": pod()}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "plain"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    port = {"port": 80, "targetPort": 8080, "nodePort": PLAIN_PORT}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "plain"},
        "spec": {"type": "NodePort", "selector": labels, "ports": [port]},
    }
    return [deployment, service]


def fast() -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "fast"},
            "spec": {"predictor": pod()},
        }
    ]


def ready_seconds(bench: Bench, objects: list[dict[str, Any]], condition: str, target: str) -> float:
    """From `kubectl apply` to the condition."""
    started = time.monotonic()
    bench.apply(*objects)
    bench.kubectl("wait", f"--for=condition={condition}", target, "--timeout=90s")
    return time.monotonic() - started


def medians(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """The median of each measure; they take turns."""
    taken = [[measure() for measure in measures] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def measure_ready(bench: Bench, rounds: int, figures: Figures) -> None:
    def plainly() -> float:
        bench.kubectl("delete", "deployment,service", "plain", "--ignore-not-found", "--wait")
        return ready_seconds(bench, plain(), "Available", "deployment/plain")

    def served() -> float:
        bench.kubectl("delete", "isvc", "fast", "--ignore-not-found", "--wait")
        bench.kubectl("wait", "--for=delete", "deployment/fast-predictor", "--timeout=60s")
        return ready_seconds(bench, fast(), "Ready", "isvc/fast")

    without, with_it = medians(rounds, plainly, served)
    figures.add("apply to available, plain Deployment", without, "s")
    figures.add("apply to Ready", with_it, "s", goal=without + 0.2)


def measure_requests(ports: dict[int, int], rounds: int, figures: Figures) -> None:
    direct, through = (http_request(f"{prefix}{REQUEST_PATH}", BODY) for prefix in ("", "/serving/default/fast"))

    def latency(port: int, request: bytes) -> float:
        return http_load(ports[port], request, 1, 2).percentile(50) * 1000

    def rate(port: int, request: bytes) -> float:
        return http_load(ports[port], request, 32, 2).rate

    def both(measure: Callable[[int, bytes], float]) -> list[float]:
        return medians(rounds, lambda: measure(PLAIN_PORT, direct), lambda: measure(GATEWAY_PORT, through))

    without, with_it = both(latency)
    figures.add("p50 at 1 connection, plain", without, "ms")
    figures.add("p50 at 1 connection, added", with_it - without, "ms", goal=0.15)
    without, with_it = both(rate)
    figures.add("requests/s at 32 connections, of plain", with_it / without, "ratio", goal=0.5, at_least=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    figures = Figures("On Kubernetes (kind, one node)")
    with cluster() as (bench, ports):
        figures.add("helm install to all ready", bench.install(), "s", goal=30)
        time.sleep(IDLE_SECONDS)  # what starting costs is over
        _, before = bench.usage()
        started = time.monotonic()
        time.sleep(IDLE_SECONDS)
        memory, after = bench.usage()
        figures.add("control plane at idle, memory", memory, "MiB", goal=160)
        cores = (after - before) / (time.monotonic() - started)
        figures.add("control plane at idle, CPU", cores * 1000, "m", goal=8)
        bench.kubectl("create", "configmap", "answer", f"--from-literal=haproxy.cfg={ANSWER}")
        measure_ready(bench, options.rounds, figures)
        measure_requests(ports, options.rounds, figures)
    figures.finish(options.json)


if __name__ == "__main__":
    main()
