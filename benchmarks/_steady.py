"""A steady load, and what became of each request: HTTP/1.1 over raw streams, in a thread of its own.

Open loop: a request is sent when it is due, however the others fare, so a gateway that hangs cannot hide by slowing its clients down.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

TIMEOUT = 10.0
"""Seconds after which a request counts as hanging, which is a failure."""
MOST = 1000
"""Requests under way at a time; more fail at once, so that what hangs does not take all the files of proxies on the way."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Outcome:
    answers: Counter[bytes] = field(default_factory=Counter)
    """Bodies of the 200s."""
    failures: list[str] = field(default_factory=list)
    hanging: int = 0
    """Of the failures, those that had no answer in time."""
    slowest: float = 0.0
    """Seconds, of the requests that were answered."""

    @property
    def total(self) -> int:
        return sum(self.answers.values()) + len(self.failures)

    def summary(self) -> str:
        """For a person who reads the benchmark's output: how many failed of how many, and how."""
        kinds = Counter(text.partition(" s: ")[2] for text in self.failures)
        how = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common(4))
        when = f" ({self.failures[0].partition(':')[0]} … {self.failures[-1].partition(':')[0]})" if kinds else ""
        return f"{len(self.failures)} of {self.total} failed, slowest answer {self.slowest:.2f} s{when} {how}".rstrip()


class Steady:
    """Sends `request` at a rate until the `with` block ends: on kept connections, or `fresh`, each on a new one."""

    def __init__(self, port: int, request: bytes, rate: float, *, fresh: bool = False) -> None:
        self.outcome = Outcome()
        self._port, self._request, self._rate, self._fresh = port, request, rate, fresh
        self._idle: list[Connection] = []
        self._under_way = 0
        self._stop = threading.Event()
        self._began = 0.0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT + 5)

    def take(self) -> Outcome:
        """What has been counted since the last time."""
        taken, self.outcome = self.outcome, Outcome()
        return taken

    async def _run(self) -> None:
        self._began = time.monotonic()
        sent = 0
        async with asyncio.TaskGroup() as requests:
            while not self._stop.is_set():
                due = int((time.monotonic() - self._began) * self._rate)
                for _ in range(sent, due):
                    requests.create_task(self._one())
                sent = max(sent, due)
                await asyncio.sleep(1 / self._rate)
        for _, writer in self._idle:
            writer.close()

    async def _one(self) -> None:
        began = time.monotonic()
        if self._under_way >= MOST:
            self._failed(began, f"{MOST} others are under way")
            return
        self._under_way += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                status, body = await self._exchange()
        except TimeoutError:
            self.outcome.hanging += 1
            self._failed(began, "no answer")
            return
        except (OSError, EOFError, ValueError) as error:
            self._failed(began, f"{type(error).__name__} {error}")
            return
        finally:
            self._under_way -= 1
        if status != 200:
            self._failed(began, f"{status} {body[:120].decode(errors='replace')}")
            return
        self.outcome.answers[body] += 1
        self.outcome.slowest = max(self.outcome.slowest, time.monotonic() - began)

    def _failed(self, began: float, how: str) -> None:
        self.outcome.failures.append(f"{began - self._began:.2f} s: {how}")

    async def _exchange(self) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        keep = False
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            fields = dict(line.split(b":", 1) for line in head.split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields[b"content-length"]))
            keep = fields.get(b"connection", b"").strip() != b"close" and not self._fresh
            return int(head.split(b" ", 2)[1]), body
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _connection(self) -> Connection:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)
