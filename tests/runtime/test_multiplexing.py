"""Which models are loaded when there are more of them than places."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.runtime.multiplexing import Multiplexer


class Shelf:
    """Models that take a few turns of the loop to load and unload; `loading` counts as loaded."""

    def __init__(self, bound: int, broken: str = "") -> None:
        self.bound = bound
        self.broken = broken
        self.present: set[str] = set()
        self.ready: set[str] = set()
        self.loads: list[str] = []
        self.multiplexer = Multiplexer(bound, self.load, self.unload)

    async def load(self, name: str) -> None:
        self.present.add(name)
        assert len(self.present) <= self.bound
        self.loads.append(name)
        for _ in range(3):
            await asyncio.sleep(0)
        if name == self.broken:
            self.present.discard(name)
            raise ValueError(name)
        self.ready.add(name)

    async def unload(self, name: str) -> None:
        self.ready.discard(name)
        for _ in range(2):
            await asyncio.sleep(0)
        self.present.discard(name)

    async def ask(self, name: str) -> None:
        await self.multiplexer.want(name)
        assert name in self.ready


async def test_the_longest_unused_model_leaves_for_one_that_is_asked_for():
    shelf = Shelf(2)
    for name in "abac":
        await shelf.ask(name)
    assert shelf.ready == {"a", "c"}
    assert shelf.loads == ["a", "b", "c"]


async def test_requests_for_the_same_model_share_one_load():
    shelf = Shelf(1)
    await asyncio.gather(*(shelf.ask("a") for _ in range(5)))
    assert shelf.loads == ["a"]


async def test_a_model_that_cannot_load_takes_no_place():
    shelf = Shelf(1, broken="x")
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            await shelf.ask("x")
    await shelf.ask("a")
    assert shelf.ready == {"a"}


async def test_a_request_that_is_cancelled_takes_no_one_elses_load_with_it():
    shelf = Shelf(1)
    first, second = asyncio.create_task(shelf.ask("a")), asyncio.create_task(shelf.ask("a"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert shelf.loads == ["a"]


async def test_an_unloaded_model_frees_its_place_at_once():
    shelf = Shelf(1)
    await shelf.ask("a")
    await shelf.multiplexer.unload("a")
    assert shelf.present == set()
    await shelf.ask("b")
    assert shelf.loads == ["a", "b"]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.lists(st.lists(st.sampled_from("abcdex"), min_size=1, max_size=6), max_size=8))
def test_everyone_who_asks_is_served_and_the_bound_always_holds(bound, waves):
    async def run() -> None:
        shelf = Shelf(bound, broken="x")
        for wave in waves:
            outcomes = await asyncio.gather(*(shelf.ask(name) for name in wave), return_exceptions=True)
            failed = [name for name, outcome in zip(wave, outcomes, strict=True) if outcome is not None]
            assert set(failed) == set(wave) & {"x"}, outcomes

    asyncio.run(asyncio.wait_for(run(), 60))
