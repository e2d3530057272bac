from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.kube.fakes import FakeApi, FakeCluster, obj, unavailable
from tests.kube.virtual_time import settle, virtual_time

from fairlead.kube.controller import Controller
from fairlead.kube.informer import Informer
from fairlead.kube.lease import Lease, LeaseLost
from fairlead.kube.manager import Manager
from fairlead.kube.objects import Key
from fairlead.kube.probes import LAG_LIMIT, WEDGED_AFTER, Heartbeat, Probes
from fairlead.kube.resources import CONFIG_MAPS, LEASES


def now() -> float:
    return asyncio.get_running_loop().time()


def operator(
    cluster: FakeCluster,
    reconcile: Callable[[Key], Awaitable[float | None]],
    identity: str | None = "one",
    **options: Any,
) -> Manager:
    lease = Lease("op", "system", identity=identity) if identity else None
    manager = Manager(cluster, lease=lease, address=("127.0.0.1", 0), **options)  # type: ignore[arg-type]
    controller = Controller("test", reconcile)
    controller.watch(manager.informer(CONFIG_MAPS))
    manager.add(controller)
    return manager


@asynccontextmanager
async def running(manager: Manager) -> AsyncGenerator[asyncio.Task[None], None]:
    task = asyncio.create_task(manager.run())
    try:
        await asyncio.sleep(1)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def holder(cluster: FakeCluster) -> str:
    return str(cluster[LEASES].objects[Key("system", "op")]["spec"]["holderIdentity"])


@virtual_time
async def test_a_standby_keeps_its_caches_warm_and_reconciles_everything_when_it_leads() -> None:
    cluster = FakeCluster()
    cluster[CONFIG_MAPS].put(obj("a"))
    by_first: list[str] = []
    by_second: list[str] = []

    async def first(key: Key) -> None:
        by_first.append(key.name)

    async def second(key: Key) -> None:
        by_second.append(key.name)

    leader, standby = operator(cluster, first, "one"), operator(cluster, second, "two")
    async with running(leader) as leading, running(standby) as standing_by:
        cluster[CONFIG_MAPS].put(obj("b"))
        await settle()
        assert by_first == ["a", "b"]
        assert by_second == []
        lists = cluster[CONFIG_MAPS].lists
        leader.stop()
        await leading
        await asyncio.sleep(2.5)
        assert holder(cluster) == "two"
        assert sorted(by_second) == ["a", "b"]
        assert cluster[CONFIG_MAPS].lists == lists
        assert not standing_by.done()


@virtual_time
async def test_a_lease_lost_in_the_middle_of_a_reconcile_cancels_it_and_ends_the_process() -> None:
    cluster = FakeCluster()
    cluster[CONFIG_MAPS].put(obj("a"))
    cancelled_at: list[float] = []

    async def reconcile(key: Key) -> None:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            cancelled_at.append(now())
            raise

    manager = operator(cluster, reconcile)
    async with running(manager) as task:
        cluster[LEASES].fail = [unavailable() for _ in range(1000)]
        began = now()
        with pytest.raises(LeaseLost):
            await task
    assert cancelled_at == [
        pytest.approx(began + 9, abs=1)
    ]  # a second after the last renewal, and before anybody may follow


@virtual_time
async def test_a_lease_that_another_took_ends_the_process_at_the_next_renewal() -> None:
    cluster = FakeCluster()

    async def reconcile(key: Key) -> None: ...

    manager = operator(cluster, reconcile)
    async with running(manager) as task:
        lease = cluster[LEASES].objects[Key("system", "op")]
        cluster[LEASES].put({**lease, "spec": {**lease["spec"], "holderIdentity": "thief"}})
        began = now()
        with pytest.raises(LeaseLost, match="thief"):
            await task
    assert now() - began <= 2
    assert holder(cluster) == "thief"


@virtual_time
async def test_sigterm_lets_reconciles_end_and_then_gives_the_lease_back() -> None:
    cluster = FakeCluster()
    cluster[CONFIG_MAPS].put(obj("a"))
    ended: list[str] = []

    async def reconcile(key: Key) -> None:
        await asyncio.sleep(5)
        ended.append(holder(cluster))

    manager = operator(cluster, reconcile)
    async with running(manager) as task:
        os.kill(os.getpid(), signal.SIGTERM)
        await task
    assert ended == ["one"]
    assert holder(cluster) == ""


@virtual_time
async def test_a_reconcile_that_will_not_end_is_cancelled_after_the_grace() -> None:
    cluster = FakeCluster()
    cluster[CONFIG_MAPS].put(obj("a"))

    async def reconcile(key: Key) -> None:
        await asyncio.sleep(1e6)

    manager = operator(cluster, reconcile, grace=7)
    async with running(manager) as task:
        began = now()
        manager.stop()
        await task
    assert now() - began == pytest.approx(7, abs=0.1)
    assert holder(cluster) == ""


@virtual_time
async def test_it_can_be_stopped_while_it_waits_for_the_lease_and_while_it_waits_for_the_server() -> None:
    cluster = FakeCluster()

    async def reconcile(key: Key) -> None: ...

    leader, standby = operator(cluster, reconcile, "one"), operator(cluster, reconcile, "two")
    async with running(leader), running(standby) as task:
        standby.stop()
        await task
        assert holder(cluster) == "one"
    away = FakeCluster()
    away[CONFIG_MAPS].fail = [unavailable() for _ in range(1000)]
    unsynced = operator(away, reconcile)
    async with running(unsynced) as task:
        unsynced.stop()
        await task


@virtual_time
async def test_tasks_run_only_while_leading_and_one_that_ends_is_an_error() -> None:
    cluster = FakeCluster()

    async def reconcile(key: Key) -> None: ...

    ticks: list[str] = []

    async def ticking(name: str) -> None:
        for _ in range(5):
            await asyncio.sleep(1)
            ticks.append(name)

    leader, standby = operator(cluster, reconcile, "one"), operator(cluster, reconcile, "two")
    leader.add_task("autoscaler", lambda: ticking("one"))
    standby.add_task("autoscaler", lambda: ticking("two"))
    async with running(leader) as task, running(standby):
        with pytest.raises(RuntimeError, match="autoscaler has ended"):
            await task
    assert ticks == ["one"] * 5


@virtual_time
async def test_an_operator_without_a_lease_leads_at_once() -> None:
    cluster = FakeCluster()
    cluster[CONFIG_MAPS].put(obj("a"))
    seen: list[str] = []

    async def reconcile(key: Key) -> None:
        seen.append(key.name)

    async with running(operator(cluster, reconcile, identity=None)):
        assert seen == ["a"]


async def test_probes_and_metrics_are_served() -> None:
    cluster = FakeCluster()
    hold = asyncio.Event()

    async def reconcile(key: Key) -> None: ...

    real = cluster[CONFIG_MAPS].list

    async def wait_and_list(*args: Any, **options: Any) -> Any:
        await hold.wait()
        return await real(*args, **options)

    cluster[CONFIG_MAPS].list = wait_and_list  # type: ignore[method-assign]
    manager = operator(cluster, reconcile)
    task = asyncio.create_task(manager.run())
    await manager.serving.wait()
    host, port = manager.address
    async with aiohttp.ClientSession(f"http://{host}:{port}") as http:

        async def get(path: str) -> tuple[int, str]:
            async with http.get(path) as response:
                return response.status, await response.text()

        assert await get("/healthz") == (200, "ok\n")
        assert await get("/readyz") == (503, "configmaps not listed yet\n")
        hold.set()
        while await get("/readyz") != (200, "ok\n"):
            await asyncio.sleep(0)
        status, text = await get("/metrics")
        assert status == 200
        for name in ("leader_election_master_status", "workqueue_depth", "fairlead_informer_lists_total"):
            assert name in text
    manager.stop()
    await task


@virtual_time
async def test_an_informer_that_no_longer_stirs_and_a_loop_that_lags_are_unhealthy() -> None:
    informer = Informer(FakeApi(), CONFIG_MAPS)
    heartbeat = Heartbeat()
    probes = Probes([informer], heartbeat)
    informing = asyncio.create_task(informer.run())
    await settle()
    assert probes.unhealthy(now()) == []
    informing.cancel()
    await asyncio.sleep(WEDGED_AFTER + 1)
    heartbeat.lag = LAG_LIMIT + 1
    assert probes.unhealthy(now()) == [
        "the informer of configmaps has not stirred for 331 s",
        "the event loop is 6.0 s late",
    ]


@virtual_time
async def test_an_api_server_that_is_away_for_an_hour_is_no_reason_to_be_restarted() -> None:
    api = FakeApi()
    api.fail = [unavailable() for _ in range(10_000)]
    informer = Informer(api, CONFIG_MAPS)
    probes = Probes([informer], Heartbeat())
    informing = asyncio.create_task(informer.run())
    for _ in range(60):
        await asyncio.sleep(60)
        assert probes.unhealthy(now()) == []
    informing.cancel()
