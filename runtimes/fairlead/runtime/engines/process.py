"""Engine `process`: the server in this process, or in N processes that share the ports (SO_REUSEPORT)."""

from __future__ import annotations

import asyncio

from fairlead.runtime.engines.base import Engine
from fairlead.runtime.repository import Repository
from fairlead.runtime.server import ModelServer, handle_signals, listen
from fairlead.runtime.settings import Settings
from fairlead.runtime.sources import Source, directory_of_models, models_in


class ProcessEngine(Engine):
    name = "process"

    def run(self, settings: Settings) -> None:
        source = Source(settings)
        with asyncio.Runner(loop_factory=event_loop) as runner:
            runner.run(_serve(settings, source))


def event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _serve(settings: Settings, source: Source) -> None:
    repository, names = repository_for(settings, source)
    server = ModelServer(settings, repository, listen(settings))
    handle_signals(server)
    try:
        await server.run(names)
    finally:
        await repository.close()


def repository_for(settings: Settings, source: Source) -> tuple[Repository, list[str]]:
    """The repository, and the names to load at start."""
    repository = Repository(
        max_batch_size=settings.max_batch_size,
        max_queue=settings.max_queue,
        find=lambda name: directory_of_models(settings, name),
    )
    if settings.repository_dir is not None:
        return repository, models_in(settings.repository_dir)
    repository.add(settings.model_name, source)
    return repository, [settings.model_name]
