"""Requests that wait for a first pod: who hears of it at once, and how their pod is found before Kubernetes says that it is ready.

While some workload may be woken, HAProxy is asked every few tens of milliseconds for whom requests are held. When requests begin to be
held for a workload, the operator's open question (`Demand.after`) is answered. Its pods' addresses are known before they are ready: those are
asked for readiness here, because the kubelet's probe, the pod's status and the EndpointSlice would take 0.6 s and more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import aiohttp

from fairlead.gateway.routes import RouteTable, Upstream

CHECK_TIMEOUT = 0.5
"""Seconds that a pod may take to say that it is ready; one that loads may take long to say anything."""

Workload = tuple[str, str]


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


def may_be_held(table: RouteTable) -> bool:
    """Whether requests may wait for a pod that will come: one is on its way, or is started for them."""
    return any(not u.ready and (u.unready or u.hold is not None) for u in table.upstreams.values())


def to_check(table: RouteTable, held: Collection[Workload]) -> list[Upstream]:
    """Upstreams for which requests wait, and whose pods are known without being ready."""
    return [
        upstream
        for upstream in table.upstreams.values()
        if (upstream.namespace, upstream.workload) in held and upstream.unready and upstream.check is not None
    ]


def with_answering(table: RouteTable, answering: Collection[tuple[Workload, str]]) -> RouteTable:
    """The table with the pods (by workload and address) that have said themselves that they are ready."""
    upstreams = {}
    for key, upstream in table.upstreams.items():
        workload = (upstream.namespace, upstream.workload)
        early = frozenset(end for end in upstream.unready if (workload, end.address) in answering)
        upstreams[key] = (
            replace(upstream, ready=upstream.ready | early, unready=upstream.unready - early) if early else upstream
        )
    return replace(table, upstreams=upstreams)


async def ready_now(session: aiohttp.ClientSession, upstreams: Iterable[Upstream]) -> set[tuple[Workload, str]]:
    """Those of the unready pods that say now that they are ready."""
    asked = {((u.namespace, u.workload), end.address): u for u in upstreams for end in u.unready}
    answers = await asyncio.gather(*(_is_ready(session, u, address) for (_, address), u in asked.items()))
    return {place for place, ready in zip(asked, answers, strict=True) if ready}


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
    except (OSError, aiohttp.ClientError, TimeoutError):
        return False
