"""The operator's own port: /healthz, /readyz, /metrics, and what its parts add.

/healthz fails when a restart would help: the event loop is stuck, or an informer has stopped trying. It does not fail because
the API server is away: restarting every operator would not bring it back. /readyz fails until the caches are filled; a standby
that waits for the Lease is ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fairlead.kube import metrics
from fairlead.kube.informer import Informer

TICK = 0.5
LAG_LIMIT = 5.0
WEDGED_AFTER = 330.0
"""The longest that an informer rests: a watch that the server ends after 300 s, or a back-off; and some."""


class Heartbeat:
    """Measures how late the event loop runs what is due."""

    def __init__(self) -> None:
        self.lag = 0.0
        """Seconds that the last tick came too late."""
        self._expected: float | None = None

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._expected = clock() + TICK
            await asyncio.sleep(TICK)
            self.lag = max(0.0, clock() - self._expected)
            metrics.LOOP_LAG.set(self.lag)


class Probes:
    def __init__(
        self, informers: Sequence[Informer], heartbeat: Heartbeat, routes: Sequence[web.RouteDef] = ()
    ) -> None:
        """`routes`: what else is served at the port."""
        self._informers = informers
        self._heartbeat = heartbeat
        self._routes = routes

    def unhealthy(self, now: float) -> list[str]:
        """Why this process should be restarted, at `now` by the event loop's clock; empty if it need not be."""
        faults = [
            f"the informer of {informer.resource} has not stirred for {now - informer.last_active:.0f} s"
            for informer in self._informers
            if now - informer.last_active > WEDGED_AFTER
        ]
        if self._heartbeat.lag > LAG_LIMIT:
            faults.append(f"the event loop is {self._heartbeat.lag:.1f} s late")
        return faults

    def unready(self) -> list[str]:
        return [f"{informer.resource} not listed yet" for informer in self._informers if not informer.synced.is_set()]

    @asynccontextmanager
    async def served(self, address: tuple[str, int]) -> AsyncGenerator[tuple[str, int], None]:
        """Serves them at `address`; gives the address with the real port."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", _metrics),
                *self._routes,
            ]
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, *address)
            await site.start()
            host, port, *_ = runner.addresses[0]
            yield str(host), int(port)
        finally:
            await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return _verdict(self.unhealthy(asyncio.get_running_loop().time()))

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(self.unready())


def _verdict(faults: Sequence[str]) -> web.Response:
    return web.Response(status=503 if faults else 200, text="\n".join(faults or ["ok"]) + "\n")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
