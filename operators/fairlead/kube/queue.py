"""The work queue between what changes and who reconciles: client-go's, on the event loop's clock.

- A key that waits is in the queue once, however often it is added.
- A key that is being worked on is not given to a second worker; added meanwhile, it comes again when the first is done.
- A key that failed comes back after 5 ms, 10 ms, 20 ms … until it is forgotten, that is, has succeeded.
- Of several delayed adds of a key the earliest counts.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from fairlead.kube.backoff import Backoff

K = TypeVar("K", bound=Hashable)

RETRY = Backoff(base=0.005, cap=120.0, jitter=0.1)


class QueueClosed(Exception):
    """The queue gives out nothing more: the worker may go home."""


class WorkQueue(Generic[K]):
    def __init__(self, backoff: Backoff = RETRY, waited: Callable[[float], object] = lambda _: None) -> None:
        """`waited` is told, for each key given out, the seconds that it was ready before."""
        self._backoff = backoff
        self._waited = waited
        self._ready: deque[K] = deque()
        self._wanted: dict[K, float] = {}  # keys to be worked on, in `_ready` or again after `done`, and since when
        self._running: set[K] = set()
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._getters: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def __len__(self) -> int:
        """Keys that wait for a worker (not those delayed)."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        return len(self._due)

    def add(self, key: K) -> None:
        if self._closed or key in self._wanted:
            return
        self._wanted[key] = asyncio.get_running_loop().time()
        if key not in self._running:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Adds the key in `seconds`, unless an earlier such add is pending."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        when = asyncio.get_running_loop().time() + seconds
        if when >= self._due.get(key, float("inf")):
            return
        self._due[key] = when
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, key))
        self._arm()

    def retry(self, key: K) -> float:
        """Adds the key after its next back-off; returns the seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(failures)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key has succeeded, or is given up: its next failure is a first one."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key, to be handed back with `done`. Raises QueueClosed when the queue is closed."""
        while not self._ready:
            if self._closed:
                raise QueueClosed
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                if getter.done() and not getter.cancelled():
                    self._wake()  # it was woken for a key, and leaves: the next one takes it
                else:
                    self._getters.remove(getter)
                raise
        key = self._ready.popleft()
        self._running.add(key)
        self._idle.clear()
        self._waited(asyncio.get_running_loop().time() - self._wanted.pop(key))
        return key

    def done(self, key: K) -> None:
        self._running.discard(key)
        if key in self._wanted:
            self._push(key)
        if not self._running:
            self._idle.set()

    def close(self) -> None:
        """Takes nothing and gives out nothing any more. What waits is dropped: whoever works next begins with every key."""
        self._closed = True
        self._ready.clear()
        self._wanted.clear()
        self._due.clear()
        self._heap.clear()
        self._arm()
        while self._getters:
            self._wake()

    async def drained(self) -> None:
        """Returns when no key is being worked on."""
        await self._idle.wait()

    def _push(self, key: K) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _arm(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = asyncio.get_running_loop().call_at(self._heap[0][0], self._fire)

    def _fire(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == when:  # else an earlier add has overtaken it
                del self._due[key]
                self.add(key)
        self._arm()
