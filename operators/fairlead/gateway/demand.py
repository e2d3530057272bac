"""Requests that wait for a first pod: who hears of it at once, and how their pod is found before Kubernetes says that it is ready.

HAProxy says for whom requests are held as soon as that changes. When requests begin to be held for a workload, the operator's open question
(`Demand.after`) is answered. Its pods' addresses are known before they are ready: those are asked for readiness here (`Prober`), because the
kubelet's probe, the pod's status and the EndpointSlice would take 0.6 s and more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace

import aiohttp

from fairlead.gateway.routes import Endpoint, RouteTable, Upstream

CHECK_TIMEOUT = 0.5
"""Seconds that a pod may take to say that it is ready; one that loads may take long to say anything."""
PROBE_EVERY = 0.015
"""Seconds between questions to a pod that is waited for; each costs some 0.3 ms, of which a refused one a third."""

Workload = tuple[str, str]

Place = tuple[Workload, str]
"""A pod, by its workload and address."""


class Demand:
    """For which workloads requests are held; the version counts how often one has been added."""

    def __init__(self) -> None:
        self.version = 0
        self.held: dict[Workload, int] = {}
        self._grown = asyncio.Event()

    def update(self, held: Mapping[Workload, int]) -> None:
        new = held.keys() - self.held.keys()
        self.held = dict(held)
        if new:
            self.version += 1
            self._grown.set()
            self._grown = asyncio.Event()

    async def after(self, version: int, timeout: float) -> None:
        """Returns when the version is another one than `version`, or after the timeout, in seconds."""
        if self.version != version:
            return
        try:
            await asyncio.wait_for(self._grown.wait(), timeout)
        except TimeoutError:
            return


def by_workload(held: Mapping[str, int], upstreams: Mapping[str, str]) -> dict[Workload, int]:
    """HAProxy's count per backend, summed; `upstreams` says to which upstream each backend is lent."""
    found: dict[Workload, int] = {}
    for backend, count in held.items():
        if backend in upstreams and count > 0:
            namespace, name, _ = upstreams[backend].split("/")
            found[namespace, name] = found.get((namespace, name), 0) + count
    return found


def to_check(table: RouteTable, held: Collection[Workload]) -> list[Upstream]:
    """Upstreams for which requests wait, and whose pods are known without being ready."""
    return [
        upstream
        for upstream in table.upstreams.values()
        if (upstream.namespace, upstream.workload) in held and upstream.unready and upstream.check is not None
    ]


def with_answering(table: RouteTable, answering: Collection[Place]) -> RouteTable:
    """The table with the pods that have said themselves that they are ready."""
    woken = {workload for workload, _ in answering}
    early = {
        key: _with(upstream, answering)
        for key, upstream in table.upstreams.items()
        if upstream.unready and (upstream.namespace, upstream.workload) in woken
    }
    return replace(table, upstreams={**table.upstreams, **early}) if early else table


def places(upstream: Upstream, endpoints: Iterable[Endpoint]) -> Iterator[Place]:
    return (((upstream.namespace, upstream.workload), endpoint.address) for endpoint in endpoints)


def _with(upstream: Upstream, answering: Collection[Place]) -> Upstream:
    early = frozenset(end for end in upstream.unready if next(places(upstream, [end])) in answering)
    return replace(upstream, ready=upstream.ready | early, unready=upstream.unready - early)


class Prober:
    """Asks pods that are waited for whether they are ready, each again and again, none twice at a time: one that is slow to answer delays no other."""

    def __init__(self, found: Callable[[], None]) -> None:
        """`found` is called when `answering` has changed by what a pod has said, or has said no more."""
        self._found = found
        self.answering: set[Place] = set()
        """Pods that have said so themselves."""
        self._asked: dict[Place, Upstream] = {}
        self._wake = asyncio.Event()

    def ask(self, upstreams: Iterable[Upstream], unready: Collection[Place]) -> None:
        """From now on the unready pods of these upstreams. `unready`: all pods that are not ready; what others have said is forgotten."""
        self.answering &= set(unready)
        self._asked = {place: u for u in upstreams for place in places(u, u.unready) if place not in self.answering}
        if self._asked:
            self._wake.set()

    def forget(self, workloads: Collection[Workload]) -> None:
        """What these workloads' pods have said does not count any more."""
        gone = {place for place in self.answering if place[0] in workloads}
        if gone:
            self.answering -= gone
            self._found()

    async def run(self) -> None:
        asking: dict[Place, asyncio.Task[None]] = {}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                await self._wake.wait()
                for place, upstream in self._asked.items():
                    if place not in asking:
                        asking[place] = tasks.create_task(self._ask(session, upstream, place))
                        asking[place].add_done_callback(lambda _, place=place: asking.pop(place))  # type: ignore[misc]
                if not self._asked:
                    self._wake.clear()
                await asyncio.sleep(PROBE_EVERY)

    async def _ask(self, session: aiohttp.ClientSession, upstream: Upstream, place: Place) -> None:
        if await _is_ready(session, upstream, place[1]) and self._asked.pop(place, None) is not None:
            self.answering.add(place)
            self._found()


async def _is_ready(session: aiohttp.ClientSession, upstream: Upstream, address: str) -> bool:
    assert upstream.check is not None
    check, host = upstream.check, f"[{address}]" if ":" in address else address
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            if check.path is None:
                _, writer = await asyncio.open_connection(address, check.port)
                writer.close()
                return True
            async with session.get(f"http://{host}:{check.port}{check.path}") as answer:
                return 200 <= answer.status < 300
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError):
        # The last for what a pod makes up: a redirect to a host that cannot be one.
        return False
