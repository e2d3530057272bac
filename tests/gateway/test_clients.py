"""Clients that go away while their requests wait: in number, by every kind of request, with a wait of ten minutes before them."""

from __future__ import annotations

import asyncio

import pytest

from fairlead.gateway.clients import closed_in, ports_of

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 0100007F:8838 08 00000000:00000001 00:00000000 00000000     0        0 1 1 0000000000000000 20 4 0 10 -1
   1: 0100007F:1F90 0200007F:8839 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0000000000000000 20 4 0 10 -1
   2: 0100007F:1F91 0300007F:8840 08 00000000:00000000 00:00000000 00000000     0        0 3 1 0000000000000000 20 4 0 10 -1
"""
TABLE_6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:8838 08 00000000:00000001 00:00000000
   1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000201A8C0:8839 08 00000000:00000001 00:00000000
"""


@pytest.mark.skipif("sys.byteorder == 'big'")
def test_those_are_told_that_have_closed_their_side_of_one_of_our_ports() -> None:
    assert list(closed_in(TABLE, {8080})) == ["127.0.0.1:34872"]
    assert list(closed_in(TABLE_6, {8080})) == ["::1:34872", "::ffff:192.168.1.2:34873", "192.168.1.2:34873"]


def test_the_ports_are_those_that_haproxy_binds() -> None:
    assert ports_of(["127.0.0.1:8080", "[::]:8081 v4v6", ":8082", "unix@/run/gateway.sock"]) == {8080, 8081, 8082}


POST = b"POST /v1 HTTP/1.1\r\nhost: iris-ns.example.com\r\n"
REQUESTS = {
    "get": b"GET / HTTP/1.1\r\nhost: iris-ns.example.com\r\n\r\n",
    "half a body": POST + b"content-length: 1000\r\n\r\n" + b"x" * 100,
    "body": POST + b"content-length: 1000\r\n\r\n" + b"x" * 1000,
    "large body": POST + b"content-length: 60000\r\n\r\n" + b"x" * 60000,
    "chunks": POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.haproxy
async def test_of_clients_that_go_away_nothing_is_left(make_haproxy, cluster, run_agent, make_pod, client, eventually):
    gateway = await make_haproxy()
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [], activation_timeout="600")
    agent = await run_agent(gateway)
    staying = asyncio.create_task(answered(client, gateway))
    leaving = [writer for request in REQUESTS.values() for writer in await ask(gateway.port, request, times=40)]

    async def held(count: int) -> bool:
        stats = (await agent.stats())[("ns", "iris-predictor")]
        return (stats.held, stats.in_flight) == (count, count)

    await eventually(lambda: held(201))
    for writer in leaving:
        writer.close()
    await eventually(lambda: held(1))
    pod = await make_pod()
    cluster.workload("iris", "iris-predictor", [pod.endpoint], activation_timeout="600")
    assert await staying == 200
    await eventually(lambda: held(0))
    assert pod.requests == 1


async def ask(port: int, request: bytes, *, times: int) -> list[asyncio.StreamWriter]:
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(times)]
    for _, writer in connections:
        writer.write(request)
    return [writer for _, writer in connections]


async def answered(client, gateway) -> int:
    async with client.get(gateway.url, headers={"host": "iris-ns.example.com"}) as response:
        return int(response.status)
