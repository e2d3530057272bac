"""A receiver of CloudEvents: a real HTTP server, which keeps what it is sent and answers as a test wants."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

WAIT_SECONDS = 60.0


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """`request` or `response`."""
        return self.headers["ce-type"].rpartition(".")[2]

    def json(self, header: str) -> Any:
        return json.loads(self.headers[header])


class Receiver:
    def __init__(self, answer: Callable[[int], int] = lambda number: 200, *, keeps_connections: bool = True) -> None:
        """`answer`: the status for the n-th event, from 0."""
        self.events: list[Received] = []
        self.connections = 0
        receiver = self
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if keeps_connections else "HTTP/1.0"

            def setup(self) -> None:
                with lock:
                    receiver.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                event = Received(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                with lock:
                    number = len(receiver.events)
                    receiver.events.append(event)
                self.send_response(answer(number))
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/events?from=here"

    def wait(self, count: int) -> list[Received]:
        """The events, sorted by type, once so many are here."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(self.events) < count:
            assert time.monotonic() < deadline, f"{len(self.events)} of {count} events"
            time.sleep(0.005)
        return sorted(self.events, key=lambda event: event.kind)
