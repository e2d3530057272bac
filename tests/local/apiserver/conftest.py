"""A server process of its own for the tests with real clients, and an in-process cluster for the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.local.apiserver.admission import Options
from fairlead.local.apiserver.garbage import Collector
from fairlead.local.apiserver.journal import Journal, Nowhere
from fairlead.local.apiserver.kinds import CRD, Kind, Kinds
from fairlead.local.apiserver.operations import Operations
from fairlead.local.apiserver.store import Event, Store, Stored

NOW = 1_800_000_000.0


def widget_crd() -> dict[str, Any]:
    """A CRD with everything that schemas can ask for."""
    spec = {
        "type": "object",
        "required": ["size"],
        "x-kubernetes-validations": [
            {"rule": "!has(self.max) || self.size <= self.max", "message": "size must not exceed max"}
        ],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10, "description": "How large it is."},
            "max": {"type": "integer", "default": 10},
            "mode": {"type": "string", "enum": ["fast", "slow"]},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
            "port": {"x-kubernetes-int-or-string": True},
            "ratio": {"type": "number"},
            "items": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                },
            },
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    traffic = {"type": "object", "properties": {"tag": {"type": "string"}, "percent": {"type": "integer"}}}
    status = {
        "type": "object",
        "properties": {"traffic": {"type": "array", "items": traffic}, "ready": {"type": "string"}},
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".spec.size"}},
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Prev", "type": "integer", "jsonPath": ".status.traffic[?(@.tag=='prev')].percent"},
            {"name": "Mode", "type": "string", "jsonPath": ".spec.mode", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.dev"},
        "spec": {
            "group": "example.dev",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [version],
        },
    }


class Cluster:
    """Everything below HTTP, with a clock that stands still and a collector that runs when told to."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.now = NOW
        self.store, self.kinds = Store(journal or Nowhere()), Kinds()
        for crd in self.store.list(CRD):
            self.kinds.define(crd.load())
        self.store.observers.append(self._follow)
        self.operations = Operations(self.store, self.kinds, lambda: self.now)
        self.soon: list[Callable[[], None]] = []
        self.collector = Collector(self.operations, self.soon.append)

    def _follow(self, event: Event) -> None:
        if event.new.key.storage == CRD:
            (self.kinds.forget if event.deleted else self.kinds.define)(event.new.load())

    def settle(self) -> None:
        """Let the collector finish."""
        while self.soon:
            self.soon.pop(0)()

    def kind(self, name: str) -> Kind:
        return next(kind for kind in self.kinds.all() if kind.kind == name)

    def create(self, kind: str, name: str, namespace: str = "default", **rest: Any) -> Stored:
        found = self.kind(kind)
        metadata = {"name": name, **rest.pop("metadata", {})}
        return self.operations.create(
            found, namespace if found.namespaced else "", {"metadata": metadata, **rest}, Options("test")
        )

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        found = self.kind(kind)
        return self.operations.find(found, namespace if found.namespaced else "", name).load()

    def names(self, kind: str, namespace: str = "default") -> list[str]:
        return sorted(o.key.name for o in self.store.list(self.kind(kind).storage, namespace))


@pytest.fixture
def make_cluster() -> Callable[..., Cluster]:
    """Clusters, by the journal that they continue."""
    return Cluster


@pytest.fixture
def cluster() -> Cluster:
    """A cluster with a namespace and the test CRD."""
    made = Cluster()
    made.create("Namespace", "default")
    made.operations.create(made.kinds.stored(CRD), "", widget_crd(), Options("test"))
    return made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers in the test's own directory; what is left of them is stopped at its end."""
    started: list[ServerProcess] = []

    def begin(*arguments: str) -> ServerProcess:
        started.append(ServerProcess(tmp_path, *arguments))
        return started[-1]

    yield begin
    for running in started:
        running.stop()


class ServerProcess:
    """`python -m fairlead.local.apiserver` in a directory."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        ready = directory / "ready"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "fairlead.local.apiserver", "--directory", str(directory), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 90
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(
                    f"the API server did not start: {self.process.stderr and self.process.stderr.read().decode()}"
                )
            time.sleep(0.02)
        self.address = ready.read_text().strip()

    def kubectl(self, *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
        """Its output, errors included; whether it succeeded is in the text that a person would read."""
        home = {"HOME": str(self.directory), "KUBECONFIG": str(self.kubeconfig), **(env or {})}
        done = subprocess.run(
            ["kubectl", *arguments],
            input=stdin,
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        return done.stdout + done.stderr

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        if self.process.stderr:
            self.process.stderr.close()

    def kill(self) -> None:
        self.process.kill()
        self.stop()


@pytest.fixture(scope="session")
def widget() -> dict[str, Any]:
    return widget_crd()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests with clients; each test has objects of its own names."""
    running = ServerProcess(tmp_path_factory.mktemp("apiserver"))
    yield running
    running.stop()
