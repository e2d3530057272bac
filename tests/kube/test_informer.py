from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kube.fakes import FakeApi, obj, unavailable
from tests.kube.virtual_time import settle, virtual_time

from fairlead.kube.errors import ApiError, Forbidden, Unavailable
from fairlead.kube.informer import Informer
from fairlead.kube.objects import Key, Object, key_of
from fairlead.kube.resources import CONFIG_MAPS
from fairlead.kube.watch import SILENCE, Event


class Follower:
    """Keeps by `on_change` alone what the store should hold, and notes each change in words."""

    def __init__(self, informer: Informer) -> None:
        self.objects: dict[Key, Object] = {}
        self.told: list[str] = []
        informer.on_change(self.changed)

    def changed(self, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        assert self.objects.get(key) == old, "the old state is not the one told before"
        if new is None:
            del self.objects[key]
            self.told.append(f"-{key.name}")
        else:
            self.told.append(f"{'+' if old is None else '~'}{key.name}")
            self.objects[key] = new


@asynccontextmanager
async def running(informer: Informer) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(informer.run())
    try:
        await informer.synced.wait()
        await settle()
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def specs(informer: Informer) -> dict[str, Any]:
    return {item["metadata"]["name"]: item["spec"] for item in informer.store.list()}


@virtual_time
async def test_it_lists_once_and_then_follows_the_watch() -> None:
    api = FakeApi()
    api.put(obj("a", x=1))
    informer = Informer(api, CONFIG_MAPS)
    follower = Follower(informer)
    async with running(informer):
        api.put(obj("b", x=1))
        api.put(obj("a", x=2))
        api.remove(Key("ns", "b"))
        await settle()
    assert follower.told == ["+a", "+b", "~a", "-b"]
    assert specs(informer) == {"a": {"x": 2}}
    assert (api.lists, api.watches) == (1, 1)


@virtual_time
async def test_a_handler_that_comes_late_is_told_of_all_that_is_known() -> None:
    api = FakeApi()
    api.put(obj("a"))
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        assert Follower(informer).told == ["+a"]


@virtual_time
async def test_a_handler_that_raises_does_not_keep_the_change_from_others(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    informer = Informer(api, CONFIG_MAPS)
    informer.on_change(lambda old, new: 1 / 0)  # type: ignore[arg-type, return-value]
    follower = Follower(informer)
    async with running(informer):
        api.put(obj("a"))
        await settle()
    assert follower.told == ["+a"]
    assert "a handler failed on ns/a" in caplog.text


@virtual_time
async def test_a_watch_that_ends_is_resumed_without_a_list_and_nothing_is_missed() -> None:
    api = FakeApi()
    informer = Informer(api, CONFIG_MAPS)
    follower = Follower(informer)
    async with running(informer):
        for error in (None, Unavailable(0, "NoAnswer", "connection reset"), unavailable()):
            await asyncio.sleep(60)
            api.end_watches(error)
            api.put(obj("a", after=str(error)))
            await asyncio.sleep(1)
            assert specs(informer)["a"] == {"after": str(error)}
    assert follower.told == ["+a", "~a", "~a"]
    assert (api.lists, api.watches) == (1, 4)


@virtual_time
async def test_a_watch_that_stalls_without_closing_is_given_up_and_resumed() -> None:
    api = FakeApi()
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        api.lose_watches()
        api.put(obj("a"))
        await asyncio.sleep(SILENCE - 1)
        assert specs(informer) == {}
        await asyncio.sleep(2)
        assert specs(informer) == {"a": {}}
    assert api.lists == 1


@virtual_time
async def test_bookmarks_keep_an_idle_watch_open() -> None:
    api = FakeApi()
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        for _ in range(10):
            await asyncio.sleep(60)
            api.bookmark()
        await settle()
    assert (api.lists, api.watches) == (1, 1)


@virtual_time
async def test_it_resumes_from_the_last_bookmark_so_that_a_compaction_of_older_history_costs_no_list() -> None:
    api = FakeApi()
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        api.version += 100  # other kinds' changes
        api.bookmark()
        api.compact()
        await settle()
        api.end_watches()
        await asyncio.sleep(1)
        api.put(obj("a"))
        await settle()
    assert specs(informer) == {"a": {}}
    assert api.lists == 1


@virtual_time
async def test_410_gone_lists_again_and_tells_of_what_vanished_meanwhile() -> None:
    api = FakeApi()
    api.put(obj("stays"))
    api.put(obj("changes", x=1))
    api.put(obj("goes"))
    informer = Informer(api, CONFIG_MAPS)
    follower = Follower(informer)
    async with running(informer):
        follower.told.clear()
        await asyncio.sleep(60)
        api.lose_watches()
        api.remove(Key("ns", "goes"))
        api.put(obj("changes", x=2))
        api.put(obj("comes"))
        api.compact()
        await asyncio.sleep(SILENCE)
    assert sorted(follower.told) == ["+comes", "-goes", "~changes"]
    assert follower.objects.keys() == api.objects.keys()
    assert api.lists == 2


@virtual_time
async def test_a_server_that_starts_again_from_an_older_state_is_believed() -> None:
    """Its versions are lower than those known; a watch from ours is refused, and the list is the truth all the same."""
    api = FakeApi()
    for _ in range(10):
        api.put(obj("a", age="new"))
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        api.objects.clear()
        api.history.clear()
        api.version = 3
        api.put(obj("a", age="old"))
        api.end_watches(Unavailable(0, "NoAnswer", "connection refused"))
        await asyncio.sleep(2)
        assert specs(informer) == {"a": {"age": "old"}}
        api.put(obj("a", age="older and changed"))
        await settle()
        assert specs(informer) == {"a": {"age": "older and changed"}}


@virtual_time
async def test_duplicates_and_stragglers_change_nothing() -> None:
    api = FakeApi()
    informer = Informer(api, CONFIG_MAPS)
    follower = Follower(informer)
    async with running(informer):
        first = api.put(obj("a", x=1))
        api.put(obj("a", x=2))
        api.put(obj("b"))
        api.remove(Key("ns", "b"))
        await settle()
        told = list(follower.told)
        for _, event in list(api.history):
            api.send(event)  # all of them again, among them b's creation after its deletion
        api.send(Event("DELETED", first))  # the deletion of a predecessor of what is held
        await settle()
    assert follower.told == told == ["+a", "~a", "+b", "-b"]
    assert specs(informer) == {"a": {"x": 2}}


@virtual_time
async def test_a_straggler_from_before_the_list_does_not_raise_the_dead() -> None:
    api = FakeApi()
    dead = api.put(obj("dead"))
    api.remove(Key("ns", "dead"))
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        api.send(Event("MODIFIED", dead))
        await settle()
    assert specs(informer) == {}


@virtual_time
async def test_events_of_different_objects_may_come_out_of_order() -> None:
    api = FakeApi()
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        late, early = obj("late"), obj("early")
        late["metadata"]["resourceVersion"], early["metadata"]["resourceVersion"] = "11", "12"
        api.version = 12
        api.send(Event("ADDED", early))
        api.send(Event("ADDED", late))
        await settle()
    assert specs(informer).keys() == {"late", "early"}


@virtual_time
async def test_failures_are_waited_out_ever_longer_and_the_first_success_forgets_them() -> None:
    api = FakeApi()
    api.fail = [unavailable() for _ in range(20)]
    times: list[float] = []
    api.before = lambda _: times.append(asyncio.get_running_loop().time())
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        waits = [later - earlier for earlier, later in pairwise(times[:-1])]
        assert waits[0] < 0.3
        assert all(24 <= wait <= 30 for wait in waits[-5:])
        await asyncio.sleep(60)
        api.end_watches()
        began = asyncio.get_running_loop().time()
        await settle()
        assert times[-1] == began


@virtual_time
async def test_a_server_that_closes_every_watch_at_once_is_not_asked_in_a_tight_loop() -> None:
    api = FakeApi()
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        for _ in range(600):
            api.end_watches()
            await asyncio.sleep(0.1)
    assert api.watches < 15


@virtual_time
async def test_a_kind_that_may_not_be_read_is_asked_for_again_until_it_may() -> None:
    api = FakeApi()
    api.fail = [Forbidden(403, "Forbidden", "no") for _ in range(3)]
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        assert api.lists == 4


@virtual_time
async def test_nothing_is_listed_again_in_a_day_without_changes() -> None:
    api = FakeApi()
    api.put(obj("a"))
    informer = Informer(api, CONFIG_MAPS)
    async with running(informer):
        for minute in range(24 * 60):
            await asyncio.sleep(60)
            api.bookmark()
            if minute % 5 == 4:
                api.end_watches()
    assert api.lists == 1
    assert api.watches == pytest.approx(24 * 12, abs=2)


@virtual_time
async def test_managed_fields_are_dropped_and_the_transform_decides_what_else_is_kept() -> None:
    api = FakeApi()
    bulky = obj("a", big="x" * 1000, small=1)
    bulky["metadata"]["managedFields"] = [{"manager": "someone"}]
    api.put(bulky)

    def slim(item: Object) -> Object:
        return {"metadata": item["metadata"], "spec": {"small": item["spec"]["small"]}}

    informer = Informer(api, CONFIG_MAPS, transform=slim)
    async with running(informer):
        held = informer.store.get("ns", "a")
    assert held is not None
    assert held["spec"] == {"small": 1}
    assert "managedFields" not in held["metadata"]


@virtual_time
async def test_an_index_follows_objects_as_they_move_between_its_keys() -> None:
    api = FakeApi()
    api.put(obj("a", secrets=["s1", "s2"]))
    api.put(obj("b", secrets=["s2"]))
    informer = Informer(api, CONFIG_MAPS, indexers={"secret": lambda item: item["spec"]["secrets"]})
    async with running(informer):

        def names(secret: str) -> list[str]:
            return [item["metadata"]["name"] for item in informer.store.by_index("secret", secret)]

        assert (names("s1"), names("s2"), names("s3")) == (["a"], ["a", "b"], [])
        api.put(obj("a", secrets=["s3"]))
        api.remove(Key("ns", "b"))
        await settle()
        assert (names("s1"), names("s2"), names("s3")) == ([], [], ["a"])


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abc")),
        st.tuples(st.just("remove"), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["bookmark", "end", "lose", "compact", "error", "pause", "settle"]), st.none()),
        st.tuples(st.just("replay"), st.integers(0, 20)),
    ),
    max_size=40,
)


@given(actions=ACTIONS, listing_takes=st.sampled_from([0.0, 0.3]))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_the_store_and_its_followers_end_in_the_servers_state(
    actions: list[tuple[str, Any]], listing_takes: float
) -> None:
    @virtual_time
    async def scenario() -> None:
        api = FakeApi()
        api.delay = listing_takes
        informer = Informer(api, CONFIG_MAPS, indexers={"x": lambda item: [str(item["spec"]["x"])]})
        follower = Follower(informer)
        async with running(informer):
            for number, (action, value) in enumerate(actions):
                if action == "put":
                    api.put(obj(value, x=number))
                elif action == "remove" and Key("ns", value) in api.objects:
                    api.remove(Key("ns", value))
                elif action == "replay" and api.history:
                    api.send(copy.deepcopy(api.history[value % len(api.history)][1]))
                elif action == "error":
                    api.end_watches(ApiError(500, "InternalError", "etcd is unwell"))
                elif action == "pause":
                    await asyncio.sleep(1)
                elif action == "settle":
                    await settle()
                elif action in ("bookmark", "end", "lose", "compact"):
                    {
                        "bookmark": api.bookmark,
                        "end": api.end_watches,
                        "lose": api.lose_watches,
                        "compact": api.compact,
                    }[action]()
            await asyncio.sleep(2 * SILENCE)
            expected = {key: (item["metadata"]["resourceVersion"], item["spec"]) for key, item in api.objects.items()}
            for objects in (informer.store.list(), follower.objects.values()):
                found = {key_of(item): (item["metadata"]["resourceVersion"], item["spec"]) for item in objects}
                assert found == expected
            for key, item in api.objects.items():
                assert [key_of(found) for found in informer.store.by_index("x", str(item["spec"]["x"]))] == [key]

    scenario()
