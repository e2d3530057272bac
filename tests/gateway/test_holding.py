"""Requests that no pod can take now: they wait, within bounds, and are answered, or refused with the reason."""

from __future__ import annotations

import asyncio
import os
import signal

import aiohttp
import pytest

from fairlead.gateway.routes import Endpoint

pytestmark = [pytest.mark.haproxy]


async def ask(client: aiohttp.ClientSession, gateway, body: bytes = b"", *, host: str = "one.test") -> tuple[int, str]:
    """The status, and who answered or why not."""
    async with client.post(gateway.url, headers={"host": host}, data=body) as response:
        answer = await response.json()
        return response.status, answer.get("pod") or answer["error"]


async def held(gateway, count: int) -> bool:
    return sum((await gateway.haproxy.held()).values()) == count


async def test_requests_wait_for_the_first_pod(make_haproxy, make_pod, make_service, client, eventually):
    gateway = await make_haproxy(hold_timeout=60.0)
    await gateway.serve(make_service("one", {"one-predictor": (100, [])}))
    asking = [asyncio.create_task(ask(client, gateway, b"x" * 300_000)) for _ in range(20)]
    await eventually(lambda: held(gateway, 20))
    pod = await make_pod("first")
    await gateway.serve(make_service("one", {"one-predictor": (100, [pod.endpoint])}))
    assert await asyncio.gather(*asking) == [(200, "first")] * 20
    assert await gateway.haproxy.held() == {}
    assert pod.received == 20 * 300_000


async def test_requests_that_waited_are_spread_by_what_a_pod_may_have(
    make_haproxy, make_pod, make_service, client, eventually
):
    """The first pod gets its three; the second one, which comes later, has its share of the others."""
    gateway = await make_haproxy(hold_timeout=60.0)
    await gateway.serve(make_service("one", {"w": (100, [])}))

    async def slow() -> int:
        async with client.get(f"{gateway.url}/sleep/0.05", headers={"host": "one.test"}) as response:
            return response.status

    asking = [asyncio.create_task(slow()) for _ in range(60)]
    await eventually(lambda: held(gateway, 60))
    pods = [await make_pod(str(number)) for number in range(2)]
    pods[0].open.clear()
    await gateway.serve(make_service("one", {"w": (100, [pods[0].endpoint])}, concurrency=3))
    await eventually(lambda: pods[0].requests >= 3)
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint for pod in pods])}, concurrency=3))
    pods[0].open.set()
    assert set(await asyncio.gather(*asking)) == {200}
    assert [pod.most_active for pod in pods] == [3, 3]
    assert pods[1].requests > 15


# --- The only pod is gone ---------------------------------------------------------------------------------------


async def test_the_request_that_finds_the_only_pod_dead_waits_for_the_next_one(
    make_haproxy, make_pod, make_service, client, eventually
):
    """Its connection was refused, so nothing of it has been seen: it can be sent to another pod, whenever that comes, wherever it is."""
    gateway = await make_haproxy(hold_timeout=60.0)
    pod = await make_pod("first")
    await gateway.serve(make_service("one", {"one-predictor": (100, [pod.endpoint])}))
    assert await ask(client, gateway) == (200, "first")
    await pod.close()
    asking = [asyncio.create_task(ask(client, gateway, b"x" * 100_000)) for _ in range(5)]
    await eventually(lambda: held(gateway, 5))
    await gateway.serve(make_service("one", {"one-predictor": (100, [])}))
    asking += [asyncio.create_task(ask(client, gateway)) for _ in range(5)]
    await eventually(lambda: held(gateway, 10))
    again = await make_pod("again")
    await gateway.serve(make_service("one", {"one-predictor": (100, [again.endpoint])}))
    assert await asyncio.gather(*asking) == [(200, "again")] * 10
    assert again.received == 500_000


async def test_a_pod_that_comes_back_at_its_address_is_found_without_the_agent(
    make_haproxy, make_pod, make_service, client, eventually
):
    gateway = await make_haproxy(hold_timeout=60.0)
    pod = await make_pod("first")
    await gateway.serve(make_service("one", {"one-predictor": (100, [pod.endpoint])}))
    await pod.close()
    asking = [asyncio.create_task(ask(client, gateway)) for _ in range(10)]
    await eventually(lambda: held(gateway, 10))
    await make_pod("again", port=pod.endpoint.port)
    assert await asyncio.gather(*asking) == [(200, "again")] * 10


async def test_a_request_that_waits_again_waits_no_longer_than_others(make_haproxy, make_service, client):
    gateway = await make_haproxy(hold_timeout=0.5)
    await gateway.serve(make_service("one", {"one-predictor": (100, [Endpoint("127.0.0.1", 9)])}))
    status, reason = await asyncio.wait_for(ask(client, gateway), 30)
    assert (status, "no ready pod of ns/one-predictor" in reason) == (503, True)


# --- Traffic moves on -------------------------------------------------------------------------------------------


async def test_a_request_that_waits_follows_the_traffic_elsewhere(
    make_haproxy, make_pod, make_service, client, eventually
):
    gateway = await make_haproxy(hold_timeout=60.0)
    pod = await make_pod("other")
    await gateway.serve(make_service("one", {"canary-predictor": (100, []), "one-predictor": (0, [pod.endpoint])}))
    asking = [asyncio.create_task(ask(client, gateway)) for _ in range(5)]
    await eventually(lambda: held(gateway, 5))
    await gateway.serve(make_service("one", {"canary-predictor": (0, []), "one-predictor": (100, [pod.endpoint])}))
    assert await asyncio.gather(*asking) == [(200, "other")] * 5
    assert await gateway.haproxy.held() == {}


async def test_requests_for_a_service_that_is_deleted_are_never_another_ones(
    make_haproxy, make_pod, make_service, client, eventually
):
    """The next service is lent the same backend; whoever waits there for the pods of the first one is to be refused, and wakes nobody."""
    gateway = await make_haproxy(hold_timeout=60.0)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    asking = [asyncio.create_task(ask(client, gateway)) for _ in range(3)]
    await eventually(lambda: held(gateway, 3))
    await gateway.serve()
    pod = await make_pod("another's")
    state = await gateway.serve(make_service("two", {"v": (100, [pod.endpoint])}))
    assert state.maps["upstreams"] == {"h1-0001": "ns/v/h1"}  # else there is nothing to see here
    for status, reason in await asyncio.wait_for(asyncio.gather(*asking), 30):
        assert (status, reason.partition(":")[0]) == (503, "ns/one/predictor has no revision that can be served yet")
    assert (pod.requests, await gateway.haproxy.held()) == (0, {})


@pytest.mark.parametrize("workload", ["w", "v"])
async def test_requests_for_a_service_that_is_deleted_and_made_again_are_answered_by_the_new_one(
    make_haproxy, make_pod, make_service, client, eventually, workload
):
    gateway = await make_haproxy(hold_timeout=60.0)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    asking = [asyncio.create_task(ask(client, gateway)) for _ in range(3)]
    await eventually(lambda: held(gateway, 3))
    await gateway.serve()
    await gateway.serve(make_service("one", {workload: (100, [])}))
    await eventually(lambda: held(gateway, 3))
    pod = await make_pod("new")
    await gateway.serve(make_service("one", {workload: (100, [pod.endpoint])}))
    assert await asyncio.gather(*asking) == [(200, "new")] * 3


# --- Bounds -----------------------------------------------------------------------------------------------------


async def test_a_wait_ends_and_says_why(make_haproxy, make_service, client):
    gateway = await make_haproxy(hold_timeout=0.3)
    trouble = 'one-predictor-00001 failed: "model.skops"; no such file (exit code 1) 100 %'
    await gateway.serve(make_service("one", {"one-predictor": (100, [])}, trouble=trouble))
    began = asyncio.get_running_loop().time()
    status, reason = await ask(client, gateway)
    assert 0.25 < asyncio.get_running_loop().time() - began < 20.0
    assert (status, reason) == (503, f"no ready pod of ns/one-predictor: {trouble}".replace('"', "'"))


async def test_once_a_wake_up_has_failed_nobody_waits(make_haproxy, make_service, client, eventually):
    gateway = await make_haproxy()
    await gateway.serve(make_service("one", {"w": (100, [])}, hold=60))
    asking = [asyncio.create_task(ask(client, gateway)) for _ in range(3)]
    await eventually(lambda: held(gateway, 3))
    await gateway.serve(make_service("one", {"w": (100, [])}, hold=0, trouble="it does not load"))
    refused = (503, "no ready pod of ns/w: it does not load")
    assert await asyncio.wait_for(asyncio.gather(*asking), 30) == [refused] * 3
    assert await asyncio.wait_for(ask(client, gateway), 30) == refused


async def test_a_wait_may_become_longer_while_it_lasts(make_haproxy, make_pod, make_service, client, eventually):
    """A node is on its way: the pod that is waited for takes longer than one usually does."""
    gateway, clock = await make_haproxy(), asyncio.get_running_loop().time
    for short in (0.4, 2.0, 10.0):
        await gateway.serve(make_service("one", {"w": (100, [])}, hold=short))
        began, asking = clock(), asyncio.create_task(ask(client, gateway))
        await eventually(lambda asking=asking: held(gateway, 1) if not asking.done() else True)
        await gateway.serve(make_service("one", {"w": (100, [])}, hold=60))
        if clock() - began < short:  # else this machine was too slow for a wait as short as that
            break
        await asking
    await asyncio.sleep(short + 0.2)
    assert await held(gateway, 1)
    pod = await make_pod("late")
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
    assert await asking == (200, "late")


LARGE = b"x" * 100_000


@pytest.mark.parametrize(
    ("bound", "body"), [({"hold_limit": 3}, b""), ({"hold_bytes": 3 * 120_000}, LARGE)], ids=["count", "bytes"]
)
async def test_no_more_requests_wait_than_there_may(
    make_haproxy, make_pod, make_service, client, eventually, bound, body
):
    gateway = await make_haproxy(hold_timeout=60.0, **bound)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    waiting = [asyncio.create_task(ask(client, gateway, body)) for _ in range(3)]
    await eventually(lambda: held(gateway, 3))
    async with client.post(gateway.url, headers={"host": "one.test"}, data=body) as refused:
        assert refused.status == 503
        assert "too many requests already wait for a ready pod" in (await refused.json())["error"]
        assert refused.headers["retry-after"] == "1"
    pod = await make_pod("one")
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
    assert await asyncio.gather(*waiting) == [(200, "one")] * 3


async def test_a_body_that_does_not_say_how_long_it_is_counts_as_a_large_one(make_haproxy, make_service, eventually):
    gateway = await make_haproxy(hold_timeout=60.0, hold_bytes=3 * 150_000)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    chunked = b"POST / HTTP/1.1\r\nhost: one.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    writers = []
    for _ in range(3):
        writers.append((await asyncio.open_connection("127.0.0.1", gateway.port))[1])
        writers[-1].write(chunked)
    await eventually(lambda: held(gateway, 3))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(chunked)
    assert (await reader.readline()).startswith(b"HTTP/1.1 503")
    for open_one in (*writers, writer):
        open_one.close()


async def test_requests_for_one_model_that_take_all_the_room_keep_no_other_from_being_woken(
    make_haproxy, make_pod, make_service, client, eventually
):
    gateway = await make_haproxy(hold_timeout=60.0, hold_bytes=3 * 120_000)
    stuck = make_service("one", {"w": (100, [])})
    await gateway.serve(stuck, make_service("two", {"v": (100, [])}))
    greedy = [asyncio.create_task(ask(client, gateway, LARGE)) for _ in range(3)]
    await eventually(lambda: held(gateway, 3))
    first = asyncio.create_task(ask(client, gateway, LARGE, host="two.test"))
    await eventually(lambda: held(gateway, 4))
    assert (await ask(client, gateway, LARGE, host="two.test"))[0] == 503
    pod = await make_pod("two")
    await gateway.serve(stuck, make_service("two", {"v": (100, [pod.endpoint])}))
    assert await first == (200, "two")
    for request in greedy:
        request.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)


async def test_a_client_that_goes_away_leaves_no_place_taken(make_haproxy, make_service, eventually):
    """HAProxy 2.8 does not always notice at once; when the wait would have ended it is forgotten in any case."""
    gateway = await make_haproxy(hold_timeout=5.0)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: one.test\r\n\r\n")
    await eventually(lambda: held(gateway, 1))
    writer.close()
    await eventually(lambda: held(gateway, 0))


async def test_requests_that_wait_are_known_also_after_the_machine_had_no_time_for_them(
    make_haproxy, make_pod, make_service, client, eventually
):
    """Who has not been seen waiting for a second counts as gone, until it is seen again."""
    gateway = await make_haproxy(hold_timeout=60.0)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    asking = [asyncio.create_task(ask(client, gateway)) for _ in range(3)]
    await eventually(lambda: held(gateway, 3))
    worker = await gateway.haproxy.process_id()
    os.kill(worker, signal.SIGSTOP)
    await asyncio.sleep(1.3)
    os.kill(worker, signal.SIGCONT)
    await gateway.haproxy.held()  # whose sweep may come first
    await eventually(lambda: held(gateway, 3))
    pod = await make_pod("one")
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
    assert await asyncio.gather(*asking) == [(200, "one")] * 3
    assert await gateway.haproxy.held() == {}


# --- The agent hears of it, and reloads -------------------------------------------------------------------------


async def test_the_agent_hears_at_once_when_requests_begin_to_wait_and_when_none_do(
    make_haproxy, make_pod, make_service, client
):
    gateway = await make_haproxy(hold_timeout=60.0)
    state = await gateway.serve(make_service("one", {"w": (100, [])}))
    [backend] = state.maps["upstreams"]
    async with gateway.haproxy.notices() as notice:
        asking = [asyncio.create_task(ask(client, gateway)) for _ in range(3)]
        await asyncio.wait_for(notice.wait(), 30)
        assert (await gateway.haproxy.held()).keys() == {backend}
        await asyncio.sleep(0.1)  # the second and the third are no news
        notice.clear()
        pod = await make_pod("one")
        await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
        await asyncio.wait_for(notice.wait(), 30)
        assert await asyncio.gather(*asking) == [(200, "one")] * 3
        assert await gateway.haproxy.held() == {}


async def test_requests_wait_whether_or_not_anyone_hears_of_it(
    make_haproxy, make_pod, make_service, client, eventually
):
    gateway = await make_haproxy(hold_timeout=60.0)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    asking = asyncio.create_task(ask(client, gateway))
    await eventually(lambda: held(gateway, 1))
    async with gateway.haproxy.notices() as notice:  # as of an agent that starts
        pod = await make_pod("one")
        await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
        await asyncio.wait_for(notice.wait(), 30)
    assert await asking == (200, "one")


async def test_requests_that_wait_go_to_the_worker_that_a_reload_brings(
    make_haproxy, make_pod, make_service, client, eventually
):
    """The worker that is replaced hears of no pods any more."""
    gateway = await make_haproxy(hold_timeout=60.0)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    asking = [asyncio.create_task(ask(client, gateway, b"x" * 200_000)) for _ in range(5)]
    await eventually(lambda: held(gateway, 5))
    before = await gateway.haproxy.process_id()
    await gateway.haproxy.reload()
    assert await gateway.haproxy.process_id() != before
    await eventually(lambda: held(gateway, 5))
    pod = await make_pod("one")
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
    assert await asyncio.gather(*asking) == [(200, "one")] * 5
    assert pod.received == 1_000_000
