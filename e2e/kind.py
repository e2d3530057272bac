"""A kind cluster of one control-plane node and two workers, with the chart installed, for the length of a test session.

It needs docker, kind, kubectl and helm, and the images that `make images` builds. `FAIRLEAD_E2E_KEEP=1` leaves the cluster and takes it up again;
`FAIRLEAD_E2E_CLUSTER` names it and `FAIRLEAD_E2E_TAG` the images' tag, so that several can work on one machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from e2e.cluster import ARTIFACTS, SAMPLES, Cluster, KubectlError, Part, mirrors, until
from fairlead.local.supervisor.home import free_port

NAME = "-".join(
    filter(None, (os.environ.get("FAIRLEAD_E2E_CLUSTER", "fairlead-e2e"), os.environ.get("PYTEST_XDIST_WORKER")))
)
"""Workers of pytest-xdist are sessions of their own, and some scenarios break a cluster for all: each has one."""
TAG = os.environ.get("FAIRLEAD_E2E_TAG", "0.1.0")
NODE_IMAGE = os.environ.get("FAIRLEAD_KIND_NODE", "kindest/node:v1.34.10")
SYSTEM = "fairlead-system"
MODELS = "e2e-models"
RUNTIME_IMAGE = f"fairlead/runtime-core:{TAG}"
CUSTOM_IMAGE = "python:3.11-slim"
"""Of containers that are no model servers of ours; their own images are built on it, so that loading it too costs little."""
SAMPLES_RUNTIME_IMAGE = "fairlead/runtime-core:0.1.0"
IMAGES = tuple(
    dict.fromkeys(
        (f"fairlead/operator:{TAG}", f"fairlead/haproxy:{TAG}", RUNTIME_IMAGE, SAMPLES_RUNTIME_IMAGE, CUSTOM_IMAGE)
    )
)
RAY_IMAGE = f"fairlead/runtime-ray:{TAG}"
TORCH_IMAGE = f"fairlead/runtime-torch:{TAG}"
"""Both are loaded where they have been built; without them, the scenarios that need them are skipped."""
CHART = Path(__file__).parent.parent / "charts" / "fairlead"
NODE_PORT = 30080


class KindCluster(Cluster):
    def __init__(
        self,
        directory: Path,
        models: dict[str, Path],
        *,
        files: Sequence[Path] = (),
        mirrored: Mapping[str, str] | None = None,
    ) -> None:
        """`models` are served as `{name}.skops`, `files` under their own names; `mirrored` adds to the chart's `storage.mirrors`."""
        self.directory, self.models, self.files, self.mirrored = directory, models, files, mirrored or {}
        self.kubeconfig = directory / "kubeconfig"
        self.keep = os.environ.get("FAIRLEAD_E2E_KEEP") == "1"

    def __enter__(self) -> Self:
        if NAME in _run("kind", "get", "clusters").split():
            self.kubeconfig.write_text(_run("kind", "get", "kubeconfig", "--name", NAME))
            self.gateway = f"http://127.0.0.1:{self._host_port()}"
            taken_up = True
        else:
            self._create()
            taken_up = False
        if not _run("docker", "images", "--quiet", CUSTOM_IMAGE).strip():
            _run("docker", "pull", CUSTOM_IMAGE, timeout=300)
        images = [*IMAGES, *filter(self.has_image, (RAY_IMAGE, TORCH_IMAGE))]
        _run("kind", "load", "docker-image", "--name", NAME, "--nodes", ",".join(self.workers), *images, timeout=1200)
        self._serve_models()
        self.helm_upgrade()
        if taken_up:  # the images' tag is the same as in the session before, their contents may not be
            for deployment in ("fairlead-operator", "fairlead-gateway"):
                self.kubectl("rollout", "restart", f"deployment/{deployment}", "-n", SYSTEM)
            for deployment in ("fairlead-operator", "fairlead-gateway"):
                self.kubectl("rollout", "status", f"deployment/{deployment}", "-n", SYSTEM, timeout=300)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            _run("kind", "delete", "cluster", "--name", NAME)

    @property
    def workers(self) -> list[str]:
        return [f"{NAME}-worker", f"{NAME}-worker2"]

    def has_image(self, image: str) -> bool:
        return bool(_run("docker", "images", "--quiet", image).strip())

    def _create(self) -> None:
        port = free_port()
        mapping = {"containerPort": NODE_PORT, "hostPort": port, "listenAddress": "127.0.0.1"}
        config = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "featureGates": {"ImageVolume": True},  # by itself on from Kubernetes 1.35
            "nodes": [
                {"role": "control-plane", "extraPortMappings": [mapping]},
                {"role": "worker"},
                {"role": "worker"},
            ],
        }
        path = self.directory / "kind.json"
        path.write_text(json.dumps(config))
        create = ("kind", "create", "cluster", "--name", NAME, "--image", NODE_IMAGE, "--config", str(path))
        _run(*create, "--kubeconfig", str(self.kubeconfig), "--wait", "300s", timeout=900)
        self.gateway = f"http://127.0.0.1:{port}"

    def _host_port(self) -> str:
        return _run("docker", "port", f"{NAME}-control-plane", f"{NODE_PORT}/tcp").strip().rpartition(":")[2]

    def helm(self, *arguments: str, timeout: float = 360) -> str:
        """Run helm against this cluster and return its stdout."""
        return _run("helm", *arguments, "--namespace", SYSTEM, "--kubeconfig", str(self.kubeconfig), timeout=timeout)

    def helm_upgrade(self, *settings: str) -> None:
        """Install or upgrade the chart and wait until all of it is up, and the nodes lead to it."""
        values = {
            "image": {"tag": TAG},
            "gateway": {"service": {"type": "NodePort", "nodePort": NODE_PORT}},
            "storage": {
                "mirrors": {**mirrors(f"http://models.{MODELS}.svc.cluster.local/"), **self.mirrored},
                "imageVolumes": "on",
            },
        }
        path = self.directory / "values.json"
        path.write_text(json.dumps(values))
        flags = [word for setting in settings for word in ("--set", setting)]
        install = ("upgrade", "--install", "fairlead", str(CHART), "--create-namespace", "--values", str(path))
        self.helm(*install, "--wait", "--timeout", "300s", *flags)
        self.await_gateway()

    def make_namespace(self, name: str) -> None:
        """With the ServiceAccount that the control plane adds a moment later, and without which no pod is let in."""
        super().make_namespace(name)
        find = ("get", "serviceaccounts", "--namespace", name, "-o", "name")
        until(
            lambda: self.kubectl(*find).split(),
            lambda found: "serviceaccount/default" in found,
            "with a ServiceAccount",
        )

    def _serve_models(self) -> None:
        """The models as files behind a plain HTTP server in the cluster."""
        labels = {"app": "models"}
        container = {
            "name": "http",
            "image": RUNTIME_IMAGE,
            "command": ["python", "-m", "http.server", "8080", "--directory", "/models"],
            "volumeMounts": [{"name": "models", "mountPath": "/models"}],
        }
        pod = {
            "nodeSelector": {"kubernetes.io/hostname": self.workers[0]},  # the node that no scenario drains
            "containers": [container],
            "volumes": [{"name": "models", "configMap": {"name": "models"}}],
        }
        files = [f"--from-file={key}.skops={path / 'model.skops'}" for key, path in self.models.items()]
        files += [f"--from-file={path}" for path in (SAMPLES / "models", *self.files)]
        create = ("create", "--dry-run=client", "-o", "json")
        namespace = self.kubectl(*create, "namespace", MODELS)
        config = self.kubectl(*create, "configmap", "models", "--namespace", MODELS, *files)
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "models"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
        }
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "models"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        }
        self.kubectl("apply", "-f", "-", stdin=namespace)
        # By the server: kubectl would keep a copy in an annotation, which has a limit.
        whole = ("apply", "--server-side", "--force-conflicts")
        self.kubectl(*whole, "--namespace", MODELS, "-f", "-", stdin=config)
        self.apply(MODELS, deployment, service)
        self.kubectl("rollout", "status", "deployment/models", "-n", MODELS, "--timeout=300s", timeout=330)

    def model_uri(self, directory: Path) -> str:
        return f"http://models.{MODELS}.svc.cluster.local/{directory.name}.skops"

    def kill(self, part: Part, namespace: str = "") -> None:
        if part is Part.OPERATOR:
            self._kill_containers(SYSTEM, "operator")
        elif part is Part.GATEWAY_AGENT:
            # One of two: a pod whose agent is down is not ready, and without a ready gateway nodes refuse connections.
            self._kill_containers(SYSTEM, "agent", limit=1)
        elif part is Part.HAPROXY:
            self._kill_containers(SYSTEM, "haproxy", limit=1)
        elif part is Part.API_SERVER:
            self._kill_containers("kube-system", "kube-apiserver")
        else:
            self._kill_containers(namespace, "kserve-container", limit=1)

    def _kill_containers(self, namespace: str, container: str, limit: int = 100) -> None:
        """SIGKILL to the main process of a container, in all pods of the namespace that have it or in so many."""
        pods: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
        statuses = [
            (pod["spec"]["nodeName"], status["containerID"].removeprefix("containerd://"))
            for pod in pods
            for kind in ("containerStatuses", "initContainerStatuses")  # sidecars are among the latter
            for status in pod["status"].get(kind, [])
            if status["name"] == container and "running" in status["state"]
        ]
        assert statuses, f"no running container {container} in {namespace}"
        for node, identifier in statuses[:limit]:
            # The node images have ctr always, crictl only where kind's authors built them.
            tasks = _run("docker", "exec", node, "ctr", "--namespace", "k8s.io", "tasks", "ls")
            pids = {task: pid for task, pid, *_ in (line.split() for line in tasks.splitlines()[1:])}
            assert identifier in pids, f"container {container} in {namespace} has ended by itself"
            end = f"kill -9 {pids[identifier]}; while [ -d /proc/{pids[identifier]} ]; do sleep 0.05; done"
            _run("docker", "exec", node, "sh", "-c", end)

    def save_state(self, namespace: str, test: str) -> None:
        super().save_state(namespace, test)
        targets = {
            "operator": (SYSTEM, "deployment/fairlead-operator"),
            "gateway": (SYSTEM, "deployment/fairlead-gateway"),
        }
        for pod in self.kubectl("get", "pods", "-n", namespace, "-o", "name").split():
            targets[pod.replace("/", "-")] = (namespace, pod)
        for name, (where, target) in targets.items():
            for suffix, flags in (("", ()), ("-previous", ("--previous",))):
                try:
                    text = self.kubectl("logs", "-n", where, target, "--all-containers", "--tail=2000", *flags)
                except (KubectlError, subprocess.TimeoutExpired) as error:  # gone by now, or never restarted
                    text = "" if flags else str(error)
                if text:
                    (ARTIFACTS / test / f"{name}{suffix}.log").write_text(text)


def _run(*command: str, timeout: float = 120) -> str:
    """Run a program and return what it printed; an AssertionError with its stderr if it fails."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        took = time.monotonic() - started
        raise AssertionError(f"{' '.join(command)} failed after {took:.0f} s: {done.stderr.strip()[-2000:]}")
    return done.stdout
