"""Who answers while several workers fetch and load their model: liveness is fine, everything else has to wait.

A worker accepts only when it can predict: else one that still loads would refuse what another could answer. So until the first
one can, a small process stands at the socket that they share. The first worker tells it to leave, and accepts when it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import orjson

ALIVE = {b"/": {"status": "alive"}, b"/v2/health/live": {"live": True}}
NOT_READY = {"error": "the models are not ready: they are being fetched or loaded"}
REQUEST_SECONDS = 10.0


def stand_in(listener: socket.socket, door: Path) -> None:
    """Fork the process that answers on `listener` until somebody connects to `door`, a Unix socket. It dies with this one."""
    parent = os.getpid()
    if os.fork():
        return
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _die_with(parent)
        asyncio.run(_answer_until_relieved(listener, door))
    finally:
        os._exit(0)


async def relieve(door: Path) -> None:
    """Returns when nobody stands in (any more), and nothing that it accepted is left unanswered."""
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_unix_connection(door)
        await reader.read()
        writer.close()


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(0)


async def _answer_until_relieved(listener: socket.socket, door: Path) -> None:
    under_way: set[asyncio.Task[None]] = set()
    relieved = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
            async with asyncio.timeout(REQUEST_SECONDS):
                await _answer(reader, writer)
        writer.close()
        under_way.discard(task)

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http.close()
        if under_way:
            await asyncio.wait(under_way)
        writer.close()
        relieved.set()

    # The backlog is the socket's, not this process's: the workers have the same one.
    http = await asyncio.start_server(answer, sock=listener, backlog=2048)
    async with await asyncio.start_unix_server(leave, door):
        await relieved.wait()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request, one answer, and the connection ends: the next one may be a worker's."""
    method, path, *_ = (await reader.readline()).split(b" ")
    while await reader.readline() not in (b"\r\n", b"\n", b""):
        pass
    alive = ALIVE.get(path) if method in (b"GET", b"HEAD") else None
    body = orjson.dumps(NOT_READY if alive is None else alive)
    status = b"503 Service Unavailable\r\nretry-after: 1" if alive is None else b"200 OK"
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    writer.write(head % (status, len(body)) + (b"" if method == b"HEAD" else body))
    writer.write_eof()
    await reader.read(1 << 20)  # a body that nobody reads would take the answer with it
