"""Keeps one HAProxy at a routing table: reads what it knows, sends the difference, reloads it only for room.

HAProxy keeps the only copy that counts. Whenever the two may differ (this process starts, HAProxy was started, a command was
refused) the state is read again and the plan made from that, so an agent that restarts disturbs nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from fairlead.gateway.config import fingerprint
from fairlead.gateway.haproxy import CommandRefused, Haproxy, HaproxyError, write_files
from fairlead.gateway.plan import Plan, grown, plan
from fairlead.gateway.routes import RouteTable
from fairlead.gateway.settings import SettingsError
from fairlead.gateway.state import State

log = logging.getLogger(__name__)

_PERSIST_AFTER = 0.5
"""Seconds after a change until the files say it too: what a HAProxy that is killed begins with."""
_ATTEMPTS = 3


class Programmer:
    def __init__(self, haproxy: Haproxy) -> None:
        self._haproxy = haproxy
        self._state: State | None = None
        self._lent: dict[str, str] | None = None
        self._before: Plan | None = None
        """The plan whose commands the state has had last."""
        self._worker = 0
        """The process id of the worker that the state is that of."""
        self._turn = asyncio.Lock()
        """Who changes HAProxy or its files: a file written in the middle of a reload would be what the new worker reads."""
        self._unwritten = asyncio.Event()
        self.in_effect = False
        """The last table led to is what HAProxy serves."""
        self.draining = False
        """Something is to be done when some requests have ended: `lead` again in a moment."""
        self.reloads = 0
        self.commands = 0
        self.seconds = 0.0
        """How long the last change took, from plan to HAProxy's last answer."""

    @property
    def state(self) -> State | None:
        """What HAProxy knows, None while that is not known."""
        return self._state

    @property
    def lent(self) -> Mapping[str, str]:
        """Which backend each upstream has, by the upstream's key; empty while the state is not known."""
        if self._lent is None:
            upstreams = self._state.maps["upstreams"] if self._state is not None else {}
            self._lent = {upstream: backend for backend, upstream in upstreams.items()}
        return self._lent

    async def follows(self) -> bool:
        """Whether the worker that serves now is the one that is known; if not, nothing is known any more."""
        async with self._turn:
            try:
                same = await self._haproxy.process_id() == self._worker
            except HaproxyError:
                same = False
            if not same:
                self._forget()
            return same

    async def lead(self, table: RouteTable) -> None:
        """Raises HaproxyError, and then knows nothing: lead again."""
        async with self._turn:
            await self._lead_or_forget(table)

    def _forget(self) -> None:
        self._state = self._lent = self._before = None
        self.in_effect = False

    async def _lead_or_forget(self, table: RouteTable) -> None:
        began = time.monotonic()
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    await self._lead(table)
                    break
                except CommandRefused as error:
                    self._forget()
                    log.warning("%s; reading its state again", error)
                    if attempt == _ATTEMPTS - 1:
                        raise
        except BaseException:
            self._forget()
            raise
        self.in_effect = True
        self.seconds = time.monotonic() - began

    async def persist(self) -> None:
        """Runs until cancelled: writes HAProxy's files soon after each change."""
        while True:
            await self._unwritten.wait()
            await asyncio.sleep(_PERSIST_AFTER)
            async with self._turn:
                self.write()

    def write(self) -> None:
        self._unwritten.clear()
        if self._state is not None:
            write_files(self._haproxy.settings, self._state)

    async def _lead(self, table: RouteTable) -> None:
        if self._state is None:
            self._state, self._lent, self._before = await self._read(), None, None
        elif self.draining:
            await self._haproxy.refresh_busy(self._state)
        while True:
            needed = plan(self._state, table, self._before, now=time.monotonic())
            self._before = needed
            if needed.commands:
                await self._haproxy.send(needed.commands)
                for command in needed.commands:
                    command.apply(self._state)
                self._lent = None
                self.commands += len(needed.commands)
                self._unwritten.set()
            self.draining = needed.draining
            if not needed.needs_reload:
                return
            settings = self._haproxy.settings
            self._state = await self._reload(grown(self._state, needed, spare_slots=settings.slots))
            self._before = replace(needed, settled={})

    async def _read(self) -> State:
        """Also replaces a worker whose configuration is not this program's, after an upgrade or with other settings."""
        self._worker = await self._haproxy.process_id()
        state = await self._haproxy.state()
        if await self._haproxy.description() != fingerprint(self._haproxy.settings):
            log.info("HAProxy runs with an older configuration; reloading it")
            state = await self._reload(state)
        return state

    async def _reload(self, state: State) -> State:
        try:
            write_files(self._haproxy.settings, state)
        except SettingsError as error:
            raise HaproxyError(str(error)) from error
        await self._haproxy.reload()
        self.reloads += 1
        self._worker = await self._haproxy.process_id()
        fresh = await self._haproxy.state()
        if fresh.backends.keys() != state.backends.keys():
            raise HaproxyError("HAProxy did not take the new configuration: see its log")
        log.info(
            "HAProxy reloaded: %d backends, %d servers", len(fresh.backends), sum(map(len, fresh.backends.values()))
        )
        return fresh
