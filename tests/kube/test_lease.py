from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kube.fakes import FakeApi, unavailable
from tests.kube.virtual_time import settle, virtual_time

from fairlead.kube.errors import Unavailable
from fairlead.kube.lease import Elector, Lease, LeaseLost, may_take
from fairlead.kube.objects import Key, Object, micro_timestamp
from fairlead.kube.resources import Resource

LEASE = Key("system", "op")


def now() -> float:
    return asyncio.get_running_loop().time()


def elector(api: FakeApi, identity: str, *, skew: float = 0.0) -> Elector:
    """A candidate whose wall clock is `skew` seconds off."""
    lease = Lease(name=LEASE.name, namespace=LEASE.namespace, identity=identity)
    return Elector(api, lease, now=lambda: datetime.fromtimestamp(now() + skew, UTC))


def spec(api: FakeApi) -> Object:
    return api.objects[LEASE]["spec"]  # type: ignore[no-any-return]


@virtual_time
async def test_the_first_candidate_makes_the_lease_and_leads_at_once() -> None:
    api = FakeApi()
    first = elector(api, "one")
    began = now()
    await first.acquire()
    assert (now(), first.leading) == (began, True)
    assert spec(api) == {
        "holderIdentity": "one",
        "leaseDurationSeconds": 15,
        "acquireTime": "1970-01-01T00:16:40.000000Z",
        "renewTime": "1970-01-01T00:16:40.000000Z",
        "leaseTransitions": 0,
    }


@virtual_time
async def test_a_second_candidate_waits_for_as_long_as_the_first_renews() -> None:
    api = FakeApi()
    first, second = elector(api, "one"), elector(api, "two")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(3600)
    assert first.leading
    assert not waiting.done()
    holding.cancel()
    waiting.cancel()


@virtual_time
async def test_a_leader_that_dies_is_succeeded_when_its_lease_has_run_out_and_not_before() -> None:
    api = FakeApi()
    first, second = elector(api, "one"), elector(api, "two")
    await first.acquire()
    began = now()
    await second.acquire()
    assert 15 <= now() - began <= 15 + 2.4
    assert spec(api)["leaseTransitions"] == 1


@virtual_time
async def test_a_lease_that_is_given_back_is_taken_at_the_next_try() -> None:
    api = FakeApi()
    first, second = elector(api, "one"), elector(api, "two")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(5)
    await first.release()
    began = now()
    await waiting
    assert now() - began <= 2.4


@virtual_time
async def test_a_leader_that_cannot_renew_steps_down_before_anybody_may_follow() -> None:
    api = FakeApi()
    first, second = elector(api, "one"), elector(api, "two")
    await first.acquire()
    began = now()
    api.fail = [unavailable() for _ in range(100)]
    with pytest.raises(LeaseLost, match="could not be renewed for 10 s"):
        await first.hold()
    assert not first.leading
    assert now() - began == pytest.approx(10)
    api.fail.clear()
    assert not may_take(spec(api), "two", now() - began)
    await second.acquire()


@virtual_time
async def test_renewals_that_fail_for_less_than_the_deadline_do_no_harm() -> None:
    api = FakeApi()
    first = elector(api, "one")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    for _ in range(20):
        api.fail = [unavailable() for _ in range(3)]
        await asyncio.sleep(20)
        assert not api.fail
    assert first.leading
    holding.cancel()


@virtual_time
async def test_a_server_that_hangs_is_not_waited_for_beyond_the_deadline() -> None:
    api = FakeApi()
    first = elector(api, "one")
    await first.acquire()
    api.delay = 1e6
    began = now()
    with pytest.raises(LeaseLost):
        await first.hold()
    assert now() - began == pytest.approx(10)


@virtual_time
async def test_a_renewal_whose_answer_was_lost_is_recognised_as_ones_own() -> None:
    api = FakeApi()
    first = elector(api, "one")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    await asyncio.sleep(1)

    real, calls = api.replace, 0

    async def replace(resource: Resource, value: Object) -> Object:
        nonlocal calls
        calls += 1
        written = await real(resource, value)
        if calls == 1:
            raise Unavailable(0, "NoAnswer", "connection reset")
        return written

    api.replace = replace  # type: ignore[method-assign]
    await asyncio.sleep(60)
    assert calls > 20
    assert first.leading
    holding.cancel()


@virtual_time
async def test_a_leader_whose_lease_was_taken_finds_out_at_the_next_renewal() -> None:
    api = FakeApi()
    first = elector(api, "one")
    await first.acquire()
    stolen = {**api.objects[LEASE], "spec": {**spec(api), "holderIdentity": "thief"}}
    api.put(stolen)
    began = now()
    with pytest.raises(LeaseLost, match="was taken by thief"):
        await first.hold()
    assert now() - began <= 2


@pytest.mark.parametrize("skew", [-86400.0, -20.0, 20.0, 86400.0])
def test_what_time_the_clocks_show_does_not_matter(skew: float) -> None:
    @virtual_time
    async def scenario() -> None:
        api = FakeApi()
        first, second = elector(api, "one"), elector(api, "two", skew=skew)
        await first.acquire()
        holding = asyncio.create_task(first.hold())
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(600)
        assert not waiting.done()
        holding.cancel()
        began = now()
        await waiting
        assert 12 <= now() - began <= 18

    scenario()


@virtual_time
async def test_a_clock_that_jumps_by_an_hour_back_and_forth_moves_no_lease() -> None:
    api = FakeApi()
    first, second = elector(api, "one"), elector(api, "two")
    jumps = cycle([0.0, 3600.0, -3600.0])
    for candidate in (first, second):
        candidate._now = lambda: datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=now() + next(jumps))
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(600)
    assert first.leading
    assert not waiting.done()
    holding.cancel()
    began = now()
    await waiting
    assert 12 <= now() - began <= 18


@virtual_time
async def test_of_many_candidates_exactly_one_leads_at_any_time() -> None:
    api = FakeApi()
    api.delay = 0.01
    candidates = [elector(api, str(number)) for number in range(5)]
    leaders: list[str] = []

    async def run(candidate: Elector) -> None:
        await candidate.acquire()
        assert sum(other.leading for other in candidates) == 1
        leaders.append(candidate.lease.identity)
        holding = asyncio.create_task(candidate.hold())
        await asyncio.sleep(30)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)

    async with asyncio.TaskGroup() as group:
        for candidate in candidates:
            group.create_task(run(candidate))
    assert sorted(leaders) == ["0", "1", "2", "3", "4"]
    assert spec(api)["leaseTransitions"] == 4


@given(
    outages=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20), st.sampled_from(["fail", "hang"])), max_size=6),
    delay=st.sampled_from([0.0, 0.5, 3.0]),
)
@settings(max_examples=80, deadline=None)
def test_two_never_lead_at_once_whatever_the_server_does(outages: list[tuple[float, float, str]], delay: float) -> None:
    @virtual_time
    async def scenario() -> None:
        api = FakeApi()
        api.delay = delay
        candidates = [elector(api, "one"), elector(api, "two")]

        async def run(candidate: Elector) -> None:
            while True:
                await candidate.acquire()
                assert sum(other.leading for other in candidates) == 1
                try:
                    await candidate.hold()
                except LeaseLost:
                    await settle()

        tasks = [asyncio.create_task(run(candidate)) for candidate in candidates]
        for quiet, outage, kind in outages:
            await asyncio.sleep(quiet)
            if kind == "fail":
                api.fail = [unavailable() for _ in range(1000)]
            else:
                api.delay = 1e6
            await asyncio.sleep(outage)
            api.fail, api.delay = [], delay
        await asyncio.sleep(60)
        assert sum(candidate.leading for candidate in candidates) == 1
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()

    scenario()


def test_a_lease_that_could_be_lost_between_two_renewals_is_refused() -> None:
    with pytest.raises(ValueError, match="must exceed renew_deadline"):
        Lease("op", "system", duration=10, renew_deadline=10)


def test_an_identity_is_new_for_each_process() -> None:
    assert Lease("op", "system").identity != Lease("op", "system").identity


def test_renew_time_is_written_with_microseconds_as_the_api_wants_it() -> None:
    moment = datetime(2026, 11, 21, 11, 18, tzinfo=UTC) + timedelta(microseconds=5)
    assert micro_timestamp(moment) == "2026-11-21T11:18:00.000005Z"
