"""The command line as a user calls it, against the embedded API server."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fairlead.api import crd
from fairlead.cli import main
from fairlead.kube.client import Client
from fairlead.kube.objects import Object
from fairlead.kube.resources import EVENTS, INFERENCE_SERVICES, PODS
from fairlead.local.apiserver.server import Settings, serving


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where an API server with our CRDs keeps its kubeconfig and the pods' logs."""
    home = tmp_path_factory.mktemp("apiserver")
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(Settings(home, ephemeral=True, crds=crd.DIRECTORY)):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(60), "the API server does not start"
    yield home
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


@pytest.fixture
def cli(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Calls `fairlead ARGUMENTS…` with a KUBECONFIG, and no laptop cluster around."""
    monkeypatch.setenv("KUBECONFIG", str(directory / "kubeconfig"))
    monkeypatch.setenv("FAIRLEAD_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FAIRLEAD_URL", raising=False)
    monkeypatch.delenv("FAIRLEAD_DEBUG", raising=False)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["fairlead", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        captured = capsys.readouterr()
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call


class Cluster:
    """What others, the operator for one, do to the cluster."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = str(kubeconfig)

    def do(self, verb: str, *arguments: Any, **options: Any) -> Any:
        async def work() -> Any:
            async with await Client.connect(self.kubeconfig) as client:
                return await getattr(client, verb)(*arguments, **options)

        return asyncio.run(work())

    def service(self, name: str, spec: Object | None = None, status: Object | None = None) -> Object:
        spec = spec or {"predictor": {"sklearn": {"storageUri": "file:///m"}}}
        obj = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
        made: Object = self.do("apply", INFERENCE_SERVICES, obj, field_manager="test")
        if status is not None:
            patch = {"status": {"observedGeneration": made["metadata"]["generation"], **status}}
            made = self.do("patch", INFERENCE_SERVICES, name, patch, "default", subresource="status")
        return made

    def get(self, name: str) -> Object:
        found: Object = self.do("get", INFERENCE_SERVICES, name, "default")
        return found

    def event(self, service: str, reason: str, message: str) -> None:
        self.do(
            "create",
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"generateName": f"{service}.", "namespace": "default"},
                "involvedObject": {"kind": "InferenceService", "name": service, "namespace": "default"},
                "reason": reason,
                "message": message,
                "type": "Warning",
                "lastTimestamp": "2026-11-21T10:00:00Z",
            },
        )

    def pod(self, name: str, service: str, revision: str, log: str | None) -> None:
        labels = {
            "serving.kserve.io/inferenceservice": service,
            "component": "predictor",
            "fairlead.dev/revision": revision,
        }
        containers = [{"name": "sidecar", "image": "x"}, {"name": "kserve-container", "image": "x"}]
        pod = {"metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": {"containers": containers}}
        self.do("apply", PODS, pod, field_manager="test")
        if log is not None:
            file = Path(self.kubeconfig).parent / "logs" / "default" / name / "kserve-container" / "0.log"
            file.parent.mkdir(parents=True)
            file.write_text(log)


@pytest.fixture
def cluster(directory: Path) -> Cluster:
    return Cluster(directory / "kubeconfig")
