from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from tests.kube.fakes import FakeApi, obj
from tests.kube.virtual_time import settle, virtual_time

from fairlead.kube import metrics
from fairlead.kube.controller import Controller, Reconcile
from fairlead.kube.errors import Conflict, TerminalError
from fairlead.kube.informer import Informer
from fairlead.kube.objects import Key, Object
from fairlead.kube.resources import CONFIG_MAPS


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def controlled(
    api: FakeApi,
    reconcile: Reconcile,
    *,
    name: str = "test",
    workers: int = 4,
    keys: Callable[[Object], list[Key]] | None = None,
) -> AsyncGenerator[Controller, None]:
    informer = Informer(api, CONFIG_MAPS)
    controller = Controller(name, reconcile, workers=workers)
    if keys:
        controller.watch(informer, keys)
    else:
        controller.watch(informer)
    tasks = [asyncio.create_task(informer.run()), asyncio.create_task(controller.run())]
    try:
        await settle()
        yield controller
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@virtual_time
async def test_every_object_is_reconciled_at_the_start_and_again_when_it_changes_or_goes() -> None:
    api = FakeApi()
    api.put(obj("a"))
    seen: list[Key] = []

    async def reconcile(key: Key) -> None:
        seen.append(key)

    async with controlled(api, reconcile):
        api.put(obj("b"))
        await settle()
        api.remove(Key("ns", "a"))
        await settle()
    assert [key.name for key in seen] == ["a", "b", "a"]


@virtual_time
async def test_a_child_that_moves_wakes_its_old_and_its_new_owner() -> None:
    api = FakeApi()
    seen: list[str] = []

    async def reconcile(key: Key) -> None:
        seen.append(key.name)

    async with controlled(api, reconcile, keys=lambda child: [Key("ns", child["spec"]["owner"])]):
        api.put(obj("child", owner="old"))
        await settle()
        seen.clear()
        api.put(obj("child", owner="new"))
        await settle()
    assert sorted(seen) == ["new", "old"]


@virtual_time
async def test_a_failure_is_retried_after_a_back_off_and_the_result_says_when_to_come_again() -> None:
    api = FakeApi()
    api.put(obj("a"))
    times: list[float] = []

    async def reconcile(key: Key) -> float | None:
        times.append(now())
        if len(times) == 1:
            raise Conflict(409, "Conflict", "changed meanwhile")
        if len(times) == 2:
            raise ZeroDivisionError
        return 60.0 if len(times) == 3 else None

    async with controlled(api, reconcile):
        await asyncio.sleep(3600)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits == [pytest.approx(0.005, rel=0.11), pytest.approx(0.01, rel=0.11), pytest.approx(60)]


@virtual_time
async def test_a_terminal_error_is_not_retried_until_the_object_changes() -> None:
    api = FakeApi()
    api.put(obj("a"))
    runs = 0

    async def reconcile(key: Key) -> None:
        nonlocal runs
        runs += 1
        raise TerminalError("spec.predictor names no model")

    async with controlled(api, reconcile):
        await asyncio.sleep(3600)
        assert runs == 1
        api.put(obj("a", changed=True))
        await asyncio.sleep(3600)
        assert runs == 2


@virtual_time
async def test_one_key_is_never_reconciled_twice_at_once_and_others_do_not_wait_for_it() -> None:
    api = FakeApi()
    running: list[str] = []
    at_most = 0

    async def reconcile(key: Key) -> None:
        nonlocal at_most
        assert key.name not in running
        running.append(key.name)
        at_most = max(at_most, len(running))
        await asyncio.sleep(10)
        running.remove(key.name)

    async with controlled(api, reconcile, workers=3):
        for name in "abcdabcd":
            api.put(obj(name))
            await asyncio.sleep(1)
        await asyncio.sleep(100)
    assert at_most == 3


@virtual_time
async def test_closing_lets_reconciles_end_and_begins_none() -> None:
    api = FakeApi()
    for name in "abc":
        api.put(obj(name))
    done: list[str] = []

    async def reconcile(key: Key) -> None:
        await asyncio.sleep(5)
        done.append(key.name)

    informer = Informer(api, CONFIG_MAPS)
    controller = Controller("closing", reconcile, workers=1)
    controller.watch(informer)
    watching = asyncio.create_task(informer.run())
    working = asyncio.create_task(controller.run())
    await asyncio.sleep(1)
    controller.close()
    await working
    assert done == ["a"]
    watching.cancel()


@virtual_time
async def test_reconciles_are_counted_by_result() -> None:
    api = FakeApi()
    api.put(obj("fine"))
    api.put(obj("hopeless"))

    async def reconcile(key: Key) -> None:
        if key.name == "hopeless":
            raise TerminalError("no")

    async with controlled(api, reconcile, name="counted"):
        pass

    def count(result: str) -> float | None:
        labels = {"controller": "counted", "result": result}
        return metrics.REGISTRY.get_sample_value("controller_runtime_reconcile_total", labels)

    assert (count("success"), count("terminal_error"), count("error")) == (1, 1, None)
    labels = {"controller": "counted"}
    assert metrics.REGISTRY.get_sample_value("controller_runtime_reconcile_errors_total", labels) == 1
