"""uvicorn's HTTP protocol, with four things of our own.

One write for each answer: uvicorn writes head and body apart, and the system call for each was the largest single cost
of a small prediction. And a client that goes away cancels its request, which may wait for a busy model still: uvicorn
says so only to those who ask `receive`, and a task that asks would cost every request. And what is no HTTP is told so
in the form of every other error, after the answers to the requests before it. Last, a body of known length is handed over
whole: uvicorn stops reading at 64 KiB, and wakes the application and copies for each piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TASK = "fairlead.task"
"""In the ASGI scope: the task that answers the request, if it may be cancelled."""
GONE = "fairlead.gone"
"""In the ASGI scope, true: it was cancelled because the client went away."""

BODY = "fairlead.body"
"""In the ASGI scope: the whole body, once it is here."""
WHOLE = "fairlead.whole"
"""In the ASGI scope: call it to get a future that is done when the whole body is here or the client has left. Only for bodies of
known length, which may be kept; not for a client that waits for `100 Continue`."""

_REASON = b'{"error":"this is not an HTTP/1.1 request: its first line, a header, or the length of its body is wrong"}'
NOT_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_REASON), _REASON)
)


class CorkedTransport:
    """Holds a first write until the second one, or until the event loop's next turn: a head without a body goes out too."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            held, self._held = self._held, None
            self._transport.write(held + data if len(data) < 65_536 else held)
            if len(data) >= 65_536:  # copying it would cost more than the call
                self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class CorkedProtocol(HttpToolsProtocol):
    _waiting: asyncio.Future[None] | None = None
    """For the whole body of the newest request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(CorkedTransport(transport, self.loop))  # type: ignore[arg-type]

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if not self.expect_100_continue:
            self._extras()[WHOLE] = self._wait_for_whole_body

    def on_body(self, body: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            super().on_body(body)
        else:
            self.cycle.body += body

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._extras()[BODY] = self.cycle.body
        self._wait_no_longer()

    def _extras(self) -> MutableMapping[str, Any]:
        """The newest request's scope, as something that takes keys of ours."""
        return self.cycle.scope  # type: ignore[return-value]

    def _wait_for_whole_body(self) -> asyncio.Future[None]:
        self._waiting = self.loop.create_future()
        self.flow.resume_reading()
        return self._waiting

    def _wait_no_longer(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        self._waiting = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wait_no_longer()
        if self.cycle is None or self.cycle.response_complete:
            return
        scope = self._extras()
        task = scope.get(TASK)
        if task is not None:
            scope[GONE] = True
            task.cancel()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            # The bytes follow a request that is whole, as after a Content-Length that is too short: that one is answered.
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        self.transport.write(NOT_HTTP)
        self.transport.close()
