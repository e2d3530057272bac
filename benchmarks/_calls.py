"""Single calls for benchmarks that care about each one: HTTP/1.1 POSTs and unary gRPC over asyncio, each with a time limit and a reason if it fails.

No retries, no resolver, no channel states: what a call costs is what the servers cost, and a call that fails is seen to fail. `_load.py` is for rates.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field

from _load import DATA, GOAWAY, HEADERS, PING, RST, SETTINGS, WINDOW_UPDATE, _frame, _literal

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Failed(Exception):
    """A call that got no answer, or one that says no; the text says which."""


@dataclass
class Http:
    """Keeps connections that servers keep; `fresh` calls make their own."""

    port: int
    host: str = "127.0.0.1"
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def call(self, path: str, body: bytes, *, timeout: float, fresh: bool = False) -> bytes:
        """The body of a 200. Raises Failed."""
        try:
            async with asyncio.timeout(timeout):
                return await self._call(path, body, fresh=fresh)
        except TimeoutError:
            raise Failed(f"no answer within {timeout:g} s") from None
        except (OSError, EOFError) as error:
            raise Failed(f"{type(error).__name__}: {error}") from None

    async def _call(self, path: str, body: bytes, *, fresh: bool) -> bytes:
        reader, writer = await self._connection(fresh)
        kept = False
        try:
            closing = "Connection: close\r\n" if fresh else ""
            head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{closing}\r\n"
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            fields = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in answer.split("\r\n")[1:])
            }
            content = await reader.readexactly(int(fields.get("content-length", "0")))
            kept = not fresh and fields.get("connection", "").lower() != "close"
            status = answer.split(" ", 2)[1]
            if status != "200":
                raise Failed(f"{status}: {content[:300].decode(errors='replace')}")
            return content
        finally:
            if kept:
                self.idle.append((reader, writer))
            else:
                writer.close()

    async def _connection(self, fresh: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.idle and not fresh:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.host, self.port)

    def close(self) -> None:
        for _, writer in self.idle:
            writer.close()
        self.idle.clear()


class _Stream:
    def __init__(self) -> None:
        self.message = b""
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class _Connection:
    """One HTTP/2 connection. Messages are small: windows are opened once and then not thought of again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.streams: dict[int, _Stream] = {}
        self.next = 1
        self.usable = True
        self.limit = 100
        """Calls at a time, as the server says; what nearly all say until they do."""
        settings = struct.pack(">HI", 4, 1 << 24)
        self.writer.write(
            PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**30))
        )
        self.task = asyncio.create_task(self._read())

    def send(self, authority: str, path: str, message: bytes) -> tuple[int, _Stream]:
        number, self.next = self.next, self.next + 2
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode())]
        fields += [(b":authority", authority.encode()), (b"te", b"trailers"), (b"content-type", b"application/grpc")]
        body = b"\x00" + struct.pack(">I", len(message)) + message
        self.streams[number] = stream = _Stream()
        self.writer.write(
            _frame(HEADERS, 4, number, b"".join(_literal(*f) for f in fields)) + _frame(DATA, 1, number, body)
        )
        return number, stream

    def forget(self, number: int) -> None:
        """The caller is gone: tell the server so."""
        if self.streams.pop(number, None) is not None and self.usable:
            self.writer.write(_frame(RST, 0, number, struct.pack(">I", 8)))

    async def _read(self) -> None:
        reason = "the connection was closed"
        try:
            while True:
                head = await self.reader.readexactly(9)
                size_and_kind, flags, number = struct.unpack(">IBI", head)
                payload = await self.reader.readexactly(size_and_kind >> 8)
                self._take(size_and_kind & 255, flags, number, payload)
        except (OSError, EOFError) as error:
            reason = f"the connection was closed: {type(error).__name__}"
        finally:
            self.usable = False
            self.writer.close()
            for stream in self.streams.values():
                if not stream.done.done():
                    stream.done.set_exception(Failed(reason))
            self.streams.clear()

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & 1:
            self.limit = dict(struct.iter_unpack(">HI", payload)).get(3, self.limit)
            self.writer.write(_frame(SETTINGS, 1, 0, b""))
        elif kind == PING and not flags & 1:
            self.writer.write(_frame(PING, 1, 0, payload))
        elif kind == GOAWAY:
            self._refuse(struct.unpack(">I", payload[:4])[0])
        stream = self.streams.get(number)
        if stream is None:
            return
        if kind == DATA:
            stream.message += payload
        if kind == RST:
            self._end(number, Failed(f"the stream was reset, code {struct.unpack('>I', payload)[0]}"))
        elif kind in (HEADERS, DATA) and flags & 1:
            self._end(number, None if _status(payload) == b"0" and stream.message else Failed(f"trailers {payload!r}"))

    def _refuse(self, last: int) -> None:
        """The server takes no more calls on this connection; those above `last` it has not looked at."""
        self.usable = False
        for number in [n for n in self.streams if n > last]:
            self._end(number, Failed("the server takes no more calls on this connection"))

    def _end(self, number: int, failed: Failed | None) -> None:
        stream = self.streams.pop(number)
        if stream.done.done():
            return
        if failed is not None:
            stream.done.set_exception(failed)
        else:
            stream.done.set_result(stream.message[5:])


def _status(trailers: bytes) -> bytes:
    """The value of grpc-status, which HAProxy and our servers write as a plain literal."""
    _, found, rest = trailers.partition(b"grpc-status")
    return rest[1 : 1 + rest[0]] if found and rest else b""


@dataclass
class Grpc:
    """Calls share connections, each of which takes as many at a time as the server allows; `fresh` calls make their own."""

    port: int
    host: str = "127.0.0.1"
    connections: list[_Connection] = field(default_factory=list)
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def call(self, authority: str, path: str, message: bytes, *, timeout: float, fresh: bool = False) -> bytes:
        """The answer's message. Raises Failed."""
        connection: _Connection | None = None
        number = 0
        try:
            async with asyncio.timeout(timeout):
                connection = await self._open() if fresh else await self._shared()
                number, stream = connection.send(authority, path, message)
                return await stream.done
        except TimeoutError:
            raise Failed(f"no answer within {timeout:g} s") from None
        except OSError as error:
            raise Failed(f"{type(error).__name__}: {error}") from None
        finally:
            if connection is not None:
                connection.forget(number)
                if fresh:
                    connection.task.cancel()

    async def _shared(self) -> _Connection:
        async with self.opening:  # one that has just been opened is for all who wait
            self.connections = [connection for connection in self.connections if connection.usable]
            for connection in self.connections:
                if len(connection.streams) < connection.limit:
                    return connection
            self.connections.append(await self._open())
            return self.connections[-1]

    async def _open(self) -> _Connection:
        return _Connection(*await asyncio.open_connection(self.host, self.port))

    def close(self) -> None:
        for connection in self.connections:
            connection.task.cancel()
