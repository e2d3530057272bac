"""More models than fit into memory, in one server: each is loaded when it is asked for, and the one longest unused goes.

The bound holds at every moment: a model takes its place before it begins to load, and leaves it when it is unloaded. What a
model has accepted it finishes first. Requests for a model that is on its way wait for it, and share one load.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

Act = Callable[[str], Awaitable[None]]


class Multiplexer:
    """Decides who is loaded; `load` and `unload` do it. `load` may raise: then the model takes no place."""

    def __init__(self, bound: int, load: Act, unload: Act) -> None:
        self._load_model = load
        self._unload_model = unload
        self._places = asyncio.Semaphore(bound)
        self._loaded: dict[str, None] = {}
        """The longest unused first."""
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._waiting = 0
        """Loads that wait for a place."""
        self._asked: Counter[str] = Counter()
        """Requests that wait for a model: it does not leave before they have been admitted."""

    def used(self, name: str) -> None:
        if name in self._loaded:
            del self._loaded[name]
            self._loaded[name] = None

    async def want(self, name: str) -> None:
        """Returns when it is loaded; what the caller does before its next await it does to a loaded model."""
        self._asked[name] += 1
        try:
            while name not in self._loaded:
                # One who waits may be cancelled; the load goes on for the others.
                await asyncio.shield(self._loads.get(name) or self._begin(name))
            self.used(name)
        finally:
            self._asked[name] -= 1
            if not self._asked[name]:
                del self._asked[name]
            asyncio.get_running_loop().call_soon(self._evict)

    async def load(self, name: str) -> None:
        """As `want`, but a loaded model is loaded anew, in its place."""
        if name in self._loaded:
            await self._load_model(name)
        else:
            await self.want(name)

    async def unload(self, name: str) -> None:
        if name in self._loaded:
            self._leave(name)
        if name in self._leaving:
            await asyncio.shield(self._leaving[name])
        else:
            await self._unload_model(name)

    def _begin(self, name: str) -> asyncio.Task[None]:
        task = self._loads[name] = asyncio.create_task(self._load(name))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # its waiters may all be gone
        return task

    async def _load(self, name: str) -> None:
        try:
            if name in self._leaving:
                await asyncio.shield(self._leaving[name])
            self._waiting += 1
            self._evict()
            try:
                await self._places.acquire()
            finally:
                self._waiting -= 1
            try:
                await self._load_model(name)
            except BaseException:
                self._places.release()
                raise
            self._loaded[name] = None
        finally:
            del self._loads[name]

    def _evict(self) -> None:
        """Let go of as many as others wait for, and no one who is asked for."""
        wanted = self._waiting - len(self._leaving) if self._places.locked() else 0
        for name in [name for name in self._loaded if name not in self._asked][: max(0, wanted)]:
            self._leave(name)

    def _leave(self, name: str) -> None:
        del self._loaded[name]
        self._leaving[name] = asyncio.create_task(self._unload(name))

    async def _unload(self, name: str) -> None:
        try:
            await self._unload_model(name)
        finally:
            del self._leaving[name]
            self._places.release()
