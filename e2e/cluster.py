"""A cluster under test: kubectl, the gateway's address, and what a failed test leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psutil

from fairlead.api import names
from fairlead.local.supervisor.home import free_port

ARTIFACTS = Path(__file__).parent / "artifacts"
PATIENCE = 120.0
"""Seconds until what is waited for counts as never coming: on a quiet machine most of it comes in two or three."""
Seen = TypeVar("Seen")
SAMPLES = Path(__file__).parent.parent / "manifests" / "samples"
SAMPLE_MODELS = "https://raw.githubusercontent.com/fairlead/fairlead/main/manifests/samples/models/"
"""Where the samples' models lie for their users. The clusters here are told of a mirror: no test leaves the machine."""
KSERVES_IRIS = "gs://kfserving-examples/models/sklearn/1.0/model"
KSERVES_OTHER_IRIS = "gs://kfserving-examples/models/sklearn/1.3/mixedtype"


def mirrors(models: str) -> dict[str, str]:
    """What stands for public addresses, where the samples' models lie below `models`."""
    return {
        SAMPLE_MODELS: models,
        KSERVES_IRIS: f"{models}iris.skops",
        KSERVES_OTHER_IRIS: f"{models}iris-v2.skops",
    }


class KubectlError(AssertionError):
    """kubectl said no; the message is what it printed."""


class Part(Enum):
    """What a scenario may kill. The value is what its process's command line contains on the laptop cluster."""

    API_SERVER = "fairlead.local.apiserver"
    OPERATOR = "fairlead.controllers"
    GATEWAY_AGENT = "fairlead.gateway"
    HAPROXY = "haproxy"
    MODEL_SERVER = "fairlead.runtime"


class Cluster:
    """What scenarios need of any cluster."""

    kubeconfig: Path
    gateway: str
    """The gateway's base URL, without a trailing slash."""

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = PATIENCE) -> str:
        """Run kubectl and return its stdout; KubectlError with its stderr if it fails."""
        done = subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, namespace: str, *objects: dict[str, Any]) -> None:
        manifest = "\n---\n".join(json.dumps(item) for item in objects)
        self.kubectl("apply", "--namespace", namespace, "-f", "-", stdin=manifest)

    def make_namespace(self, name: str) -> None:
        self.kubectl("create", "namespace", name)

    def await_api(self, timeout: float = PATIENCE) -> None:
        """Return once the API server answers."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.kubectl("get", "--raw", "/readyz", timeout=10)
                return
            except (KubectlError, subprocess.TimeoutExpired):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def get(self, namespace: str, name: str, kind: str = "isvc") -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "--namespace", namespace, "-o", "json"))
        return result

    def eventually(
        self, namespace: str, name: str, holds: Callable[[dict[str, Any]], bool], what: str, timeout: float = PATIENCE
    ) -> dict[str, Any]:
        """The InferenceService once `holds` of it; an AssertionError with its status if that does not come in time."""
        deadline = time.monotonic() + timeout
        while True:
            service = self.get(namespace, name)
            if holds(service):
                return service
            if time.monotonic() > deadline:
                status = json.dumps(service.get("status", {}), indent=1)
                raise AssertionError(f"{namespace}/{name}: not {what} after {timeout:g} s; status: {status}")
            time.sleep(0.1)

    def wait_ready(self, namespace: str, name: str, timeout: float = PATIENCE) -> dict[str, Any]:
        return self.eventually(namespace, name, is_ready, "Ready", timeout)

    def url(self, namespace: str, name: str, rest: str = "") -> str:
        return f"{self.gateway}/serving/{namespace}/{name}{rest}"

    def await_gateway(self) -> None:
        """Returns once the gateway answers, and keeps doing so: of several, one that was killed or is new has left or is there."""
        deadline, answered, last = time.monotonic() + PATIENCE, 0, ""
        while answered < 20:
            assert time.monotonic() < deadline, f"the gateway does not come back: {last}"
            try:
                httpx.get(self.gateway, timeout=10)
                answered += 1
            except httpx.TransportError as error:
                answered, last = 0, repr(error)
            time.sleep(0.05)

    def model_uri(self, directory: Path) -> str:
        """The storageUri under which the cluster finds a model that lies in `directory` here."""
        raise NotImplementedError

    def kill(self, part: Part, namespace: str = "") -> None:
        """SIGKILL to the part's processes; of model servers and HAProxies to one, of a namespace's model servers. Returns when they have ended."""
        raise NotImplementedError

    def save_state(self, namespace: str, test: str) -> None:
        """Objects, events and logs of a failed test, for whoever reads the failure."""
        folder = ARTIFACTS / test
        shutil.rmtree(folder, ignore_errors=True)  # an earlier failure's
        folder.mkdir(parents=True)
        kinds = "isvc,deployments,replicasets,pods,services,endpointslices,controllerrevisions,events"
        for name, arguments in {
            "objects.yaml": ("get", kinds, "--namespace", namespace, "-o", "yaml"),
            "events.txt": ("get", "events", "--namespace", namespace, "--sort-by=.lastTimestamp"),
            "services.txt": ("describe", "isvc", "--namespace", namespace),
        }.items():
            try:
                (folder / name).write_text(self.kubectl(*arguments))
            except (KubectlError, subprocess.TimeoutExpired) as error:
                (folder / name).write_text(str(error))


class LocalCluster(Cluster):
    """`fairlead up` in a directory of its own, on a free port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self.port = free_port()
        self.gateway = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.log = (self.directory / "up.log").open("wb")
        command = [sys.executable, "-m", "fairlead.cli", "up", "--ephemeral"]
        rules = mirrors(f"{(SAMPLES / 'models').as_uri()}/").items()
        self.process = subprocess.Popen(
            [*command, "--directory", str(self.directory), "--port", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={**os.environ, names.STORAGE_MIRRORS_ENV: ";".join(f"{prefix} -> {place}" for prefix, place in rules)},
        )
        self.await_ready()
        return self

    def await_ready(self, timeout: float = PATIENCE) -> None:
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self.kubeconfig.exists():
                try:
                    self.kubectl("get", "isvc", "--all-namespaces")
                    return
                except (KubectlError, subprocess.TimeoutExpired):
                    pass
            time.sleep(0.2)
        raise AssertionError(f"fairlead up did not start:\n{(self.directory / 'up.log').read_text()}")

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()

    def model_uri(self, directory: Path) -> str:
        return directory.as_uri()

    def kill(self, part: Part, namespace: str = "") -> None:
        assert self.process is not None
        victims = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                words, environment = " ".join(child.cmdline()), child.environ()
            except psutil.NoSuchProcess:
                continue
            if part.value in words and (part is not Part.MODEL_SERVER or environment.get("POD_NAMESPACE") == namespace):
                victims.append(child)
        assert victims, f"no process of {part.name} runs"
        victims = victims[:1] if part is Part.MODEL_SERVER else victims
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        until(lambda: list(filter(runs, victims)), lambda left: not left, "dead", pause=0.01)

    def save_state(self, namespace: str, test: str) -> None:
        super().save_state(namespace, test)
        folder = ARTIFACTS / test
        shutil.copy(self.directory / "up.log", folder / "up.log")
        logs = self.directory / "logs"
        if (logs / namespace).exists():
            shutil.copytree(logs / namespace, folder / "logs", dirs_exist_ok=True)


def until(
    look: Callable[[], Seen], holds: Callable[[Seen], object], what: str, timeout: float = PATIENCE, pause: float = 0.1
) -> Seen:
    """What `look` sees once it `holds`; an AssertionError with what it saw last if that does not come in time."""
    deadline = time.monotonic() + timeout
    while not holds(seen := look()):
        assert time.monotonic() < deadline, f"not {what} after {timeout:g} s, but {seen!r}"
        time.sleep(pause)
    return seen


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended. One that nobody has waited for yet has, unless threads of it are left: those keep its connections open."""
    try:
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


def is_ready(service: dict[str, Any]) -> bool:
    """Ready, and the status speaks of the current spec."""
    status = service.get("status", {})
    if status.get("observedGeneration", 0) < service["metadata"]["generation"]:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
