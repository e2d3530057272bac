"""Requests that wait at zero: who hears of them, how long they wait, and how their pod is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from fairlead.gateway.demand import Demand, Prober, by_workload, places, to_check, with_answering
from fairlead.gateway.routes import Check, Endpoint, RouteTable, Transport, Upstream
from fairlead.gateway.server import served

POD = Endpoint("127.0.0.1", 9)


def upstream(*, ready=(), unready=(), hold: float | None = None) -> Upstream:
    return Upstream("ns", "w", Transport.HTTP, 60.0, 0, frozenset(ready), frozenset(unready), hold, Check(9, "/r"))


def table(*upstreams: Upstream) -> RouteTable:
    return RouteTable(upstreams={u.key: u for u in upstreams})


async def test_a_question_is_answered_when_requests_begin_to_wait_for_another_workload():
    demand = Demand()
    asked = asyncio.create_task(demand.after(demand.version, timeout=60))
    await asyncio.sleep(0)
    assert not asked.done()
    demand.update({("ns", "w"): 1})
    await asked
    again = asyncio.create_task(demand.after(demand.version, timeout=60))
    demand.update({("ns", "w"): 7})
    await asyncio.sleep(0)
    assert not again.done()
    demand.update({("ns", "w"): 7, ("ns", "v"): 1})
    await again


async def test_a_question_about_an_older_version_is_answered_at_once():
    demand = Demand()
    demand.update({("ns", "w"): 1})
    await asyncio.wait_for(demand.after(-1, timeout=60), 30)


def test_held_requests_are_summed_over_the_ports_of_a_workload():
    upstreams = {"h1-0001": "ns/w/h1", "h2-0001": "ns/w/h2"}
    assert by_workload({"h1-0001": 2, "h2-0001": 1, "h1-0009": 4}, upstreams) == {("ns", "w"): 3}


def test_only_pods_that_are_waited_for_are_asked():
    waiting = table(upstream(unready=[POD]))
    assert to_check(waiting, {("ns", "w")})
    assert not to_check(waiting, set())


def test_a_pod_that_answers_is_ready_before_its_slice_says_so():
    early = with_answering(table(upstream(unready=[POD])), {(("ns", "w"), POD.address)})
    assert early.upstreams["ns/w/h1"].ready == {POD}
    assert not early.upstreams["ns/w/h1"].unready


@pytest.fixture
async def prober() -> AsyncIterator[tuple[Prober, asyncio.Event]]:
    """A running one, and the event that it sets."""
    found = asyncio.Event()
    prober = Prober(found.set)
    task = asyncio.create_task(prober.run())
    yield prober, found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def pods_of(workload: str, *endpoints: Endpoint, path: str | None) -> Upstream:
    check = Check(endpoints[0].port, path)
    return Upstream("ns", workload, Transport.HTTP, 60.0, 0, frozenset(), frozenset(endpoints), None, check)


async def test_a_pod_that_is_slow_to_say_whether_it_is_ready_delays_no_other(prober, make_pod):
    probing, found = prober
    slow, quick = await make_pod("slow"), await make_pod("quick")
    upstreams = [pods_of("slow", slow.endpoint, path="/sleep/60"), pods_of("quick", quick.endpoint, path="/")]
    unready = [place for upstream in upstreams for place in places(upstream, upstream.unready)]
    probing.ask(upstreams[:1], unready)
    while not slow.active:
        await asyncio.sleep(0)
    probing.ask(upstreams, unready)
    async with asyncio.timeout(60):
        await found.wait()
    assert probing.answering == {(("ns", "quick"), quick.endpoint.address)}
    assert slow.requests == 1


async def test_a_pod_that_answers_nonsense_is_not_ready_and_ends_nothing(prober, make_pod):
    probing, found = prober
    answered = asyncio.Event()

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        answered.set()
        writer.write(b"HTTP/1.1 301 Moved\r\ncontent-length: 0\r\nlocation: http://%s.com/\r\n\r\n" % (b"a" * 300))
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        odd = pods_of("odd", Endpoint(*server.sockets[0].getsockname()), path="/")
        probing.ask([odd], list(places(odd, odd.unready)))
        await answered.wait()
        pod = await make_pod()
        sound = pods_of("sound", pod.endpoint, path="/")
        probing.ask([odd, sound], [*places(odd, odd.unready), *places(sound, sound.unready)])
        await found.wait()
    assert probing.answering == {(("ns", "sound"), pod.endpoint.address)}


async def test_what_a_pod_has_said_is_forgotten_when_requests_wait_for_it_again(prober, make_pod):
    probing, found = prober
    pod = await make_pod()
    upstream = pods_of("w", pod.endpoint, path="/")
    unready = list(places(upstream, upstream.unready))
    probing.ask([upstream], unready)
    async with asyncio.timeout(60):
        await found.wait()
    probing.ask([upstream], unready)
    assert probing.answering
    probing.forget([("ns", "w")])
    assert not probing.answering
    found.clear()
    probing.ask([upstream], unready)
    async with asyncio.timeout(60):
        await found.wait()
    assert probing.answering


@pytest.mark.haproxy
async def test_a_service_at_zero_holds_longer_than_others(make_haproxy, cluster, run_agent, client):
    gateway = await make_haproxy(hold_timeout=0.1)
    cluster.serve("patient", {"patient": 100})
    cluster.workload("patient", "patient", [], activation_timeout="3")
    cluster.serve("other", {"other": 100})
    cluster.workload("other", "other", [])
    await run_agent(gateway)
    loop = asyncio.get_running_loop()

    async def seconds(name: str) -> float:
        began = loop.time()
        async with client.get(gateway.url, headers={"host": f"{name}-ns.example.com"}) as answer:
            assert answer.status == 503
        return loop.time() - began

    assert await seconds("other") < 2.9
    assert await seconds("patient") >= 2.95


@pytest.mark.haproxy
async def test_the_gateway_finds_a_ready_pod_by_itself_and_tells_of_the_demand(
    make_haproxy, cluster, run_agent, make_pod, client
):
    gateway = await make_haproxy(hold_timeout=0.1)
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [], activation_timeout="20")
    agent = await run_agent(gateway)
    async with served(agent, "127.0.0.1", 0) as port:
        asked = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/v1/demand?after=0"))
        request = asyncio.create_task(client.get(gateway.url, headers={"host": "iris-ns.example.com"}))
        told = await (await asked).json()
        assert told == {"version": 1, "workloads": [{"namespace": "ns", "name": "iris-predictor", "held": 1}]}
        pod = await make_pod("found")
        where = {"activation_timeout": "20", "readiness": f"{pod.endpoint.port}/v2/health/ready"}
        cluster.workload("iris", "iris-predictor", [], unready=[pod.endpoint], **where)
        async with await request as answer:
            assert answer.status == 200
            assert json.loads(await answer.text())["pod"] == "found"


@pytest.mark.haproxy
async def test_a_pod_that_nobody_waits_for_is_not_asked(make_haproxy, cluster, run_agent, make_pod):
    gateway = await make_haproxy()
    pod = await make_pod()
    cluster.serve("iris", {"iris-predictor": 100})
    where = {"activation_timeout": "20", "readiness": f"{pod.endpoint.port}/v2/health/ready"}
    cluster.workload("iris", "iris-predictor", [], unready=[pod.endpoint], **where)
    await run_agent(gateway)
    await asyncio.sleep(0.3)
    assert pod.requests == 0
