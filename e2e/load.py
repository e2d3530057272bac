"""A steady load in a thread of its own: what was answered, by whom, and what failed."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from e2e.cluster import PATIENCE, until


@dataclass
class Answers:
    """All that the load saw. `values` counts predictions by their first value; `failures` are texts."""

    values: Counter[Any] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    history: list[tuple[float, Any]] = field(default_factory=list)
    failed_at: list[float] = field(default_factory=list)
    """When each failure was asked for, in the order of `failures` (time.monotonic)."""

    out: list[float] = field(default_factory=list)
    """When each request that has not been answered yet was asked for."""

    def failures_since(self, since: float) -> list[str]:
        """Those that were asked for after `since`."""
        return [text for at, text in zip(self.failed_at, self.failures, strict=True) if at >= since]

    def share(self, value: Any, since: float = 0.0, before: float = math.inf) -> tuple[int, int]:
        """How many of the answers that were asked for from `since` until `before` (time.monotonic) had this value, and how many there were."""
        recent = [seen for at, seen in self.history if since <= at < before]
        return sum(1 for seen in recent if seen == value), len(recent)

    def wait(self, value: Any, count: int = 1, since: float = 0.0) -> None:
        """Returns once so many answers that were asked for after `since` had this value."""
        self._await(lambda: self.share(value, since)[0], f"{count} answers {value}", count)

    def wait_any(self, count: int) -> float:
        """Returns once so many requests that were asked for from now on have been answered; the moment from which they count."""
        since = time.monotonic()
        self._await(lambda: self.share(None, since)[1], f"{count} answers", count)
        return since

    def _await(self, answers: Callable[[], int], what: str, count: int) -> None:
        until(lambda: (answers(), self.failures[-3:]), lambda seen: seen[0] >= count, what)

    def settled(self) -> float:
        """A moment, of now, once all that was asked for before it has been answered."""
        now = time.monotonic()
        until(lambda: min(list(self.out), default=math.inf), lambda oldest: oldest >= now, "all answered")
        return now


class Load:
    """`rate` V1 predictions a second until the `with` block ends; every tenth on a connection of its own. The rate may be changed meanwhile."""

    def __init__(self, url: str, rate: float = 100, timeout: float = 30) -> None:
        self.url, self.rate, self.timeout = url, rate, timeout
        self.answers = Answers()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        self._stop.set()
        self._thread.join(self.timeout + PATIENCE)
        assert failed or not self._thread.is_alive(), "requests are still out: nobody knows what became of them"

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=self.timeout)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            pending: set[asyncio.Task[None]] = set()
            last, due, sent = time.monotonic(), 0.0, 0
            while not self._stop.is_set():
                now = time.monotonic()
                due, last = due + (now - last) * self.rate, now
                while sent < int(due):
                    task = asyncio.create_task(self._one(session, fresh=sent % 10 == 0))
                    pending.add(task)
                    task.add_done_callback(pending.discard)
                    sent += 1
                await asyncio.sleep(0.5 / self.rate)
            await asyncio.gather(*pending)

    async def _one(self, session: aiohttp.ClientSession, *, fresh: bool) -> None:
        at = time.monotonic()
        self.answers.out.append(at)
        try:
            await self._answered(session, at, fresh=fresh)
        finally:
            self.answers.out.remove(at)

    async def _answered(self, session: aiohttp.ClientSession, at: float, *, fresh: bool) -> None:
        headers = {"connection": "close"} if fresh else {}
        try:
            async with session.post(self.url, json={"instances": [[0.0] * 4]}, headers=headers) as response:
                body = await response.text()
                if response.status != 200:
                    self._failed(at, f"{response.status}: {body[:200]}")
                    return
                value = (await response.json())["predictions"][0]
        except (aiohttp.ClientError, OSError, ValueError, LookupError) as error:
            self._failed(at, f"{type(error).__name__}: {error}")
            return
        self.answers.values[value] += 1
        self.answers.history.append((at, value))

    def _failed(self, at: float, text: str) -> None:
        self.answers.failures.append(text)
        self.answers.failed_at.append(at)
