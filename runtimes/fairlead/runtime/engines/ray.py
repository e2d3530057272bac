"""Engine `ray`: the models as a Ray Serve application, whose replicas open the ports themselves.

Serve's own request path (a proxy actor, a router, an actor call) costs several times what a small model does; here a
replica runs the same server as engine `process` in its event loop, and Serve does what it is for: placing replicas on
cores and GPUs, watching them, replacing them, and the calls between the deployments of a pipeline.

    1 replica     client ── replica                     N replicas     client ── HAProxy ── replicas
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairlead.runtime.engines.base import Engine
from fairlead.runtime.engines.front import Front, ReplicaPorts, allocate
from fairlead.runtime.errors import LoadError, ServingError
from fairlead.runtime.frameworks import detect
from fairlead.runtime.model import Model
from fairlead.runtime.pipeline import Pipeline, load_step
from fairlead.runtime.repository import ModelFactory
from fairlead.runtime.server import ModelServer, listen
from fairlead.runtime.settings import Settings
from fairlead.runtime.sources import Source, open_model
from fairlead.runtime.tensors import InferRequest, InferResponse

log = logging.getLogger(__name__)

OBJECT_STORE = 78_643_200
"""75 MiB, Ray's minimum: requests do not go through the object store."""
APPLICATION = "fairlead"
STEP_ATTEMPTS = 8
STEP_PAUSE = 0.05
"""Seconds, times the number of the attempt: 1.4 s in all, in which Serve has noticed that a replica is lost."""


class RayEngine(Engine):
    name = "ray"

    def run(self, settings: Settings) -> None:
        prepare_environment(os.environ)
        source = Source(settings)
        import ray
        from ray import serve

        own = serve_application(settings)
        start_ray()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        try:
            if own is not None:
                run_own_application(own, settings)
            else:
                settings = replace(settings, model_dir=source.fetched(), storage_uri=None)
                run_replicas(settings)
        finally:
            with contextlib.suppress(Exception):
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def _leave(number: int, frame: Any) -> None:
    """While it starts nothing is in flight: SIGTERM ends it at once."""
    raise SystemExit(0)


def wait_for_signal() -> None:
    """From now on SIGTERM lets what is in flight be finished."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


def prepare_environment(environment: Any) -> None:
    """What Ray reads from the environment when it starts. Values that are set already are left."""
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    environment.setdefault("RAY_SERVE_LOG_TO_STDERR", "1")
    # Token authentication stays on (CVE-2023-48022). A token of our own needs no home directory to be written to.
    environment.setdefault("RAY_AUTH_MODE", "token")
    if not any(environment.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # User code shares the replica's event loop with Serve's few control calls: one thread less to hop through.
    environment.setdefault("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "0")
    environment.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.1")


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS names (a multi-node pod group), or start a small one."""
    import ray

    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=True)
        return
    ray.init(
        num_cpus=1,  # it starts so many idle workers; replicas ask for none
        include_dashboard=False,
        object_store_memory=OBJECT_STORE,
        configure_logging=False,
        log_to_driver=True,
    )


def serve_application(settings: Settings) -> Any:
    """The user's own Serve application, if that is what `model_class` names."""
    if settings.model_class is None or settings.model_class.endswith(".py"):
        return None
    from ray.serve import Application

    from fairlead.runtime.frameworks.custom import resolve

    target = resolve(settings.model_class)
    return target if isinstance(target, Application) else None


def run_own_application(application: Any, settings: Settings) -> None:
    """Taken as it is, behind Serve's own proxy on our port."""
    from ray import serve

    serve.start(proxy_location="HeadOnly", http_options={"host": settings.host, "port": settings.http_port})
    serve.run(application, name=APPLICATION, route_prefix="/")
    log.info("ready: the application %s", settings.model_class)
    wait_for_signal()


def run_replicas(settings: Settings) -> None:
    """Our own application until a signal comes. Raises LoadError with the replica's reason."""
    from ray import serve

    serve.start(proxy_location="Disabled")
    ports = _replica_ports(settings)
    handle = serve.run(application(settings, ports), name=APPLICATION, route_prefix=None)
    reason = handle.load_error.remote().result()
    if reason is not None:
        raise LoadError(reason)
    front = None
    with tempfile.TemporaryDirectory(prefix="fairlead-") as directory:
        try:
            if len(ports) > 1:
                front = Front(Path(directory), settings.host, settings.http_port, settings.grpc_port, ports)
            log.info("ready: %s, %d replicas", settings.model_name, len(ports))
            wait_for_signal()
        finally:
            if front is not None:
                front.stop()


def _replica_ports(settings: Settings) -> list[ReplicaPorts]:
    if settings.workers == 1:
        return [ReplicaPorts(settings.http_port, settings.grpc_port)]
    return allocate(settings.workers, grpc=settings.grpc_port is not None)


def application(settings: Settings, ports: list[ReplicaPorts]) -> Any:
    """The Serve application: the server's deployment, and one for each step if the model is a pipeline."""
    from ray import serve

    deployment: Any = serve.deployment
    options = {
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": settings.max_queue,
        "health_check_period_s": 1,
        "logging_config": {"enable_access_log": False},
        "graceful_shutdown_timeout_s": settings.grace_seconds + settings.drain_seconds + 5,
    }
    steps = [
        deployment(StepReplica, name=name, num_replicas=1, **options).bind(settings, index)
        for index, name in enumerate(pipeline_steps(settings))
    ]
    replica = deployment(ServerReplica, name=settings.model_name, num_replicas=len(ports), **options)
    return replica.bind(settings, ports, *steps)


def pipeline_steps(settings: Settings) -> list[str]:
    """The names of a pipeline's steps; none for any other model. Only a class can be one: frameworks stay unimported here."""
    if settings.repository_dir is not None:
        return []
    if settings.model_class is None and detect(settings.model_dir, settings.framework)[1].framework != "custom":
        return []
    model = open_model(settings.model_dir, settings.model_name, settings)
    return model.step_names() if isinstance(model, Pipeline) else []


class ServerReplica:
    """One replica: the whole server, on the replica's ports."""

    async def __init__(  # type: ignore[misc] # Serve awaits it
        self, settings: Settings, ports: list[ReplicaPorts], *steps: Any
    ) -> None:
        from ray import serve

        logging.basicConfig(level=logging.INFO)
        port = ports[serve.get_replica_context().rank.rank % len(ports)]
        behind_front = len(ports) > 1
        host = "127.0.0.1" if behind_front else settings.host
        self._settings = replace(
            settings, host=host, http_port=port.http, grpc_port=port.grpc, drain_seconds=0.0, workers=1
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
