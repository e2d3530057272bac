"""Several server processes on the same ports, and the process that watches over them.

All accept from one listening socket, made before they were forked: when one dies, connections that wait in the backlog
are taken by the others. What it had accepted already is lost with it, and so are connections that wait in its gRPC
library's own queue: only a proxy in front (the gateway, or the one that engine `ray` brings) can send those again.
Each answers `/metrics` for all of them, by asking its siblings over Unix sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from fairlead.runtime.engines import waiting
from fairlead.runtime.errors import LoadError

log = logging.getLogger(__name__)

RESTART_DELAY = 1.0
"""Seconds before a worker that died young is started again."""
YOUNG = 10.0


DOOR = "waiting.sock"


class Siblings:
    """What a worker has to do with the others: serve its metrics to them, fetch theirs, and begin to accept."""

    def __init__(self, directory: Path, index: int, count: int) -> None:
        self._directory = directory
        self._index = index
        self._count = count

    def _path(self, index: int) -> str:
        return str(self._directory / f"{index}.sock")

    async def serve(self, snapshot: Callable[[], Any]) -> asyncio.Server:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(orjson.dumps(snapshot()))
            writer.close()

        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(self._index))  # noqa: PTH108 - left by the one before, if that died
        return await asyncio.start_unix_server(answer, self._path(self._index))

    async def may_accept(self) -> None:
        """Wait until nobody stands in for workers that load."""
        await waiting.relieve(self._directory / DOOR)

    async def snapshots(self) -> list[Any]:
        """Of the others; one that is starting is left out."""
        others = [index for index in range(self._count) if index != self._index]
        answers = await asyncio.gather(*(self._ask(index) for index in others))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, index: int) -> Any:
        with contextlib.suppress(OSError, TimeoutError, orjson.JSONDecodeError):
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_unix_connection(self._path(index))
                try:
                    return orjson.loads(await reader.read())
                finally:
                    writer.close()
        return None


def run(directory: Path, count: int, serve: Callable[[Siblings], None]) -> None:
    """Fork `count` workers that call `serve`, and keep that many until SIGTERM or SIGINT, which they are given too.

    Raises LoadError if a worker says that its model cannot be loaded: the others have the same.
    """
    _Supervisor(count, lambda index: serve(Siblings(directory, index, count)), directory / "reason").run()


class _Supervisor:
    def __init__(self, count: int, work: Callable[[int], None], reason: Path) -> None:
        self._work = work
        self._reason = reason
        self._count = count
        self._workers: dict[int, tuple[int, float]] = {}
        self._stopping = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._pass_on)
        signal.signal(signal.SIGINT, self._pass_on)
        for index in range(self._count):
            self._fork(index)
        while self._workers:
            pid, status = os.waitpid(-1, 0)
            if pid in self._workers:
                self._ended(pid, os.waitstatus_to_exitcode(status))

    def _fork(self, index: int) -> None:
        pid = os.fork()
        if pid:
            self._workers[pid] = (index, time.monotonic())
            return
        code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._work(index)
            code = 0
        except LoadError as error:
            self._reason.write_text(error.message)
            code = LOAD_FAILED
        except BaseException:
            log.exception("worker %d", index)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _ended(self, pid: int, code: int) -> None:
        index, started = self._workers.pop(pid)
        if self._stopping:
            return
        if code == LOAD_FAILED:
            self._pass_on(signal.SIGTERM, None)
            while self._workers:
                self._workers.pop(os.waitpid(-1, 0)[0], None)
            raise LoadError(self._reason.read_text())
        log.warning("worker %d (pid %d) ended with code %d and is replaced", index, pid, code)
        if time.monotonic() - started < YOUNG:
            time.sleep(RESTART_DELAY)
        if not self._stopping:  # the signal may have come meanwhile
            self._fork(index)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


LOAD_FAILED = 3
"""A worker's exit code when its model cannot be loaded."""
