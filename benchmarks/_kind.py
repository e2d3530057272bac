"""A kind cluster of one node for benchmarks, with the chart in it: made, used from outside, deleted."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fairlead.api.quantity import parse_quantity

NODE_IMAGE = os.environ.get("FAIRLEAD_KIND_NODE", "kindest/node:v1.34.10")
CHART = Path(__file__).parent.parent / "charts" / "fairlead"
SYSTEM = "fairlead-system"
GATEWAY_PORT, PLAIN_PORT = 30080, 30081

Object = dict[str, Any]


class Unmeasurable(Exception):
    """What was to be measured did not come about; the message says what, and what the program that was asked said."""


def run(*command: str, text: str | None = None, timeout: float = 300) -> str:
    """What the program prints. Raises Unmeasurable with its complaint if it fails, or does not end in time."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unmeasurable(f"{' '.join(command[:6])} … did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        raise Unmeasurable(f"{' '.join(command[:6])} …: {done.stderr.strip()[-1000:]}")
    return done.stdout


@dataclass(frozen=True)
class Usage:
    """Of one container: MiB in its working set, and seconds of CPU at a moment by the node's clock."""

    memory: float
    cpu: float
    at: str

    def millicores_since(self, before: Usage) -> float:
        seconds = _seconds(self.at) - _seconds(before.at)
        return 1000 * (self.cpu - before.cpu) / seconds if seconds > 0 else 0.0


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


@dataclass
class Kind:
    """The cluster. `ports` are the local ports that lead to its node ports."""

    name: str
    tag: str
    kubeconfig: str
    ports: dict[int, int] = field(default_factory=dict)
    kept: bool = False
    """Whether it was there before."""

    @property
    def node(self) -> str:
        return f"{self.name}-control-plane"

    @property
    def images(self) -> tuple[str, str]:
        return f"fairlead/operator:{self.tag}", f"fairlead/haproxy:{self.tag}"

    def kubectl(self, *arguments: str, objects: Sequence[Object] | None = None, timeout: float = 120) -> str:
        text = None if objects is None else "\n---\n".join(json.dumps(item) for item in objects)
        return run("kubectl", "--kubeconfig", self.kubeconfig, *arguments, text=text, timeout=timeout)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: Object) -> None:
        self.kubectl("apply", "-f", "-", objects=objects)

    def install(self) -> float:
        """Seconds until all of the chart is ready, with one replica of each part."""
        started = time.monotonic()
        settings = ["gateway.service.type=NodePort", f"gateway.service.nodePort={GATEWAY_PORT}"]
        settings += ["operator.replicas=1", "gateway.replicas=1", f"image.tag={self.tag}"]
        flags = [f"--set={setting}" for setting in settings]
        where = ("--kubeconfig", self.kubeconfig, "--namespace", SYSTEM, "--create-namespace")
        run("helm", "upgrade", "--install", "fairlead", str(CHART), *where, *flags, "--wait", "--timeout", "180s")
        seconds = time.monotonic() - started
        if self.kept:  # the images' tag is the same as before, their contents may not be
            for deployment in ("fairlead-operator", "fairlead-gateway"):
                self.kubectl("rollout", "restart", "-n", SYSTEM, f"deployment/{deployment}")
                self.kubectl("rollout", "status", "-n", SYSTEM, f"deployment/{deployment}", "--timeout=120s")
                self.await_pods(SYSTEM, f"app.kubernetes.io/name={deployment}", 1)
        return seconds

    def scale(self, deployment: str, replicas: int, namespace: str = SYSTEM) -> None:
        self.kubectl("scale", "-n", namespace, f"deployment/{deployment}", f"--replicas={replicas}")
        self.kubectl("rollout", "status", "-n", namespace, f"deployment/{deployment}", "--timeout=120s")
        self.await_pods(namespace, f"app.kubernetes.io/name={deployment}", replicas)

    def pods(self, namespace: str, selector: str) -> list[Object]:
        """Those that are not on their way out."""
        items: list[Object] = self.get("pods", "-n", namespace, "-l", selector)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def await_pods(self, namespace: str, selector: str, count: int, timeout: float = 120) -> None:
        """Until there are just so many, counting those that are on their way out."""
        deadline = time.monotonic() + timeout
        while len(self.get("pods", "-n", namespace, "-l", selector)["items"]) != count:
            if time.monotonic() > deadline:
                raise Unmeasurable(f"there are not {count} pods of {selector} after {timeout:.0f} s")
            time.sleep(0.5)

    def kill_container(self, pod: Object, container: str) -> None:
        """SIGKILL to the container's main process."""
        statuses = pod["status"]["containerStatuses"]
        full = next(status["containerID"] for status in statuses if status["name"] == container)
        # The node images have ctr always, crictl only where kind's authors built them.
        tasks = run("docker", "exec", self.node, "ctr", "--namespace", "k8s.io", "tasks", "ls")
        pids = {task: pid for task, pid, *_ in (line.split() for line in tasks.splitlines()[1:])}
        run("docker", "exec", self.node, "kill", "-9", pids[full.removeprefix("containerd://")])

    # --- What it costs --------------------------------------------------------------------------------------

    def usage(self, namespace: str = SYSTEM) -> dict[str, Usage]:
        """Of each container of the namespace, by `POD/CONTAINER`. The kubelet looks every ten seconds or so."""
        summary = json.loads(self.kubectl("get", "--raw", f"/api/v1/nodes/{self.node}/proxy/stats/summary"))
        return {
            f"{pod['podRef']['name']}/{container['name']}": Usage(
                container["memory"]["workingSetBytes"] / 2**20,
                container["cpu"]["usageCoreNanoSeconds"] / 1e9,
                container["cpu"]["time"],
            )
            for pod in summary["pods"]
            if pod["podRef"]["namespace"] == namespace
            for container in pod.get("containers", [])
            if "cpu" in container and "memory" in container
        }

    def requested(self, namespace: str = SYSTEM) -> float:
        """Millicores that the namespace's pods ask for."""
        total = 0.0
        for pod in self.pods(namespace, ""):
            spec = pod["spec"]
            sidecars = [c for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"]
            for container in [*spec["containers"], *sidecars]:
                total += 1000 * float(parse_quantity(container.get("resources", {}).get("requests", {}).get("cpu", 0)))
        return total


@contextmanager
def cluster(name: str, tag: str, *, keep: bool) -> Iterator[Kind]:
    """A new cluster with the images loaded, or with `keep` the one that was kept, which is left again."""
    with tempfile.TemporaryDirectory(prefix="fairlead-kind-") as directory:
        kind = Kind(name, tag, str(Path(directory, "kubeconfig")))
        try:
            kind.kept = keep and name in run("kind", "get", "clusters").split()
            if kind.kept:
                Path(kind.kubeconfig).write_text(run("kind", "get", "kubeconfig", "--name", name))
            else:
                _create(kind, Path(directory))
            run("kind", "load", "docker-image", "--name", name, *kind.images)
            for port in (GATEWAY_PORT, PLAIN_PORT):
                kind.ports[port] = int(run("docker", "port", kind.node, f"{port}/tcp").strip().rpartition(":")[2])
            yield kind
        finally:
            if not keep:
                run("kind", "delete", "cluster", "--name", name)


def _create(kind: Kind, directory: Path) -> None:
    mappings = [{"containerPort": port, "listenAddress": "127.0.0.1"} for port in (GATEWAY_PORT, PLAIN_PORT)]
    # With a thousand services Kubernetes' own controllers, at 20 requests a second, would be what is measured.
    hurry = {"controllerManager": {"extraArgs": {"kube-api-qps": "300", "kube-api-burst": "600"}}}
    config = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane", "extraPortMappings": mappings}],
        "kubeadmConfigPatches": [
            json.dumps({"kind": "ClusterConfiguration", **hurry}),
            # A hundred services that start at once and the cluster's own pods are more than the usual 110.
            json.dumps({"kind": "KubeletConfiguration", "maxPods": 250}),
        ],
    }
    path = directory / "kind.json"
    path.write_text(json.dumps(config))
    create = ("kind", "create", "cluster", "--name", kind.name, "--image", NODE_IMAGE, "--config", str(path))
    run(*create, "--kubeconfig", kind.kubeconfig, "--wait", "180s")
