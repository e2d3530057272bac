"""gRPC and HTTP/2 on the same port as HTTP/1.1."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from fairlead.gateway.routes import Endpoint, Transport

pytestmark = [pytest.mark.haproxy]

METHOD = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def make_grpc_pod(gate) -> AsyncIterator:
    """A server that answers its name and what it was sent; b"wait" makes it wait for the gate, b"fail" makes it refuse."""
    servers = []

    async def make(name: str) -> Endpoint:
        async def infer(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            if request == b"wait":
                await gate.wait()
            if request == b"fail":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such tensor")
            return name.encode() + b" " + request[:10]

        async def stream(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            async for request in requests:
                yield name.encode() + b" " + request

        server = grpc.aio.server()
        handlers = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(stream),
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return Endpoint("127.0.0.1", port)

    yield make
    for server in servers:
        await server.stop(0.1)


@pytest.fixture
async def call(gateway) -> AsyncIterator:
    channels = {}

    async def infer(host: str, request: bytes = b"x", *, url: str = f"127.0.0.1:{gateway.port}") -> bytes:
        if host not in channels:
            channels[host] = grpc.aio.insecure_channel(url, options=[("grpc.default_authority", host)])
        return await channels[host].unary_unary(METHOD)(request, timeout=60)

    infer.channels = channels
    yield infer
    for channel in channels.values():
        await channel.close()


async def test_authority_leads_to_the_service(gateway, make_grpc_pod, make_service, call):
    one, two = await make_grpc_pod("one"), await make_grpc_pod("two")
    await gateway.serve(
        make_service("one", {"one-predictor": (100, [one])}, transport=Transport.GRPC),
        make_service("two", {"two-predictor": (100, [two])}, transport=Transport.GRPC),
    )
    assert await call("one.test") == b"one x"
    assert await call("two.test:80") == b"two x"


async def test_calls_of_one_connection_are_split_by_weight(gateway, make_grpc_pod, make_service, call):
    one, two = await make_grpc_pod("one"), await make_grpc_pod("two")
    await gateway.serve(make_service("m", {"one": (70, [one]), "two": (30, [two])}, transport=Transport.GRPC))
    counts = Counter(await asyncio.gather(*(call("m.test") for _ in range(400))))
    assert abs(counts[b"two x"] - 120) < 5 * 9.2  # 5 standard deviations
    assert sum(counts.values()) == 400


async def test_streams_go_both_ways(gateway, make_grpc_pod, make_service, call):
    one = await make_grpc_pod("one")
    await gateway.serve(make_service("m", {"one": (100, [one])}, transport=Transport.GRPC))
    await call("m.test")
    stream = call.channels["m.test"].stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
    for number in range(5):
        await stream.write(str(number).encode())
        assert await stream.read() == f"one {number}".encode()
    await stream.done_writing()
    assert await stream.read() == grpc.aio.EOF


async def test_one_workload_takes_http_and_grpc_at_their_own_ports(
    gateway, make_pod, make_grpc_pod, make_service, call, client
):
    http, rpc = await make_pod("http"), await make_grpc_pod("rpc")
    service = make_service("m", {"w": (100, [http.endpoint])})
    service.upstreams.update(make_service("m", {"w": (100, [rpc])}, transport=Transport.GRPC).upstreams)
    await gateway.serve(service)
    assert await call("m.test") == b"rpc x"
    async with client.get(gateway.url, headers={"host": "m.test"}) as response:
        assert (await response.json())["pod"] == "http"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_http2_without_tls_reaches_an_http_service(gateway, make_pod, make_service):
    pod = await make_pod("one")
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--http2-prior-knowledge", "-H", "host: one.test", "-w", " %{http_version}", gateway.url,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await curl.communicate()
    assert output.endswith(b" 2")
    assert b'"pod": "one"' in output


async def test_in_flight_counts_calls_not_connections(gateway, make_grpc_pod, make_service, call, gate, eventually):
    one = await make_grpc_pod("one")
    state = await gateway.serve(make_service("m", {"one": (100, [one])}, transport=Transport.GRPC))
    await call("m.test")
    slow = [asyncio.create_task(call("m.test", b"wait")) for _ in range(7)]
    [backend] = state.maps["upstreams"]

    async def all_are_counted() -> bool:
        return (await gateway.haproxy.stats())[backend].current == 7

    await eventually(all_are_counted)
    gate.set()
    await asyncio.gather(*slow)
    assert (await gateway.haproxy.stats())[backend].requests == 8


# --- Errors, as gRPC has them ---------------------------------------------------------------------------------


async def refused(call, host: str, request: bytes = b"x", **more: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(host, request, **more)
    return caught.value.code(), caught.value.details()


async def test_the_models_own_errors_pass(gateway, make_grpc_pod, make_service, call):
    one = await make_grpc_pod("one")
    await gateway.serve(make_service("m", {"one": (100, [one])}, transport=Transport.GRPC))
    assert await refused(call, "m.test", b"fail") == (grpc.StatusCode.INVALID_ARGUMENT, "no such tensor")


async def test_an_unknown_authority_is_not_found(gateway, call):
    code, details = await refused(call, "nobody.test")
    assert code is grpc.StatusCode.NOT_FOUND
    assert f"no InferenceService at host nobody.test and path {METHOD}" in details


async def test_no_ready_pod_is_unavailable(gateway, make_service, call):
    await gateway.serve(make_service("m", {"m-predictor": (100, [])}, transport=Transport.GRPC))
    code, details = await refused(call, "m.test")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "no ready pod of ns/m-predictor" in details


async def test_refused_connections_are_unavailable(gateway, make_service, call):
    await gateway.serve(make_service("m", {"m-predictor": (100, [Endpoint("127.0.0.1", 9)])}, transport=Transport.GRPC))
    code, details = await refused(call, "m.test")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "pod of ns/m-predictor" in details


async def test_a_late_answer_is_deadline_exceeded(gateway, make_grpc_pod, make_service, call):
    one = await make_grpc_pod("one")
    await gateway.serve(make_service("m", {"m-predictor": (100, [one])}, transport=Transport.GRPC, timeout=0.2))
    code, details = await refused(call, "m.test", b"wait")
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert details == "no answer from ns/m-predictor within its timeout"


async def test_calls_wait_for_the_first_pod(make_haproxy, make_grpc_pod, make_service, call):
    """They say nothing of their length, and count as what one stream of HTTP/2 may take."""
    waiting = await make_haproxy(hold_timeout=60.0, hold_bytes=20 * 40_000)
    await waiting.serve(make_service("m", {"m-predictor": (100, [])}, transport=Transport.GRPC))
    url = f"127.0.0.1:{waiting.port}"
    calls = [asyncio.create_task(call("m.test", url=url)) for _ in range(20)]
    async with asyncio.timeout(60):
        while sum((await waiting.haproxy.held()).values()) < 20:
            await asyncio.sleep(0.01)
    one = await make_grpc_pod("one")
    await waiting.serve(make_service("m", {"m-predictor": (100, [one])}, transport=Transport.GRPC))
    assert await asyncio.gather(*calls) == [b"one x"] * 20


async def test_a_call_that_is_cancelled_leaves_no_place_taken(make_haproxy, make_service, call):
    waiting = await make_haproxy(hold_timeout=60.0)
    await waiting.serve(make_service("m", {"m-predictor": (100, [])}, transport=Transport.GRPC))
    calls = [asyncio.create_task(call("m.test", url=f"127.0.0.1:{waiting.port}")) for _ in range(5)]

    async def until_held(count: int) -> None:
        async with asyncio.timeout(60):
            while sum((await waiting.haproxy.held()).values()) != count:
                await asyncio.sleep(0.01)

    await until_held(5)
    for one in calls:
        one.cancel()
    await until_held(0)


async def test_a_call_that_finds_the_only_pod_dead_waits_for_the_next_one(
    make_haproxy, make_grpc_pod, make_service, call
):
    gateway = await make_haproxy(hold_timeout=60.0)
    gone = make_service("m", {"m-predictor": (100, [Endpoint("127.0.0.1", 9)])}, transport=Transport.GRPC)
    await gateway.serve(gone)
    asking = [asyncio.create_task(call("m.test", url=f"127.0.0.1:{gateway.port}")) for _ in range(3)]
    async with asyncio.timeout(60):
        while sum((await gateway.haproxy.held()).values()) < 3:
            await asyncio.sleep(0.01)
    one = await make_grpc_pod("one")
    await gateway.serve(make_service("m", {"m-predictor": (100, [one])}, transport=Transport.GRPC))
    assert await asyncio.gather(*asking) == [b"one x"] * 3


async def test_no_more_calls_wait_than_there_may(make_haproxy, make_service, call):
    gateway = await make_haproxy(hold_timeout=60.0, hold_limit=2)
    await gateway.serve(make_service("m", {"m-predictor": (100, [])}, transport=Transport.GRPC))
    url = f"127.0.0.1:{gateway.port}"
    waiting = [asyncio.create_task(call("m.test", url=url)) for _ in range(2)]
    async with asyncio.timeout(60):
        while sum((await gateway.haproxy.held()).values()) < 2:
            await asyncio.sleep(0.01)
    code, details = await refused(call, "m.test", url=url)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "too many requests already wait for a ready pod, of ns/m-predictor" in details
    for one in waiting:
        one.cancel()
