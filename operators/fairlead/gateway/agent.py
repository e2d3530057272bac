"""The agent beside one HAProxy: informers change the table, the table changes HAProxy, and HTTP says what is in effect.

informers ─► Catalogue ─► RouteTable ─► Programmer ─► HAProxy's socket
                               ▲ again when HAProxy was replaced, and while servers drain
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from fairlead.gateway.catalogue import Catalogue
from fairlead.gateway.clients import closed, ports_of
from fairlead.gateway.demand import Demand, Prober, by_workload, places, to_check, with_answering
from fairlead.gateway.haproxy import Haproxy, HaproxyError, HaproxyGone
from fairlead.gateway.live import live_routes
from fairlead.gateway.programmer import Programmer
from fairlead.gateway.routes import RouteTable
from fairlead.gateway.settings import Settings
from fairlead.gateway.stats import Totals, Workload, WorkloadStats
from fairlead.kube.informer import Source

log = logging.getLogger(__name__)

_COALESCE = 0.005
"""Seconds that changes which come together may take to arrive: one rollout step is several objects."""
_PAUSE_AT_MOST = 0.1
"""After a change that took long, as with thousands of services, the next ones are gathered for as long: half of the time is left for other
work. A change that comes alone does not wait."""
_DRAIN_EVERY = 0.25
_HAPROXY_EVERY = 0.05
_HELD_EVERY, _IDLE_EVERY = 1.0, 10.0
"""HAProxy says when requests begin or cease to wait. A client that goes away says nothing, so while some wait they are counted again."""
_RETRY = 0.5


class NotInEffect(Exception):
    """Nothing can be said of the data plane: HAProxy is not there, or has not been told anything yet."""


class Agent:
    def __init__(self, settings: Settings, client: Source) -> None:
        self.haproxy = Haproxy(settings)
        self.catalogue = Catalogue(client, settings.domain)
        self.programmer = Programmer(self.haproxy)
        self._totals = Totals()
        self._again = asyncio.Event()
        self._not_before = 0.0
        """When the next change may begin."""
        self._conflicts: dict[tuple[str, str], str] = {}
        self.demand = Demand()
        self._wanted = RouteTable()
        self._prober = Prober(found=self._again.set)

    @property
    def ready(self) -> bool:
        """HAProxy serves what the API server says, as far as both are known."""
        return self.catalogue.synced and self.programmer.in_effect

    async def run(self) -> None:
        """Until cancelled. Nothing is told to HAProxy before all informers have listed: half a table would take services away."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self.catalogue.informers:
                tasks.create_task(informer.run(), name=f"informer-{informer.resource}")
            for informer in self.catalogue.informers:
                await informer.synced.wait()
            tasks.create_task(self._program(), name="program")
            tasks.create_task(self._guard(), name="guard")
            tasks.create_task(self._watch_demand(), name="demand")
            tasks.create_task(self._watch_clients(), name="clients")
            tasks.create_task(self._prober.run(), name="prober")
            tasks.create_task(self.programmer.persist(), name="persist")

    def routes(self, namespace: str, name: str) -> dict[str, object] | None:
        """Raises NotInEffect."""
        state = self.programmer.state
        if state is None:
            raise NotInEffect("HAProxy is not running, or has not been told its routes yet")
        service = self.catalogue.get(namespace, name)
        conflict = self._conflicts.get((namespace, name))
        return live_routes(service, state, self.programmer.lent, conflict) if service else None

    async def stats(self) -> dict[Workload, WorkloadStats]:
        """Raises NotInEffect."""
        state = self.programmer.state
        if state is None:
            raise NotInEffect("HAProxy is not running, or has not been told its routes yet")
        try:
            backends, held = await self.haproxy.stats(), await self.haproxy.held()
        except HaproxyError as error:
            raise NotInEffect(str(error)) from error
        return self._totals.update(backends, held, state.maps["upstreams"])

    async def _program(self) -> None:
        counting = False
        while True:
            self.catalogue.changed.clear()
            self._again.clear()
            began = time.monotonic()
            self._wanted = self.catalogue.table()
            self._probe()
            table = with_answering(self._wanted, self._prober.answering)
            self._conflicts = table.conflicts
            try:
                if not counting:
                    self._totals.begin(await self.haproxy.stats())
                    counting = True
                await self.programmer.lead(table)
            except HaproxyGone:
                await asyncio.sleep(_HAPROXY_EVERY)
                continue
            except HaproxyError as error:
                log.error("%s", error)
                await asyncio.sleep(_RETRY)
                continue
            ended = time.monotonic()
            self._not_before = ended + min(ended - began, _PAUSE_AT_MOST)
            await self._next(_DRAIN_EVERY if self.programmer.draining else None)

    async def _watch_demand(self) -> None:
        async with self.haproxy.notices() as notice:
            while True:
                notice.clear()
                state = self.programmer.state
                try:
                    held = await self.haproxy.held() if state is not None else None
                except HaproxyError:
                    held = None
                if state is None or held is None:  # what the backends are is not known: ask again
                    await asyncio.sleep(_HAPROXY_EVERY)
                    continue
                waiting = by_workload(held, state.maps["upstreams"])
                # Who begins to wait has no pod that HAProxy can reach, whatever one has said before.
                self._prober.forget(waiting.keys() - self.demand.held.keys())
                self.demand.update(waiting)
                self._probe()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(notice.wait(), _HELD_EVERY if held else _IDLE_EVERY)

    async def _watch_clients(self) -> None:
        ports = ports_of(self.haproxy.settings.bind)
        while True:
            await asyncio.sleep(_HELD_EVERY)
            if self.demand.held and (gone := await asyncio.to_thread(closed, ports)):
                with contextlib.suppress(HaproxyError):
                    await self.haproxy.forget(gone)

    def _probe(self) -> None:
        """Ask the pods that requests wait for."""
        unready = {place for u in self._wanted.upstreams.values() if u.unready for place in places(u, u.unready)}
        self._prober.ask(to_check(self._wanted, self.demand.held), unready)

    async def _next(self, at_most: float | None) -> None:
        """Until there is something to do. A pod that is waited for is programmed at once, whatever else is gathered."""
        waits = [asyncio.create_task(event.wait()) for event in (self.catalogue.changed, self._again)]
        try:
            done, pending = await asyncio.wait(waits, timeout=at_most, return_when=asyncio.FIRST_COMPLETED)
            if done and waits[1] in pending:
                await asyncio.wait(pending, timeout=max(_COALESCE, self._not_before - time.monotonic()))
        finally:
            for wait in waits:
                wait.cancel()

    async def _guard(self) -> None:
        """Notices within milliseconds that HAProxy's worker has ended, whoever ended it but this agent."""
        while True:
            await self.haproxy.gone()
            if not await self.programmer.follows():
                self._again.set()
            await asyncio.sleep(_HAPROXY_EVERY)
