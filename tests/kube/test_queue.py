from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kube.virtual_time import settle, virtual_time

from fairlead.kube.backoff import Backoff
from fairlead.kube.queue import QueueClosed, WorkQueue


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_a_key_that_is_added_twice_comes_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


@virtual_time
async def test_a_key_added_while_it_is_worked_on_comes_again_only_when_that_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done(key)
    assert len(queue) == 1
    assert await queue.get() == "a"


@virtual_time
async def test_of_several_delayed_adds_the_earliest_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    began = now()
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    queue.add_after("b", 15)
    assert await queue.get() == "a"
    assert now() - began == pytest.approx(10)
    assert await queue.get() == "b"
    assert now() - began == pytest.approx(15)
    assert queue.delayed == 0


@virtual_time
async def test_failures_wait_twice_as_long_each_time_up_to_the_cap_until_forgotten() -> None:
    queue: WorkQueue[str] = WorkQueue(Backoff(base=0.005, cap=0.03, jitter=0))
    assert [queue.retry("a") for _ in range(5)] == [0.005, 0.01, 0.02, 0.03, 0.03]
    queue.forget("a")
    assert queue.retry("a") == 0.005


@virtual_time
async def test_a_worker_that_is_cancelled_as_a_key_arrives_leaves_it_to_the_next() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await settle()
    queue.add("a")
    first.cancel()
    assert await second == "a"


@virtual_time
async def test_a_closed_queue_gives_out_nothing_and_is_drained_when_the_last_key_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    waiting = asyncio.create_task(queue.get())
    queue.add_after("b", 1)
    await settle()
    queue.close()
    queue.add("c")
    with pytest.raises(QueueClosed):
        await waiting
    drained = asyncio.create_task(queue.drained())
    await settle()
    assert not drained.done()
    queue.done(key)
    await drained


@virtual_time
async def test_it_tells_how_long_a_key_has_waited() -> None:
    waits: list[float] = []
    queue: WorkQueue[str] = WorkQueue(waited=waits.append)
    queue.add("a")
    await asyncio.sleep(7)
    await queue.get()
    assert waits == [pytest.approx(7)]


KEYS = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KEYS),
        st.tuples(st.just("add_after"), KEYS),
        st.tuples(st.just("pass"), st.floats(0.1, 3)),
    ),
    max_size=40,
)


@given(steps=STEPS, workers=st.integers(1, 4), failing=st.sets(st.integers(0, 30)))
@settings(max_examples=150, deadline=None)
def test_no_key_is_run_twice_at_once_and_none_is_lost(
    steps: list[tuple[str, str | float]], workers: int, failing: set[int]
) -> None:
    """Whatever is added, and however reconciles fail: each add is followed by a run that begins at or after it and succeeds."""

    @virtual_time
    async def scenario() -> None:
        queue: WorkQueue[str] = WorkQueue()
        running: set[str] = set()
        added: dict[str, float] = {}
        succeeded: dict[str, float] = {}
        runs = 0

        async def work() -> None:
            nonlocal runs
            while True:
                key = await queue.get()
                assert key not in running
                running.add(key)
                began = now()
                runs += 1
                failed = runs in failing
                await asyncio.sleep(0.7)
                running.remove(key)
                if failed:
                    queue.retry(key)
                else:
                    queue.forget(key)
                    succeeded[key] = began
                queue.done(key)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for _ in range(workers)]
            for step, value in steps:
                if step == "pass":
                    await asyncio.sleep(float(value))
                elif step == "add":
                    queue.add(str(value))
                    added[str(value)] = now()
                else:
                    queue.add_after(str(value), 0.5)
                    added[str(value)] = now()
            await asyncio.sleep(10_000)  # 31 failures in a row take half an hour
            for task in tasks:
                task.cancel()
        assert len(queue) == queue.delayed == 0
        assert {key for key in added if succeeded.get(key, float("-inf")) < added[key]} == set()

    scenario()
