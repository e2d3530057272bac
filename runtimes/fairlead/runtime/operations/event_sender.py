"""POST over kept connections, and nothing else of HTTP: what is sent are events, and of the answers only the status is of interest.

On the event loop, because a thread would fight the server for the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import cast
from urllib.parse import quote, unquote, urlsplit

import httptools


class Receiver:
    """Where events go."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        self._name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (f"?{parts.query}" if parts.query else "")
        head = f"POST {target} HTTP/1.1\r\nhost: {parts.netloc.rpartition('@')[2]}\r\nuser-agent: fairlead\r\n"
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            head += f"authorization: Basic {base64.b64encode(secret.encode()).decode()}\r\n"
        self.head = head.encode()

    def __str__(self) -> str:
        """The address, without what is secret in it."""
        return self._name


class EventSender:
    """One connection, made when it is needed; one event at a time."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._connection: _Connection | None = None

    async def post(self, head: bytes, body: bytes | memoryview) -> int:
        """The answer's status. `head`: headers, each ending its line. Raises OSError."""
        connection = self._connection
        if connection is None or not connection.usable:
            connection = self._connection = await self._connect()
        try:
            return await connection.post(self._receiver.head + head, body)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        receiver = self._receiver
        _, connection = await loop.create_connection(_Connection, receiver.host, receiver.port, ssl=receiver.tls)
        return connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.usable = True
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._answer: asyncio.Future[int] | None = None

    async def post(self, head: bytes, body: bytes | memoryview) -> int:
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines([b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body])
        return await self._answer

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio's -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"what it answers is no HTTP: {error}")
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._status:  # an answer may end with its connection
            self._done()
        else:
            self._fail("it closed the connection")

    # --- httptools' ------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        self.usable = self.usable and bool(self._parser.should_keep_alive())
        self._done()

    def _done(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._status)

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(reason))
