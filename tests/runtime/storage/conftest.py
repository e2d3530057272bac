"""A real HTTP server that can be told to misbehave."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Site:
    """Files by path, what happens to the next requests, and what was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"v1"'})
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    next: deque[Callable[[Any, bytes], None]] = field(default_factory=deque)
    """Each takes (handler, content) and answers one request in its own way."""
    ranges: bool = True
    sent: int = 0
    """Bytes of bodies."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        site = self.server.site
        path = self.path.partition("?")[0]
        site.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        content = site.files.get(path)
        if content is None:
            self.answer(404, b"no")
        elif site.next:
            site.next.popleft()(self, content)
        else:
            self.serve(content)

    do_HEAD = do_GET  # noqa: N815

    def serve(self, content: bytes, cut: int | None = None) -> None:
        """As asked; with `cut`, only so many bytes of the body and then the connection drops."""
        site = self.server.site
        wanted = self.headers.get("Range")
        fresh = self.headers.get("If-Range", site.headers.get("ETag")) == site.headers.get("ETag")
        if wanted and site.ranges and fresh:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.answer(416, b"")
                return
            body = content[start:]
            self.answer(206, body, cut, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
        else:
            self.answer(200, content, cut)

    def answer(self, status: int, body: bytes, cut: int | None = None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**self.server.site.headers, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        piece = (body if cut is None else body[:cut]) if self.command == "GET" else b""
        self.server.site.sent += len(piece)  # before it is: who has it all may look at once
        try:
            self.wfile.write(piece)
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True
        if cut is not None:
            self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    site: Site
    daemon_threads = True


@pytest.fixture
def site() -> Iterator[Site]:
    server = Server(("127.0.0.1", 0), Handler)
    server.site = Site(url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.site
    server.shutdown()
    thread.join()
    server.server_close()
