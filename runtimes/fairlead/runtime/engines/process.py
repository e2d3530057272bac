"""Engine `process`: the server in this process, or in N processes that share the ports."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from fairlead.runtime.engines import waiting, workers
from fairlead.runtime.engines.base import Engine
from fairlead.runtime.repository import ModelFactory, Repository
from fairlead.runtime.server import Listeners, ModelServer, handle_signals, listen
from fairlead.runtime.settings import Settings
from fairlead.runtime.sources import Source, directory_of_models, models_in, open_model


class ProcessEngine(Engine):
    name = "process"

    def run(self, settings: Settings) -> None:
        if settings.workers > 1:
            run_workers(settings)
            return
        source = Source(settings)
        listeners = listen(settings)
        with asyncio.Runner(loop_factory=event_loop) as runner:
            runner.run(serve(settings, source, listeners))


def run_workers(settings: Settings) -> None:
    """N processes. The model is fetched once, before they are forked; liveness is answered from the start on."""
    settings = replace(settings, grpc_port=None if settings.grpc_port is None else shared_port(settings))
    listeners = listen(settings)

    def work(siblings: workers.Siblings) -> None:
        with asyncio.Runner(loop_factory=event_loop) as runner:
            runner.run(serve(settings, source, listeners, siblings))

    with tempfile.TemporaryDirectory(prefix="fairlead-") as directory:
        waiting.stand_in(listeners.http, Path(directory, workers.DOOR))
        source = Source(settings)
        source.fetched()
        workers.run(Path(directory), settings.workers, work)


async def serve(
    settings: Settings, source: Source, listeners: Listeners, siblings: workers.Siblings | None = None
) -> None:
    """Serve the settings' models until a signal comes."""
    if settings.repository_dir is not None:
        await asyncio.to_thread(source.fetched)  # which models there are is known only then
    repository, names = repository_for(settings, source)
    server = ModelServer(settings, repository, listeners, siblings=siblings)
    handle_signals(server)
    metrics = await siblings.serve(repository.metrics.snapshot) if siblings is not None else None
    try:
        await server.run(names)
    finally:
        if metrics is not None:
            metrics.close()
        await repository.close()


def repository_for(settings: Settings, source: ModelFactory) -> tuple[Repository, list[str]]:
    """The repository, and the names to load at start."""
    repository = Repository(
        max_batch_size=settings.max_batch_size,
        max_queue=settings.max_queue,
        max_loaded=settings.max_loaded_models,
        find=lambda name: directory_of_models(settings, name),
    )
    if settings.repository_dir is not None:
        names = models_in(settings.repository_dir)
        if settings.max_loaded_models is None:
            return repository, names
        for name in names:
            repository.add(name, partial(open_model, settings.repository_dir / name, name, settings))
        return repository, []
    repository.add(settings.model_name, source)
    return repository, [settings.model_name]


def shared_port(settings: Settings) -> int:
    """The gRPC port if it is given, else a free one that several processes can bind."""
    if settings.grpc_port:
        return settings.grpc_port
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((settings.host, 0))
        return int(sock.getsockname()[1])


def event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
