"""The HTTP door: a bare ASGI application for V1, V2 and the server's own pages.

Hot path: one dict look-up finds the handler of `POST /v2/models/{m}/infer` and `/v1/models/{m}:predict`; everything else is
matched by splitting the path. No framework stands between, because one costs as much as a small model's predict.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from fairlead.runtime.doors.corked import GONE, TASK
from fairlead.runtime.doors.reply import Reply, error_reply
from fairlead.runtime.doors.request import Exchange, Limits
from fairlead.runtime.doors.routes import Routes
from fairlead.runtime.errors import ServingError
from fairlead.runtime.operations.access_log import AccessLog
from fairlead.runtime.operations.tracing import Tracer
from fairlead.runtime.protocols import compression
from fairlead.runtime.repository import Repository

if TYPE_CHECKING:
    from fairlead.runtime.operations.payload_log import PayloadLog

log = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""nginx's code, for metrics and the access log: nobody is there to read it."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class HttpDoor:
    """The ASGI application of one server."""

    def __init__(
        self,
        repository: Repository,
        *,
        limits: Limits | None = None,
        access_log: AccessLog | None = None,
        tracer: Tracer | None = None,
        payload_log: PayloadLog | None = None,
        siblings: Callable[[], Awaitable[list[Any]]] | None = None,
    ) -> None:
        self._repository = repository
        self._limits = limits or Limits()
        self._routes = Routes(repository, self._limits, siblings)
        self._requests = repository.metrics.requests
        self._seconds = repository.metrics.seconds
        self._access_log = access_log
        self._tracer = tracer
        self._payload_log = payload_log
        self.in_flight = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _lifespan(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = Exchange(scope, receive, self._limits)
        scope[TASK] = asyncio.current_task()
        self.in_flight += 1
        try:
            if self._tracer is None:
                reply = await self._answer(exchange)
            else:
                with self._tracer.span(exchange) as span:
                    reply = await self._answer(exchange)
                    span.end(exchange, reply.status)
            seconds = time.perf_counter() - started
            if exchange.protocol:
                self._requests.add((exchange.model, exchange.protocol, str(reply.status)))
                self._seconds.child((exchange.model, exchange.protocol)).observe(seconds)
            if self._access_log is not None:
                self._access_log.write(exchange, reply.status, len(reply.body), seconds)
            if self._payload_log is None or not exchange.protocol:
                await self._send(exchange, reply, send)
            else:
                parts = self._payload_log.follow(reply)
                await self._send(exchange, reply, send)
                self._payload_log.record(exchange, reply, parts, started)
        except asyncio.CancelledError:
            if GONE not in scope:
                raise
        finally:
            self.in_flight -= 1

    async def _answer(self, exchange: Exchange) -> Reply:
        try:
            handler, arguments = self._routes.find(exchange)
            return await handler(exchange, *arguments)
        except ServingError as error:
            if error.http_status >= 500 and error.__cause__ is not None:
                log.error("%s %s: %s", exchange.method, exchange.path, error, exc_info=error.__cause__)
            return error_reply(error)
        except asyncio.CancelledError:
            if GONE not in exchange.scope:
                raise
            return Reply(CLIENT_CLOSED_REQUEST, b"", [])
        except Exception as error:
            log.exception("%s %s", exchange.method, exchange.path)
            return error_reply(ServingError(f"internal error: {type(error).__name__}: {error}"))

    async def _send(self, exchange: Exchange, reply: Reply, send: Send) -> None:
        body, headers = reply.body, reply.headers
        if exchange.request_id is not None:
            headers = [*headers, (b"x-request-id", exchange.request_id)]
        if self.draining or not exchange.body_read:
            # An unread body would be taken for the next request; a draining server wants the client to reconnect elsewhere.
            headers = [*headers, (b"connection", b"close")]
        if reply.stream is not None:
            await _send_stream(reply, headers, send)
            return
        accepted = exchange.headers.get(b"accept-encoding")
        if accepted is not None and len(body) >= compression.SMALLEST_WORTH_IT:
            encoding = compression.choose(accepted.decode("latin-1"))
            if encoding is not None:
                body = compression.compress(body, encoding)
                headers = [*headers, (b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": reply.status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": b"" if exchange.method == "HEAD" else body})


async def _send_stream(reply: Reply, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    assert reply.stream is not None
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    async for chunk in reply.stream:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """The server starts and stops models itself; a websocket is refused."""
    if scope["type"] != "lifespan":
        await send({"type": "websocket.close", "code": 1003})
        return
    while True:
        message = await receive()
        kind = message["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


__all__ = ["HttpDoor", "Limits"]
