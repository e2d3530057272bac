"""A few worker threads fed through one queue: what ThreadPoolExecutor does, without its future and locks per call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class Workers:
    """`count` daemon threads, started when first needed. A call that hangs does not keep the process alive."""

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[[], None]) -> None:
        """Run `call`, which must not raise, in a thread."""
        if len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._queue.put(call)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run `function` in a thread and wait for what it returns or raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            if future.done():  # the waiter was cancelled
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def call() -> None:
            try:
                result = function(*arguments)
            except StopIteration as stop:  # a future cannot hold it
                loop.call_soon_threadsafe(finish, None, RuntimeError(f"raised StopIteration: {stop.value}"))
            except BaseException as error:
                loop.call_soon_threadsafe(finish, None, error)
            else:
                loop.call_soon_threadsafe(finish, result, None)

        self.submit(call)
        return await future

    def close(self) -> None:
        """Let the threads end after what is queued."""
        for _ in self._threads:
            self._queue.put(None)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            call()
