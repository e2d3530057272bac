"""A real HAProxy in a directory of its own, with real servers behind it."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fairlead.gateway.agent import Agent
from fairlead.gateway.haproxy import Haproxy, HaproxyGone, command, write_files
from fairlead.gateway.plan import grown, initial_state, plan
from fairlead.gateway.routes import Endpoint, RouteTable, ServiceRoutes, Target, Transport, Upstream, route_table
from fairlead.gateway.settings import Settings
from fairlead.gateway.state import State
from fairlead.kube.client import ObjectList
from fairlead.kube.resources import ENDPOINT_SLICES, INFERENCE_SERVICES, SERVICES, Resource
from fairlead.kube.watch import Event
from fairlead.local.supervisor.home import free_port

PATIENCE = 60.0
"""Seconds until what is waited for counts as never coming."""


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
        async with asyncio.timeout(PATIENCE):
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
async def make_haproxy(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[RunningHaproxy]]]:
    running: list[RunningHaproxy] = []

    async def make(**options: object) -> RunningHaproxy:
        port = free_port()
        settings = Settings(
            **{  # type: ignore[arg-type]
                "directory": tmp_path / f"gateway{len(running)}",
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
        await gateway.stop()


@pytest.fixture
async def gateway(make_haproxy: Callable[..., Awaitable[RunningHaproxy]]) -> RunningHaproxy:
    return await make_haproxy()


@dataclass
class Pod:
    """An HTTP server that answers, while it is `open`, with its name, the path and headers it saw; `/sleep/SECONDS` takes that long."""

    name: str
    runner: web.AppRunner
    site: web.TCPSite
    endpoint: Endpoint
    active: int = 0
    most_active: int = 0
    requests: int = 0
    received: int = 0
    """Bytes of bodies."""
    seen: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

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
                pod.received += len(body)
                if request.path.startswith("/sleep/"):
                    await asyncio.sleep(float(request.path.rsplit("/", 1)[1]))
                await pod.open.wait()
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
        pod.open.set()
        pods.append(pod)
        return pod

    yield make
    for pod in pods:
        await pod.close()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
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
        hold: float | None = None,
        trouble: str | None = None,
    ) -> ServiceRoutes:
        route = f"ns/{name}/predictor"
        targets = tuple(Target(workload, workload, percent) for workload, (percent, _) in workloads.items())
        upstreams = [
            Upstream("ns", workload, transport, timeout, concurrency, frozenset(endpoints), frozenset(), hold)
            for workload, (_, endpoints) in workloads.items()
        ]
        return ServiceRoutes(
            "ns", name, "2026-01-01T00:00:00Z", {f"{name}.test": route}, {f"ns/{name}": route},
            {route: targets}, {"predictor": targets}, {u.key: u for u in upstreams}, {route: trouble} if trouble else {},
        )  # fmt: skip

    return make


class Cluster:
    """The part of an API server that informers need, in memory."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[tuple[str, str], dict[str, Any]]] = {}
        self._watches: list[tuple[Resource, asyncio.Queue[Event]]] = []
        self._version = 0

    async def list(self, resource, namespace=None, *, labels=None, fields=None):
        items = [copy.deepcopy(obj) for obj in self._objects.get(resource, {}).values()]
        return ObjectList(items, str(self._version))

    async def watch(self, resource, namespace=None, *, resource_version, labels=None, fields=None):
        queue: asyncio.Queue[Event] = asyncio.Queue()
        for obj in self._objects.get(resource, {}).values():
            if int(obj["metadata"]["resourceVersion"]) > int(resource_version):
                queue.put_nowait(Event("ADDED", copy.deepcopy(obj)))
        self._watches.append((resource, queue))
        while True:
            yield await queue.get()

    def put(self, resource, obj) -> None:
        self._version += 1
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(self._version)
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        kind = "MODIFIED" if key in self._objects.setdefault(resource, {}) else "ADDED"
        self._objects[resource][key] = obj
        self._tell(resource, Event(kind, copy.deepcopy(obj)))

    def delete(self, resource, namespace, name) -> None:
        self._version += 1
        obj = self._objects[resource].pop((namespace, name))
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._tell(resource, Event("DELETED", obj))

    def _tell(self, resource, event) -> None:
        for watched, queue in self._watches:
            if watched == resource:
                queue.put_nowait(event)

    # --- What the operator and the endpoint controller would write -------------------------------------------

    def serve(self, name: str, traffic: dict[str, int], *, created: str = "2026-01-01T00:00:00Z", **more: Any) -> None:
        """The InferenceService `ns/name`, with the percentages of its predictor's workloads."""
        items = [
            {"revisionName": workload, "serviceName": workload, "percent": percent, "latestRevision": False}
            for workload, percent in traffic.items()
        ]
        self.put(
            INFERENCE_SERVICES,
            {
                "metadata": {"namespace": "ns", "name": name, "creationTimestamp": created, **more},
                "spec": {"predictor": {}},
                "status": {"components": {"predictor": {"traffic": items}}},
            },
        )

    def workload(
        self, isvc: str, name: str, endpoints: Iterable[Endpoint], *, grpc: bool = False, unready=(), **annotations: str
    ) -> None:
        """A workload's Service and EndpointSlices; each endpoint may have a port of its own, so there is a slice per port."""
        labels = {"serving.kserve.io/inferenceservice": isvc, "fairlead.dev/workload": name}
        port = (
            {"name": "grpc", "port": 8081, "appProtocol": "kubernetes.io/h2c"} if grpc else {"name": "http", "port": 80}
        )
        self.put(
            SERVICES,
            {
                "metadata": {
                    "namespace": "ns",
                    "name": name,
                    "labels": labels,
                    "annotations": {f"fairlead.dev/{k.replace('_', '-')}": v for k, v in annotations.items()},
                },
                "spec": {"ports": [port]},
            },
        )
        wanted = {f"{name}-{e.port}": (e, e not in unready) for e in [*endpoints, *unready]}
        for (namespace, slice_name), obj in list(self._objects.get(ENDPOINT_SLICES, {}).items()):
            if obj["metadata"]["labels"]["kubernetes.io/service-name"] == name and slice_name not in wanted:
                self.delete(ENDPOINT_SLICES, namespace, slice_name)
        for slice_name, (endpoint, ready) in wanted.items():
            self.put(
                ENDPOINT_SLICES,
                {
                    "metadata": {
                        "namespace": "ns",
                        "name": slice_name,
                        "labels": {**labels, "kubernetes.io/service-name": name},
                    },
                    "addressType": "IPv4",
                    "ports": [{"name": port["name"], "port": endpoint.port}],
                    "endpoints": [{"addresses": [endpoint.address], "conditions": {"ready": ready}}],
                },
            )


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
async def run_agent(cluster: Cluster) -> AsyncIterator[Callable[[RunningHaproxy], Awaitable[Agent]]]:
    tasks: list[asyncio.Task[None]] = []

    async def run(gateway: RunningHaproxy) -> Agent:
        agent = Agent(gateway.settings, cluster)
        task = asyncio.create_task(agent.run())
        tasks.append(task)
        agent.task = task  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            while not agent.ready:
                await asyncio.sleep(0.01)
        return agent

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Waits until a condition holds, by looking: the other side is a process."""

    async def wait(condition: Callable[[], Any], within: float = PATIENCE) -> None:
        async with asyncio.timeout(within):
            while True:
                result = condition()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return
                await asyncio.sleep(0.01)

    return wait


@dataclass
class Load:
    """Requests, a few at a time, until stopped: what came back, and what did not."""

    statuses: Counter[Any] = field(default_factory=Counter)
    pods: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    @property
    def failures(self) -> dict[Any, int]:
        return {status: count for status, count in self.statuses.items() if status != 200}


@pytest.fixture
def load() -> Callable[..., Any]:
    @asynccontextmanager
    async def run(
        url: str, host: str, *, method: str = "POST", connections: int = 8, keep_alive: bool = True
    ) -> AsyncIterator[Load]:
        result = Load()

        async def worker(session: aiohttp.ClientSession) -> None:
            while not result.stopped:
                try:
                    async with session.request(method, url, headers={"host": host}, data=b"x" * 100) as response:
                        body = await response.json(content_type=None)
                        result.statuses[response.status] += 1
                        result.pods[body.get("pod", "none")] += 1
                        if response.status != 200:
                            result.statuses[body["error"]] += 1
                except aiohttp.ClientError as error:
                    result.statuses[repr(error)] += 1

        connector = aiohttp.TCPConnector(limit=connections, force_close=not keep_alive)
        async with aiohttp.ClientSession(connector=connector) as session:
            workers = [asyncio.create_task(worker(session)) for _ in range(connections)]
            try:
                yield result
            finally:
                result.stopped = True
                await asyncio.gather(*workers)

    return run
