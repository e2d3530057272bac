"""A real HAProxy in a directory of its own, with real servers behind it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fairlead.gateway.haproxy import Haproxy, HaproxyGone, command, write_files
from fairlead.gateway.plan import grown, initial_state, plan
from fairlead.gateway.routes import Endpoint, RouteTable, ServiceRoutes, Target, Transport, Upstream, route_table
from fairlead.gateway.settings import Settings
from fairlead.gateway.state import State


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class RunningHaproxy:
    settings: Settings
    port: int
    haproxy: Haproxy
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        log = (self.settings.directory / "haproxy.log").open("ab")
        self.process = await asyncio.create_subprocess_exec(
            *command(self.settings), stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        await self.up()

    async def up(self) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    await self.haproxy.process_id()
                    return
                except HaproxyGone:
                    await asyncio.sleep(0.01)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()

    async def serve(self, *services: ServiceRoutes) -> State:
        """Lead HAProxy to the services' table, as the agent would; returns what HAProxy knows then."""
        return await self.apply(route_table(services))

    async def apply(self, table: RouteTable) -> State:
        state = await self.haproxy.state()
        needed = plan(state, table)
        if needed.needs_reload:
            state = grown(state, needed, spare_slots=self.settings.slots)
            write_files(self.settings, state)
            await self.haproxy.reload()
            needed = plan(state, table)
        await self.haproxy.send(needed.commands)
        for step in needed.commands:
            step.apply(state)
        write_files(self.settings, state)
        return state


@pytest.fixture
def make_haproxy(tmp_path: Path) -> Iterator[Callable[..., Awaitable[RunningHaproxy]]]:
    running: list[RunningHaproxy] = []

    async def make(**options: object) -> RunningHaproxy:
        port = free_port()
        settings = Settings(
            **{  # type: ignore[arg-type]
                "directory": tmp_path / "gateway",
                "bind": (f"127.0.0.1:{port}",),
                "threads": 1,
                "max_connections": 1000,
                "http_backends": 4,
                "grpc_backends": 2,
                "hold_timeout": 0.0,
                **options,
            }
        )
        write_files(settings, initial_state(settings.http_backends, settings.grpc_backends, settings.slots))
        gateway = RunningHaproxy(settings, port, Haproxy(settings))
        running.append(gateway)
        await gateway.start()
        return gateway

    yield make
    for gateway in running:
        if gateway.process is not None and gateway.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(gateway.process.pid, signal.SIGKILL)


@pytest.fixture
async def gateway(make_haproxy: Callable[..., Awaitable[RunningHaproxy]]) -> AsyncIterator[RunningHaproxy]:
    running = await make_haproxy()
    yield running
    await running.stop()


@dataclass
class Pod:
    """An HTTP server that answers with its name, the path and headers it saw; `/sleep/SECONDS` takes that long."""

    name: str
    runner: web.AppRunner
    site: web.TCPSite
    endpoint: Endpoint
    active: int = 0
    most_active: int = 0
    requests: int = 0
    seen: list[str] = field(default_factory=list)

    async def close(self) -> None:
        await self.runner.cleanup()


@pytest.fixture
async def make_pod() -> AsyncIterator[Callable[..., Awaitable[Pod]]]:
    pods: list[Pod] = []

    async def make(name: str = "pod", port: int = 0) -> Pod:
        async def handle(request: web.Request) -> web.Response:
            pod.active += 1
            pod.requests += 1
            pod.most_active = max(pod.most_active, pod.active)
            try:
                body = await request.read()
                if request.path.startswith("/sleep/"):
                    await asyncio.sleep(float(request.path.rsplit("/", 1)[1]))
                answer = {
                    "pod": name, "path": request.path_qs, "headers": dict(request.headers), "size": len(body),
                }  # fmt: skip
                return web.Response(text=json.dumps(answer), content_type="application/json")
            finally:
                pod.active -= 1

        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        assert site._server is not None
        number = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        pod = Pod(name, runner, site, Endpoint("127.0.0.1", number))
        pods.append(pod)
        return pod

    yield make
    for pod in pods:
        await pod.close()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture
def make_service() -> Callable[..., ServiceRoutes]:
    """A service `ns/name` at `{name}.test` whose workloads are given as `{workload: (percent, endpoints)}`."""

    def make(
        name: str,
        workloads: dict[str, tuple[int, list[Endpoint]]],
        *,
        transport: Transport = Transport.HTTP,
        timeout: float = 60.0,
        concurrency: int = 0,
    ) -> ServiceRoutes:
        route = f"ns/{name}/predictor"
        targets = tuple(Target(workload, workload, percent) for workload, (percent, _) in workloads.items())
        upstreams = [
            Upstream("ns", workload, transport, timeout, concurrency, frozenset(endpoints), frozenset())
            for workload, (_, endpoints) in workloads.items()
        ]
        return ServiceRoutes(
            "ns", name, "2026-01-01T00:00:00Z", {f"{name}.test": route}, {f"ns/{name}": route},
            {route: targets}, {"predictor": targets}, {u.key: u for u in upstreams},
        )  # fmt: skip

    return make
