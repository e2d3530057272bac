"""The soak's clients: HTTP/1.1 over a stream with nothing in between, so that requests can be wrong in every way, and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import grpc

from fairlead.runtime.protocols import pb


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Http:
    """One connection, opened when needed and again after the server (or a case) has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def send(self, data: bytes) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        self._streams[1].write(data)
        await self._streams[1].drain()

    async def answer(self) -> Answer:
        """The next answer. EOFError if the server closed the connection instead."""
        assert self._streams is not None
        reader, _ = self._streams
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {}
            for line in head[1:-2]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            if headers.get("transfer-encoding") == "chunked":
                body = await _chunks(reader)
            else:
                body = await reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.close()
            raise EOFError("the server closed the connection without an answer") from None
        status = int(head[0].split()[1])
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    async def end_of_input(self) -> None:
        """Tell the server that nothing more comes, and keep reading."""
        assert self._streams is not None
        self._streams[1].write_eof()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return body


_SERVICE = f"/{pb.SERVICE}/"


class Grpc:
    """One channel, replaced now and then by its user."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open()

    def _open(self) -> None:
        # A pool of its own: channels to one address would share one connection.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=options)
        answer = pb.ModelInferResponse.FromString
        self.infer = self._channel.unary_unary(_SERVICE + "ModelInfer", response_deserializer=answer)
        self.stream = self._channel.stream_stream(
            _SERVICE + "ModelStreamInfer", response_deserializer=pb.ModelStreamInferResponse.FromString
        )
        ready = pb.message("ModelReadyResponse")
        self.model_ready = self._channel.unary_unary(_SERVICE + "ModelReady", response_deserializer=ready.FromString)

    async def again(self) -> None:
        await self.close()
        self._open()

    async def close(self) -> None:
        await self._channel.close()

    async def refused(self, call: Any) -> tuple[str, str]:
        """The status code and message with which a call fails; ("OK", "") if it does not."""
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""


async def cancelled(task: asyncio.Task[Any], after: float) -> None:
    """Cancel what a client waits for, unless it is there already."""
    await asyncio.wait({task}, timeout=after)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await task
