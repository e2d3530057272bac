"""Requests through a real HAProxy: who gets them, with what, and what is said when nobody does."""

from __future__ import annotations

import asyncio
import http.client
import io
import math
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import aiohttp
import pytest
import yarl

from fairlead.gateway.routes import Endpoint, Target

pytestmark = [pytest.mark.haproxy]


async def test_a_host_leads_to_its_service(gateway, make_pod, make_service, client):
    one, two = await make_pod("one"), await make_pod("two")
    await gateway.serve(
        make_service("one", {"one-predictor": (100, [one.endpoint])}),
        make_service("two", {"two-predictor": (100, [two.endpoint])}),
    )
    for name in ("one", "two"):
        async with client.get(f"{gateway.url}/v2/health/ready?x=1", headers={"host": f"{name}.test"}) as response:
            answer = await response.json()
            assert (answer["pod"], answer["path"]) == (name, "/v2/health/ready?x=1")


async def test_hosts_are_compared_without_case_and_port(gateway, make_pod, make_service, client):
    pod = await make_pod()
    await gateway.serve(make_service("one", {"one-predictor": (100, [pod.endpoint])}))
    async with client.get(gateway.url, headers={"host": "ONE.Test:8080"}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/serving/ns/one/v1/models/one:predict?a=b", "/v1/models/one:predict?a=b"),
        ("/serving/ns/one/", "/"),
        ("/serving/ns/one", "/"),
        ("/serving/ns/one/serving/ns/one/x", "/serving/ns/one/x"),
    ],
)
async def test_a_path_leads_to_its_service_and_its_prefix_is_stripped(
    gateway, make_pod, make_service, client, path, seen
):
    pod = await make_pod()
    await gateway.serve(make_service("one", {"one-predictor": (100, [pod.endpoint])}))
    async with client.get(gateway.url + path) as response:
        assert (await response.json())["path"] == seen


async def test_explanations_are_asked_of_the_explainer_where_there_is_one(gateway, make_pod, make_service, client):
    predictor, explainer = await make_pod("predictor"), await make_pod("explainer")
    one = make_service("one", {"one-predictor": (100, [predictor.endpoint])})
    other = make_service("one-explainer", {"one-explainer": (100, [explainer.endpoint])})
    explained = replace(
        one,
        hosts={**one.hosts, "one.test:explain": "ns/one-explainer/predictor"},
        paths={**one.paths, "ns/one:explain": "ns/one-explainer/predictor"},
    )
    await gateway.serve(explained, other, make_service("two", {"two-predictor": (100, [predictor.endpoint])}))
    for asked, host, answered in (
        ("/v1/models/m:explain", "one.test", "explainer"),
        ("/v1/models/m:predict", "one.test", "predictor"),
        ("/serving/ns/one/v1/models/m:explain", "", "explainer"),
        ("/serving/ns/one/v1/models/m:predict", "", "predictor"),
        ("/v1/models/m:explain", "two.test", "predictor"),
        ("/serving/ns/two/v1/models/m:explain", "", "predictor"),
    ):
        async with client.post(f"{gateway.url}{asked}", headers={"host": host} if host else {}) as response:
            assert (await response.json())["pod"] == answered, asked


async def test_a_services_own_paths_are_not_taken_from_it(gateway, make_pod, make_service, client):
    pod = await make_pod()
    await gateway.serve(make_service("one", {"one-predictor": (100, [pod.endpoint])}))
    async with client.get(f"{gateway.url}/serving/ns/one/x", headers={"host": "one.test"}) as response:
        assert (await response.json())["path"] == "/serving/ns/one/x"


async def test_a_request_gets_an_id_and_says_where_it_came_from(gateway, make_pod, make_service, client):
    pod = await make_pod()
    await gateway.serve(make_service("one", {"one-predictor": (100, [pod.endpoint])}))
    async with client.get(gateway.url, headers={"host": "one.test", "x-request-id": "mine", "a": "b"}) as response:
        headers = {name.lower(): value for name, value in (await response.json())["headers"].items()}
    assert headers["x-request-id"] == "mine"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["host"] == "one.test"
    assert headers["a"] == "b"
    async with client.get(gateway.url, headers={"host": "one.test"}) as response:
        headers = {name.lower(): value for name, value in (await response.json())["headers"].items()}
    assert len(headers["x-request-id"]) == 36


@pytest.mark.parametrize("weights", [(80, 20), (1, 99), (50, 30, 15, 5)])
async def test_requests_are_split_by_weight(gateway, make_pod, make_service, load, weights):
    pods = [await make_pod(str(number)) for number in range(len(weights))]
    await gateway.serve(
        make_service("one", {f"w{i}": (weight, [pods[i].endpoint]) for i, weight in enumerate(weights)})
    )
    async with load(gateway.url, "one.test") as result:
        while result.statuses[200] < 1500:
            await asyncio.sleep(0.01)
    assert not result.failures
    total = sum(result.pods.values())
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        # 5 standard deviations: of a million runs of this test, one fails by chance.
        assert abs(result.pods[str(number)] - total * share) < 5 * math.sqrt(total * share * (1 - share)) + 1


async def test_a_weight_of_zero_gets_nothing_but_its_tag_works(gateway, make_pod, make_service, client):
    stable, dark = await make_pod("stable"), await make_pod("dark")
    service = make_service("one", {"stable": (100, [stable.endpoint]), "dark": (0, [dark.endpoint])})
    service.routes["ns/one/predictor/dark"] = (Target("dark", "dark", 100),)
    service.hosts["dark-one.test"] = "ns/one/predictor/dark"
    await gateway.serve(service)
    counts: Counter[str] = Counter()
    for _ in range(50):
        async with client.get(gateway.url, headers={"host": "one.test"}) as response:
            counts[(await response.json())["pod"]] += 1
    assert counts == {"stable": 50}
    async with client.get(gateway.url, headers={"host": "dark-one.test"}) as response:
        assert (await response.json())["pod"] == "dark"


async def test_a_pod_gets_no_more_requests_at_a_time_than_it_may(gateway, make_pod, make_service, client):
    pods = [await make_pod(str(number)) for number in range(2)]
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint for pod in pods])}, concurrency=3))

    async def ask() -> int:
        async with client.get(f"{gateway.url}/sleep/0.02", headers={"host": "one.test"}) as response:
            return response.status

    assert set(await asyncio.gather(*(ask() for _ in range(60)))) == {200}
    assert [pod.most_active for pod in pods] == [3, 3]


async def test_large_bodies_pass(gateway, make_pod, make_service, client):
    pod = await make_pod()
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
    async with client.post(gateway.url, headers={"host": "one.test"}, data=io.BytesIO(b"x" * (20 << 20))) as response:
        assert (await response.json())["size"] == 20 << 20


# --- Errors ---------------------------------------------------------------------------------------------------


async def error(
    client: aiohttp.ClientSession, url: str | yarl.URL, host: str
) -> tuple[int, str, aiohttp.ClientResponse]:
    async with client.get(url, headers={"host": host}) as response:
        assert response.content_type == "application/json"
        return response.status, (await response.json())["error"], response


async def test_an_unknown_host_is_named(gateway, client):
    status, text, _ = await error(client, f"{gateway.url}/v1/x", "nobody.test:80")
    assert status == 404
    assert "host nobody.test:80 and path /v1/x" in text


async def test_a_hostile_path_cannot_break_out_of_the_error(gateway, client):
    hostile = yarl.URL(gateway.url + "/%22},\"'<b>\\%0d%0a%25[var(txn.route)]", encoded=True)
    status, text, _ = await error(client, hostile, "nobody.test")
    assert status == 404
    assert "<b>" in text


async def test_a_service_without_a_servable_revision_is_named(gateway, make_service, client):
    await gateway.serve(make_service("one", {}))
    status, text, response = await error(client, gateway.url, "one.test")
    assert status == 503
    assert "ns/one/predictor has no revision that can be served yet" in text
    assert response.headers["retry-after"] == "1"


async def test_a_workload_without_a_ready_pod_is_named(gateway, make_service, client):
    await gateway.serve(make_service("one", {"one-predictor": (100, [])}))
    status, text, response = await error(client, gateway.url, "one.test")
    assert status == 503
    assert "no ready pod of ns/one-predictor" in text
    assert response.headers["retry-after"] == "1"


async def test_a_late_answer_is_a_timeout_of_the_services_own_length(gateway, make_pod, make_service, client):
    pod = await make_pod()
    await gateway.serve(
        make_service("one", {"one-predictor": (100, [pod.endpoint])}, timeout=0.2),
        make_service("two", {"two-predictor": (100, [pod.endpoint])}, timeout=60),
    )
    status, text, _ = await error(client, f"{gateway.url}/sleep/30", "one.test")
    assert status == 504
    assert "no answer from ns/one-predictor within its timeout" in text
    async with client.get(f"{gateway.url}/sleep/0.4", headers={"host": "two.test"}) as response:
        assert response.status == 200


async def test_a_pod_that_hangs_up_is_a_bad_gateway(gateway, make_service, client):
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    await gateway.serve(make_service("one", {"one-predictor": (100, [endpoint])}))
    status, text, _ = await error(client, gateway.url, "one.test")
    assert status == 502
    assert "a pod of ns/one-predictor closed the connection" in text
    server.close()


@pytest.mark.parametrize("end", [False, True], ids=["open", "half-closed"])
@pytest.mark.parametrize(
    "garbage", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
async def test_what_is_not_http_is_refused_and_hung_up_on(gateway, garbage, end):
    """Were the connection kept, a few hundred of them would leave none for others."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(garbage)
    if end:
        await asyncio.sleep(0.02)
        writer.write_eof()
    async with asyncio.timeout(60):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


# --- Failing pods ---------------------------------------------------------------------------------------------


async def test_a_killed_pod_of_two_fails_no_request_that_may_be_sent_again(
    gateway, make_pod, make_service, load, eventually
):
    """Connections that it had not accepted yet are reset; from then on they are refused: each such request goes to the other pod at once."""
    stays, dies = await make_pod("stays"), await make_pod("dies")
    await gateway.serve(make_service("one", {"w": (100, [stays.endpoint, dies.endpoint])}))
    async with load(gateway.url, "one.test", method="GET", keep_alive=False) as result:
        await eventually(lambda: result.pods["dies"] > 40)
        await dies.site.stop()
        before = result.pods["stays"]
        await eventually(lambda: result.pods["stays"] > before + 100)
    assert not result.failures
    assert result.pods["stays"] > result.pods["dies"]


async def test_a_pod_that_comes_back_at_its_address_gets_requests_again(
    gateway, make_pod, make_service, client, eventually
):
    pod, other = await make_pod("first"), await make_pod("other")
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint, other.endpoint])}))
    await pod.close()

    async def who() -> str:
        async with client.post(gateway.url, headers={"host": "one.test"}) as response:
            assert response.status == 200
            return (await response.json())["pod"]

    assert {await who() for _ in range(20)} == {"other"}
    again = await make_pod("again", port=pod.endpoint.port)

    async def is_back() -> bool:
        return await who() == again.name

    await eventually(is_back)


@dataclass
class Dying:
    """Accepts every request and ends its connection without an answer, as the kernel does for a process that was killed."""

    endpoint: Endpoint
    methods: list[str] = field(default_factory=list)
    listens_on: bool = True
    """Whether connections after the first are accepted, too."""


@pytest.fixture(params=[False, True], ids=["closed", "reset"])
async def dying(request) -> AsyncIterator[Dying]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pod.methods.append((await reader.readuntil(b" ")).decode().strip())
        if not pod.listens_on:
            server.close()
        if request.param:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pod = Dying(Endpoint("127.0.0.1", server.sockets[0].getsockname()[1]))
    yield pod
    server.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_what_only_asks_is_asked_again_elsewhere_when_its_pod_dies(
    gateway, make_pod, make_service, dying, method
):
    """By a client that keeps its connection, and does not try again itself."""
    stays = await make_pod("stays")
    await gateway.serve(make_service("one", {"w": (100, [stays.endpoint, dying.endpoint])}))
    client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)

    def ask() -> int:
        client.request(method, "/", headers={"host": "one.test"})
        answer = client.getresponse()
        answer.read()
        return answer.status

    async with asyncio.timeout(60):
        while len(dying.methods) < 5:
            assert await asyncio.to_thread(ask) == 200
    client.close()
    assert set(dying.methods) == {method}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_may_have_had_an_effect_is_sent_once(gateway, make_pod, make_service, client, dying, method):
    stays = await make_pod("stays")
    await gateway.serve(make_service("one", {"w": (100, [stays.endpoint, dying.endpoint])}))
    statuses: Counter[int] = Counter()
    headers = {"host": "one.test", "connection": "close"}
    async with asyncio.timeout(60):
        while len(dying.methods) < 5:
            async with client.request(method, gateway.url, headers=headers, data=b"x") as response:
                statuses[response.status] += 1
    assert statuses == +Counter({502: len(dying.methods), 200: stays.requests})


async def test_who_only_asks_waits_for_the_next_pod_when_the_last_one_dies(
    make_haproxy, make_pod, make_service, client, dying, eventually
):
    """Asked again at once, and refused: from there on it is a request that finds the only pod dead."""
    gateway = await make_haproxy(hold_timeout=60.0)
    dying.listens_on = False
    await gateway.serve(make_service("one", {"w": (100, [dying.endpoint])}))
    asking = asyncio.create_task(client.get(gateway.url, headers={"host": "one.test"}))
    await eventually(gateway.haproxy.held)
    await gateway.serve(make_service("one", {"w": (100, [])}))
    pod = await make_pod("next")
    await gateway.serve(make_service("one", {"w": (100, [pod.endpoint])}))
    async with await asking as response:
        assert (response.status, (await response.json())["pod"]) == (200, "next")
