"""Who may touch HAProxy and its files when: reloads, files written late, and a worker's end, in every order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fairlead.gateway import programmer as module
from fairlead.gateway.config import fingerprint
from fairlead.gateway.plan import initial_state
from fairlead.gateway.programmer import Programmer
from fairlead.gateway.routes import RouteTable, Transport, Upstream
from fairlead.gateway.settings import CONFIG_FILE, Settings
from fairlead.gateway.state import State


class ScriptedHaproxy:
    """Knows what its configuration says; where the test holds a call, it waits until the test lets it go."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.known = initial_state(settings.http_backends, settings.grpc_backends, settings.slots)
        self.worker = 1
        self.held_call = ""
        self.arrived, self.let_go = asyncio.Event(), asyncio.Event()
        self.configurations: list[str] = []

    async def process_id(self) -> int:
        return self.worker

    async def description(self) -> str:
        return fingerprint(self.settings)

    async def state(self) -> State:
        return self.known.copy()

    async def held(self) -> dict[str, int]:
        return {}

    async def send(self, commands) -> None:
        await self._wait_in("send")
        for command in commands:
            command.apply(self.known)

    async def reload(self) -> None:
        await self._wait_in("reload")
        self.configurations.append((self.settings.directory / CONFIG_FILE).read_text())
        lines = self.configurations[-1].splitlines()
        names = [line.split()[1] for line in lines if line.startswith(("backend h1", "backend h2"))]
        empty = initial_state(1, 1, self.settings.slots).backends["h1-0001"]
        self.known.backends = {name: self.known.backends.get(name, list(empty)) for name in names}
        self.worker += 1

    async def _wait_in(self, call: str) -> None:
        if call == self.held_call:
            self.arrived.set()
            await self.let_go.wait()


@pytest.fixture
def haproxy(tmp_path: Path) -> ScriptedHaproxy:
    return ScriptedHaproxy(Settings(directory=tmp_path, http_backends=1, grpc_backends=1, max_connections=1000))


@pytest.fixture
def programmer(haproxy: ScriptedHaproxy) -> Programmer:
    return Programmer(haproxy)  # type: ignore[arg-type]


def table(workloads: int) -> RouteTable:
    upstreams = [
        Upstream("ns", f"w{number}", Transport.HTTP, 60.0, 0, frozenset(), frozenset()) for number in range(workloads)
    ]
    return RouteTable(upstreams={upstream.key: upstream for upstream in upstreams})


@contextmanager
def persisting(programmer: Programmer) -> Iterator[None]:
    task = asyncio.create_task(programmer.persist())
    try:
        yield
    finally:
        task.cancel()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_files_written_late_do_not_replace_those_that_a_reload_is_about_to_read(haproxy, programmer, monkeypatch):
    monkeypatch.setattr(module, "_PERSIST_AFTER", 0)
    await programmer.lead(table(1))
    with persisting(programmer):
        haproxy.held_call = "reload"
        leading = asyncio.create_task(programmer.lead(table(8)))
        await haproxy.arrived.wait()
        await settled()
        haproxy.let_go.set()
        await leading
    assert programmer.in_effect
    assert "backend h1-0008" in haproxy.configurations[-1]


async def test_a_worker_that_ends_while_it_is_told_things_is_forgotten_afterwards(haproxy, programmer):
    haproxy.held_call = "send"
    leading = asyncio.create_task(programmer.lead(table(1)))
    await haproxy.arrived.wait()
    haproxy.worker += 1
    noticing = asyncio.create_task(programmer.follows())
    await settled()
    haproxy.let_go.set()
    await leading
    assert not await noticing
    assert programmer.state is None


async def test_a_reload_of_its_own_is_no_surprise(haproxy, programmer):
    await programmer.lead(table(8))
    assert programmer.reloads > 0
    assert await programmer.follows()
    assert programmer.state is not None


async def test_the_pool_doubles_as_often_as_it_must(haproxy, programmer):
    for workloads in range(1, 100, 7):
        await programmer.lead(table(workloads))
    assert len(haproxy.known.maps["upstreams"]) == 99
    assert programmer.reloads == 5  # 8, 16, 32, 64, 128: a first lack of seven, then doublings
