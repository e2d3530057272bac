"""How a server ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time

from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.conftest import Doubler

from fairlead.runtime import server
from fairlead.runtime.settings import LATE_SECONDS


def test_a_server_that_leaves_answers_on_connections_that_stay_open_and_is_ready_for_nobody(serve, monkeypatch):
    left = threading.Event()

    async def until_told(received, at_least, at_most):
        if not at_least:
            return
        await asyncio.to_thread(left.wait, 60)

    monkeypatch.setattr(server, "quiet", until_told)
    running = serve(Doubler("m"))
    kept = http.client.HTTPConnection("127.0.0.1", running.http_port, timeout=30)

    def ask(method: str, path: str, body: object = None) -> tuple[int, bool]:
        kept.request(method, path, body=None if body is None else json.dumps(body))
        response = kept.getresponse()
        response.read()
        return response.status, response.getheader("connection") == "close"

    assert ask("GET", "/v2/health/ready") == (200, False)
    running.loop.call_soon_threadsafe(running.server.leave)
    while ask("GET", "/v2/health/ready") == (200, False):
        pass
    assert ask("GET", "/v2/health/ready") == (503, False)
    assert ask("POST", "/v1/models/m:predict", {"instances": [[1.0, 2.0, 3.0]]}) == (200, False)
    assert running.thread.is_alive()
    left.set()
    running.thread.join(30)
    kept.close()
    assert not running.thread.is_alive()
    assert running.errors == []


@given(requests=st.lists(st.integers(0, 3), max_size=40), at_least=st.integers(1, 8), more=st.integers(0, 30))
def test_quiet_is_a_second_without_a_request_when_the_time_has_passed(requests, at_least, more):
    """`requests[n]`: how many come in the n-th second."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def received() -> float:
        return sum(requests[: int(sum(slept))])

    asyncio.run(server.quiet(received, at_least, at_least + more, sleep))
    ended = int(sum(slept))
    assert at_least <= ended <= max(at_least, at_least + more)
    last = requests[ended - 1] if ended <= len(requests) else 0
    assert last == 0 or ended == at_least + more
    assert all(requests[second] for second in range(at_least - 1, min(ended - 1, len(requests))))


def test_a_request_counts_when_it_comes_and_not_once_more_when_it_is_answered(serve):
    """Else a server whose requests take longer than a second would seem to be left alone."""
    asked, go = threading.Event(), threading.Event()

    class Slow(Doubler):
        def predict(self, request):
            asked.set()
            go.wait(30)
            return super().predict(request)

    running = serve(Slow("m"))
    connection = http.client.HTTPConnection("127.0.0.1", running.http_port, timeout=30)
    connection.request("POST", "/v1/models/m:predict", body='{"instances": [[1.0, 2.0, 3.0]]}')
    assert asked.wait(30)
    assert running.repository.received == 1
    go.set()
    assert connection.getresponse().status == 200
    connection.close()
    assert running.repository.received == 1


async def test_who_gives_requests_no_time_does_not_wait_for_quiet():
    await asyncio.wait_for(server.quiet(lambda: 0.0, 0.0, 60.0), 30)


def test_a_server_that_ends_goes_on_while_requests_still_come(serve, monkeypatch):
    """A proxy that has not heard of it yet."""
    waits = []
    quiet = threading.Event()

    async def until_told(received, at_least, at_most):
        waits.append((at_least, at_most))
        before = received()
        await asyncio.to_thread(quiet.wait, 60)
        waits.append(received() - before)

    monkeypatch.setattr(server, "quiet", until_told)
    running = serve(Doubler("m"), drain_seconds=0.5)
    running.loop.call_soon_threadsafe(running.server.stop)
    while not waits:
        time.sleep(0.01)
    connection = http.client.HTTPConnection("127.0.0.1", running.http_port, timeout=30)
    connection.request("POST", "/v1/models/m:predict", body='{"instances": [[1.0, 2.0, 3.0]]}')
    response = connection.getresponse()
    assert (response.status, response.getheader("connection")) == (200, "close")
    connection.close()
    quiet.set()
    running.thread.join(30)
    assert not running.thread.is_alive()
    assert waits == [(0.5, 0.5 + LATE_SECONDS), 1.0]
