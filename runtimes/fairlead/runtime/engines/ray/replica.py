"""The actors of the Serve application: the server, and the steps of a pipeline."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
from dataclasses import replace
from typing import Any

from fairlead.runtime.engines.front import ReplicaPorts
from fairlead.runtime.engines.ray.group import Group, drain_when_told
from fairlead.runtime.errors import LoadError, ServingError
from fairlead.runtime.model import Model
from fairlead.runtime.pipeline import Pipeline, load_step
from fairlead.runtime.repository import ModelFactory
from fairlead.runtime.server import ModelServer, listen
from fairlead.runtime.settings import Settings
from fairlead.runtime.sources import Source, open_model
from fairlead.runtime.tensors import InferRequest, InferResponse

STEP_ATTEMPTS = 8
STEP_PAUSE = 0.05
"""Seconds, times the number of the attempt: 1.4 s in all, in which Serve has noticed that a replica is lost."""


class ServerReplica:
    """One replica: the whole server, on the replica's ports."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, settings: Settings, ports: list[ReplicaPorts], *steps: Any
    ) -> None:
        from ray import serve

        logging.basicConfig(level=logging.INFO)
        faulthandler.enable()
        port = ports[serve.get_replica_context().rank.rank % len(ports)]
        behind_front = len(ports) > 1
        self._in_group = Group.from_environment(os.environ) is not None
        # The settings are the head's; each pod of a group has an address of its own.
        here = os.environ.get("HOST", settings.host) if self._in_group else settings.host
        self._settings = replace(
            settings,
            host="127.0.0.1" if behind_front else here,
            http_port=port.http,
            grpc_port=port.grpc,
            drain_seconds=settings.drain_seconds if self._in_group else 0.0,
            workers=1,
        )
        self._steps = steps
        self._error: str | None = None
        await self._start()

    async def _start(self) -> None:
        from fairlead.runtime.engines.process import repository_for

        source = await self._connected_pipeline() if self._steps else Source(self._settings)
        repository, names = repository_for(self._settings, source)
        self._server = ModelServer(self._settings, repository, listen(self._settings))
        self._running = asyncio.create_task(self._server.run(names))
        if self._in_group:
            self._drain = await drain_when_told(self._server, self._running, self._settings)
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({ready, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            ready.cancel()
            error = self._running.exception()
            self._error = error.message if isinstance(error, LoadError) else f"{type(error).__name__}: {error}"

    async def _connected_pipeline(self) -> ModelFactory:
        reasons = await asyncio.gather(*(step.load_error.remote() for step in self._steps))
        calls = [_remote(step) for step in self._steps]

        def make() -> Model:
            for reason in filter(None, reasons):
                raise LoadError(reason)
            model = open_model(self._settings.model_dir, self._settings.model_name, self._settings)
            assert isinstance(model, Pipeline)
            model.connect(calls)
            return model

        return make

    async def load_error(self) -> str | None:
        return self._error

    async def check_health(self) -> None:
        if self._running.done() and self._error is None:
            raise RuntimeError("the server ended")

    async def __del__(self) -> None:
        self._server.stop(at_once=True)
        await asyncio.wait({self._running})


class StepReplica:
    """One replica of a pipeline's step."""

    async def __init__(self, settings: Settings, index: int) -> None:  # type: ignore[misc] # Serve awaits it
        """The class is looked up here, not sent here: a file's classes cannot be imported by name in another process."""
        self._error: str | None = None
        try:
            pipeline = open_model(settings.model_dir, settings.model_name, settings)
            assert isinstance(pipeline, Pipeline)
            name = pipeline.step_names()[index]
            self._runner = await load_step(pipeline.steps[index], name)
        except Exception as error:
            reason = error.message if isinstance(error, LoadError) else f"{type(error).__name__}: {error}"
            self._error = f"step {index + 1}: {reason}"

    async def load_error(self) -> str | None:
        return self._error

    async def infer(self, request: InferRequest) -> InferResponse | ServingError:
        """Errors are returned: Ray would wrap what is raised in an error of its own."""
        try:
            return await self._runner.infer(request)
        except ServingError as error:
            error.__cause__ = None
            return error


def _remote(handle: Any) -> Any:
    """The call of a step. One that a lost replica had taken is made again: Serve gives it to another, or to the successor."""
    from ray.exceptions import RayActorError

    async def call(request: InferRequest) -> InferResponse:
        for attempt in range(1, STEP_ATTEMPTS + 1):
            try:
                answer = await handle.infer.remote(request)
            except RayActorError:
                if attempt == STEP_ATTEMPTS:
                    raise
                await asyncio.sleep(STEP_PAUSE * attempt)
            else:
                break
        if isinstance(answer, ServingError):
            raise answer
        assert isinstance(answer, InferResponse)
        return answer

    return call
