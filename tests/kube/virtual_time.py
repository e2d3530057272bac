"""An event loop in which waiting takes no time: when nothing is ready, its clock jumps to the next thing that is due.

For code that talks to fakes only: with real sockets the clock would jump while the kernel still works.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any


class Deadlock(Exception):
    """Every task waits for something that nothing will bring about."""


class _NoSelector(selectors.DefaultSelector):
    """Never waits: what the loop would wait is added to its clock instead."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Deadlock("all tasks wait, and no timer is set")
        if not ready and timeout:
            self.skipped += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._no_selector = _NoSelector()
        super().__init__(self._no_selector)

    def time(self) -> float:
        # A nanosecond more, so that a timer at exactly this time is due and not a rounding error away.
        return 1000.0 + self._no_selector.skipped + 1e-9


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test in virtual time. An hour passes in milliseconds; a deadlock fails at once."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def settle() -> None:
    """Lets everything run that can run now, without time passing."""
    for _ in range(50):
        await asyncio.sleep(0)
