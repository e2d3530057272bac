"""How a server ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading

from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.conftest import Doubler

from fairlead.runtime import server
from fairlead.runtime.settings import LEAVE_SECONDS, NOTICED_SECONDS


def test_a_server_that_leaves_answers_on_connections_that_stay_open_and_is_ready_for_nobody(serve, monkeypatch):
    left = threading.Event()

    async def until_told(answered):
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


@given(requests=st.lists(st.integers(0, 3), max_size=40))
def test_quiet_is_a_second_without_a_request_after_the_time_in_which_it_is_noticed(requests):
    """`requests[n]`: how many are answered in the n-th second."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def answered() -> float:
        return sum(requests[: int(sum(slept))])

    asyncio.run(server.quiet(answered, sleep))
    ended = int(sum(slept))
    assert NOTICED_SECONDS < ended <= LEAVE_SECONDS
    last = requests[ended - 1] if ended <= len(requests) else 0
    assert last == 0 or ended == LEAVE_SECONDS
    assert all(requests[second] for second in range(int(NOTICED_SECONDS), min(ended - 1, len(requests))))
