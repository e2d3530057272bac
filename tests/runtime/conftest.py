"""Real servers for the model server's tests: both doors on free ports, in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from google.protobuf import descriptor_pool

from fairlead.runtime.engines.process import event_loop
from fairlead.runtime.model import Model, TensorSpec
from fairlead.runtime.repository import Repository
from fairlead.runtime.server import ModelServer, listen
from fairlead.runtime.settings import Settings

# tritonclient and kserve both register a package `inference` in protobuf's default pool, which takes only one of them.
_pool_of_its_own = descriptor_pool.DescriptorPool()
with mock.patch.object(descriptor_pool, "Default", return_value=_pool_of_its_own):
    importlib.import_module("tritonclient.grpc")


class Doubler(Model):
    """y = 2 x, for rows of three."""

    inputs = (TensorSpec("x", "FP32", (-1, 3)),)
    outputs = (TensorSpec("y", "FP32", (-1, 3)),)
    batchable = True
    compute_bound = True

    def predict(self, request):
        return request["x"] * np.float32(2)


class Echo(Model):
    """Gives every input back under its own name."""

    def predict(self, request):
        return [*request.inputs]


class Failing(Model):
    def predict(self, request):
        raise RuntimeError("the model is broken")


@dataclass
class Running:
    """A server that runs, and what tests need to reach it."""

    http_port: int
    grpc_port: int
    repository: Repository
    loop: asyncio.AbstractEventLoop
    server: ModelServer
    thread: threading.Thread
    errors: list[BaseException] = field(default_factory=list)

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: a test has stopped it
            self.loop.call_soon_threadsafe(lambda: self.server.stop(at_once=True))
        self.thread.join(30)
        assert not self.thread.is_alive(), "the server did not stop"


def start(models: Sequence[Model], **settings: Any) -> Running:
    """Start a server; returns when its models are loaded."""
    defaults = {"host": "127.0.0.1", "http_port": 0, "grpc_port": 0, "drain_seconds": 0.0, "model_dir": Path("none")}
    chosen = Settings(**{**defaults, **settings})
    started = threading.Event()
    box: list[Running] = []
    errors: list[BaseException] = []

    async def main() -> None:
        repository = Repository(max_batch_size=chosen.max_batch_size, max_queue=chosen.max_queue)
        for model in models:
            repository.add(model.name, lambda model=model: model)
        server = ModelServer(chosen, repository, listeners := listen(chosen))
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(server.run([model.name for model in models]))
        await server.ready.wait()
        grpc_port = 0 if server.grpc is None else server.grpc.port
        box.append(Running(listeners.http_port, grpc_port, repository, loop, server, threading.current_thread()))
        started.set()
        await running
        await repository.close()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=event_loop) as runner:
                runner.run(main())
        except BaseException as error:
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="test-server")
    thread.start()
    started.wait(60)
    if errors:
        raise errors[0]
    box[0].errors = errors
    return box[0]


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    """`serve(Model("name"), …, **settings)` starts a server that ends with the test."""
    running: list[Running] = []

    def make(*models: Model, **settings: Any) -> Running:
        running.append(start(models, **settings))
        return running[-1]

    yield make
    for server in running:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """One server for a module's tests, with models double, echo and failing."""
    running = start([Doubler("double"), Echo("echo"), Failing("failing")])
    yield running
    running.stop()
