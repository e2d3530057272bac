"""What an operator process runs: informers always, controllers while it leads, and the doors that probes knock at.

    informers ──► synced ──► Lease taken ──► controllers and tasks ──► SIGTERM ──► workers end ──► Lease given back
                                │ lost
                                └──► all reconciles cancelled, LeaseLost: the process begins anew, another one leads

A standby's informers run and its queues fill, so it takes over with everything in memory.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiohttp import web

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.controller import Controller
from fairlead.kube.informer import Informer, Transform
from fairlead.kube.lease import Elector, Lease
from fairlead.kube.probes import Heartbeat, Probes
from fairlead.kube.resources import Resource
from fairlead.kube.store import Indexer, Summary

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds that reconciles get to end by themselves after SIGTERM; a pod's default grace is 30."""

Task = Callable[[], Coroutine[Any, Any, None]]
Tasks = set[asyncio.Task[None]]


class Manager:
    def __init__(
        self,
        client: Client,
        *,
        lease: Lease | None = None,
        address: tuple[str, int] = ("127.0.0.1", names.OPERATOR_PORT),
        grace: float = GRACE,
    ) -> None:
        """Without a lease this process always leads. Port 0 takes a free one: see `address`."""
        self.client = client
        self.elector = Elector(client, lease) if lease else None
        self.address = address
        """Where the probes are served; the real port as soon as `serving` is set."""
        self.serving = asyncio.Event()
        self._grace = grace
        self._informers: list[Informer] = []
        self._controllers: list[Controller] = []
        self._tasks: list[tuple[str, Task]] = []
        self._routes: list[web.RouteDef] = []
        self._stop = asyncio.Event()

    def informer(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        transform: Transform | None = None,
        indexers: Mapping[str, Indexer] | None = None,
        summary: Summary | None = None,
    ) -> Informer:
        """An informer that this manager runs."""
        made = Informer(
            self.client,
            resource,
            namespace=namespace,
            labels=labels,
            fields=fields,
            transform=transform,
            indexers=indexers,
            summary=summary,
        )
        self._informers.append(made)
        return made

    def add(self, *controllers: Controller) -> None:
        """Runs the controllers, and the informers that they watch, if they are not run already."""
        for controller in controllers:
            self._controllers.append(controller)
            self._informers += [informer for informer in controller.informers if informer not in self._informers]

    def add_task(self, name: str, task: Task) -> None:
        """Runs `task()` while this process leads, after the informers have synced; it is to run until cancelled."""
        self._tasks.append((name, task))

    def add_routes(self, *routes: web.RouteDef) -> None:
        """Served beside the probes, also while another process leads."""
        self._routes += routes

    def stop(self) -> None:
        """What SIGTERM does."""
        self._stop.set()

    async def run(self) -> None:
        """Returns when told to stop. Raises LeaseLost, or whatever ended a part that must not end."""
        heartbeat = Heartbeat()
        probes = Probes(self._informers, heartbeat, self._routes)
        with _signals(self.stop):
            async with probes.served(self.address) as self.address:
                self.serving.set()
                informers = [(f"informer-{informer.resource}", informer.run) for informer in self._informers]
                async with _running([("heartbeat", heartbeat.run), *informers]) as warm:
                    await self._lead(warm)

    async def _lead(self, warm: Tasks) -> None:
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        async with _cancelled_after({stop}):
            synced = asyncio.gather(*(informer.synced.wait() for informer in self._informers))
            if not await _until(synced, stop, warm):
                return
            if self.elector is None:
                await self._control(stop, warm)
                return
            if await _until(self.elector.acquire(), stop, warm):
                async with _running([("lease", self.elector.hold)]) as lease:
                    await self._control(stop, warm | lease)
            await self.elector.release()

    async def _control(self, stop: asyncio.Task[Any], warm: Tasks) -> None:
        """Runs controllers and tasks until told to stop; then no further key is begun, and reconciles that run may end."""
        controllers = [(controller.name, controller.run) for controller in self._controllers]
        async with _running(self._tasks) as tasks, _running(controllers) as working:
            await _until(stop, stop, warm | tasks | working)
            for controller in self._controllers:
                controller.close()
            if working and (late := (await asyncio.wait(working, timeout=self._grace))[1]):
                log.warning("cancelling reconciles of %s", ", ".join(sorted(task.get_name() for task in late)))


async def _until(wanted: Awaitable[Any], stop: asyncio.Task[Any], others: Tasks) -> bool:
    """Whether `wanted` came before `stop`. Raises what ended one of the `others`, which are not to end."""
    task = asyncio.ensure_future(wanted)
    async with _cancelled_after({task} - {stop}):
        done, _ = await asyncio.wait({task, stop, *others}, return_when=asyncio.FIRST_COMPLETED)
        for ended in done & others:
            ended.result()
            raise RuntimeError(f"{ended.get_name()} has ended, and should not have")
        if task in done:
            task.result()
        return task in done and task is not stop


@asynccontextmanager
async def _running(parts: Iterable[tuple[str, Task]]) -> AsyncGenerator[Tasks, None]:
    tasks = {asyncio.create_task(part(), name=name) for name, part in parts}
    async with _cancelled_after(tasks):
        yield tasks


@asynccontextmanager
async def _cancelled_after(tasks: Collection[asyncio.Future[Any]]) -> AsyncGenerator[None, None]:
    """When the block ends, however it does, the tasks are cancelled and have ended."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
