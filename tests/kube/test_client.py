"""The client against an HTTP server that misbehaves: what a real API server seldom does on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from fairlead.kube import transport, watch
from fairlead.kube.backoff import Backoff
from fairlead.kube.client import Client
from fairlead.kube.config import Connection
from fairlead.kube.credentials import TokenFile
from fairlead.kube.errors import ApiError, BadRequest, Gone, Unauthorized, Unavailable, WatchStalled
from fairlead.kube.resources import CONFIG_MAPS, PODS, SECRETS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def client_of(handler: Handler, **connection: object) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with Client(Connection(f"http://{host}:{port}", **connection)) as client:  # type: ignore[arg-type]
            yield client
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "RETRY", Backoff(base=0.001, cap=0.001))


def status(code: int, reason: str, message: str = "no", **headers: str) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)


async def test_a_get_is_sent_again_after_a_lost_connection_and_a_write_is_not() -> None:
    methods: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        methods.append(request.method)
        if len(methods) in (1, 3):
            assert request.transport
            request.transport.abort()
        return web.json_response({"metadata": {}})

    async with client_of(handler) as client:
        await client.get(CONFIG_MAPS, "a", "ns")
        with pytest.raises(Unavailable, match=r"^patch configmaps ns/a: no answer from http://127.0.0.1:\d+: "):
            await client.patch(CONFIG_MAPS, "a", {}, "ns")
    assert methods == ["GET", "GET", "PATCH"]


async def test_a_write_that_was_refused_with_retry_after_is_sent_again_and_one_without_it_is_not() -> None:
    answers = [status(429, "TooManyRequests", **{"Retry-After": "0"}), status(503, "ServiceUnavailable")]
    bodies: list[object] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return answers.pop(0) if answers else web.json_response({})

    async with client_of(handler) as client:
        with pytest.raises(Unavailable) as caught:
            await client.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, "ns")
    assert caught.value.status == 503
    assert bodies == [{"data": {"x": "1"}}] * 2


async def test_a_server_that_wants_minutes_is_reported_at_once() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return status(429, "TooManyRequests", **{"Retry-After": "600"})

    async with client_of(handler) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get(CONFIG_MAPS, "a", "ns")
    assert caught.value.retry_after == 600


async def test_retries_of_a_get_end() -> None:
    asked = 0

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return status(503, "ServiceUnavailable")

    async with client_of(handler) as client:
        with pytest.raises(Unavailable):
            await client.get(CONFIG_MAPS, "a", "ns")
    assert asked == transport.ATTEMPTS


async def test_a_token_that_was_rotated_is_read_again_when_the_old_one_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] == "Bearer new":
            return web.json_response({})
        token.write_text("new\n")
        return status(401, "Unauthorized")

    async with client_of(handler, credentials=TokenFile(token)) as client:
        await client.patch(CONFIG_MAPS, "a", {}, "ns")


async def test_a_token_that_stays_refused_is_tried_twice() -> None:
    asked = 0

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return status(401, "Unauthorized")

    class Hopeful:
        async def authorization(self) -> str:
            return "Bearer x"

        def rejected(self) -> bool:
            return True

    async with client_of(handler, credentials=Hopeful()) as client:
        with pytest.raises(Unauthorized):
            await client.get(CONFIG_MAPS, "a", "ns")
    assert asked == 2


async def test_an_error_page_that_is_not_a_status_is_quoted() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=400, text="<html>\n  <b>client sent an HTTP request to an HTTPS server</b></html>")

    async with client_of(handler) as client:
        with pytest.raises(BadRequest, match="client sent an HTTP request to an HTTPS server"):
            await client.list(PODS)


async def test_a_login_page_in_the_place_of_an_answer_is_no_api_server() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>please log in</html>")

    async with client_of(handler) as client:
        with pytest.raises(Unavailable, match=r"^list pods in ns: the answer is not JSON: .*please log in"):
            await client.list(PODS, "ns")


async def test_the_environments_proxy_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response({"reached": "directly"})

    async with client_of(handler) as client:
        assert await client.raw("/version") == {"reached": "directly"}


async def test_pages_that_expire_half_way_are_replaced_by_one_whole_list() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if "continue" in request.query:
            return status(410, "Expired")
        paged = "limit" in request.query
        names = ["a"] if paged else ["a", "b"]
        metadata = {"resourceVersion": "7", **({"continue": "more"} if paged else {})}
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": name}} for name in names]})

    async with client_of(handler) as client:
        listed = await client.list(CONFIG_MAPS, "ns")
    assert [item["metadata"]["name"] for item in listed.items] == ["a", "b"]
    assert listed.resource_version == "7"


async def test_only_metadata_is_asked_for_where_only_that_is_wanted() -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers["Accept"])
        return web.json_response({"kind": "PartialObjectMetadata", "metadata": {"annotations": {"a": "b"}}})

    async with client_of(handler) as client:
        assert (await client.metadata(SECRETS, "a", "ns"))["metadata"] == {"annotations": {"a": "b"}}
    assert asked == ["application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"]


async def test_all_requests_but_watches_share_connections() -> None:
    peers: set[object] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport
        peers.add(request.transport.get_extra_info("peername"))
        return web.json_response({})

    async with client_of(handler) as client:
        for _ in range(20):
            await client.get(CONFIG_MAPS, "a", "ns")
    assert len(peers) == 1


def streaming(*chunks: bytes, then: Callable[[web.Request], Awaitable[None]] | None = None) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then:
            await then(request)
        return response

    return handler


async def hang(_: web.Request) -> None:
    await asyncio.sleep(30)


async def cut(request: web.Request) -> None:
    assert request.transport
    request.transport.abort()


async def watched(client: Client, silence: float = 5.0) -> list[str]:
    async with aclosing(client.watch(PODS, "ns", resource_version="1", silence=silence)) as events:
        return [event.type async for event in events]


ADDED = b'{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"2"}}}\n'


async def test_a_watch_yields_events_however_they_are_cut_into_chunks_and_ends_with_the_stream() -> None:
    async with client_of(streaming(ADDED[:7], ADDED[7:] + ADDED + ADDED[:40], ADDED[40:])) as client:
        assert await watched(client) == ["ADDED"] * 3


async def test_a_watch_asks_for_bookmarks_and_an_end_within_minutes() -> None:
    queries: list[dict[str, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        queries.append(dict(request.query))
        return web.Response()

    async with (
        client_of(handler) as client,
        aclosing(client.watch(PODS, resource_version="5", labels="app=x")) as events,
    ):
        assert [event async for event in events] == []
    (query,) = queries
    assert 240 <= int(query.pop("timeoutSeconds")) <= 300
    assert query == {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "5", "labelSelector": "app=x"}


async def test_a_watch_that_stalls_without_closing_is_noticed() -> None:
    async with client_of(streaming(ADDED, then=hang)) as client:
        began = time.monotonic()
        with pytest.raises(WatchStalled, match=r"^watch pods in ns: no event and no bookmark for"):
            await watched(client, silence=0.1)
        assert time.monotonic() - began < 60


async def test_a_watch_whose_connection_is_cut_is_unavailable() -> None:
    async with client_of(streaming(ADDED, then=cut)) as client:
        with pytest.raises(Unavailable) as caught:
            await watched(client)
    assert not isinstance(caught.value, WatchStalled)


async def test_a_watch_that_is_cut_in_the_middle_of_an_event_does_not_yield_half_of_it() -> None:
    async with client_of(streaming(ADDED + ADDED[:30])) as client:
        with pytest.raises(Unavailable, match="not a watch event"):
            await watched(client)


async def test_an_error_event_is_raised_as_what_it_is() -> None:
    def error(code: int, reason: str) -> bytes:
        return b'{"type":"ERROR","object":{"kind":"Status","code":%d,"reason":"%s","message":"m"}}\n' % (
            code,
            reason.encode(),
        )

    async with client_of(streaming(error(410, "Expired"))) as client:
        with pytest.raises(Gone):
            await watched(client)
    async with client_of(streaming(error(500, "InternalError"))) as client:
        with pytest.raises(ApiError) as caught:
            await watched(client)
    assert caught.value.status == 500


async def test_a_watch_that_is_closed_early_gives_its_connection_up() -> None:
    closed = asyncio.Event()

    async def until_closed(request: web.Request) -> None:
        while request.transport and not request.transport.is_closing():
            await asyncio.sleep(0.005)
        closed.set()

    async with client_of(streaming(ADDED, then=until_closed)) as client:
        async with aclosing(client.watch(PODS, "ns", resource_version="1")) as events:
            async for _ in events:
                break
        await asyncio.wait_for(closed.wait(), 60)


async def test_a_log_is_followed_line_by_line_for_as_long_as_the_container_prints() -> None:
    async with (
        client_of(streaming(b"one\ntw", b"o\n", b"three")) as client,
        aclosing(client.follow_logs("pod", "ns")) as lines,
    ):
        assert [line async for line in lines] == ["one", "two", "three"]


async def test_an_object_without_a_namespace_is_refused_before_anything_is_sent() -> None:
    async with Client(Connection("http://127.0.0.1:1")) as client:
        with pytest.raises(ValueError, match=r"this ConfigMap \(a\) has no metadata.namespace"):
            await client.create(CONFIG_MAPS, {"metadata": {"name": "a"}})
        with pytest.raises(ValueError, match="configmaps a: a namespaced kind needs a namespace"):
            await client.get(CONFIG_MAPS, "a")


async def test_a_server_that_is_not_there_is_unavailable_and_the_message_names_it() -> None:
    async with Client(Connection("http://127.0.0.1:1")) as client:
        with pytest.raises(Unavailable, match=r"^list pods in all namespaces: no answer from http://127.0.0.1:1: "):
            await client.list(PODS)


@given(
    documents=st.lists(st.binary(min_size=1).filter(lambda text: b"\n" not in text)), cuts=st.lists(st.integers(0, 200))
)
def test_lines_are_whole_wherever_the_chunks_end(documents: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(document + b"\n" for document in documents)
    places = sorted({0, len(stream), *(place for place in cuts if place < len(stream))})

    async def chunks() -> AsyncIterator[bytes]:
        for begin, end in pairwise(places):
            yield stream[begin:end]

    async def collect() -> list[bytes]:
        return [line async for line in watch.lines(chunks())]

    assert asyncio.run(collect()) == documents
