"""One process of the control plane: started, started again with back-off when it ends, ended when it should."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fairlead.local.node import logs
from fairlead.local.node.process import Process
from fairlead.local.node.restarts import Backoff, Run
from fairlead.local.supervisor.errors import UpError

logger = logging.getLogger(__name__)

GOOD_START = 1.0
"""Seconds that a process must hold for its first end not to count as a failure to start."""


class Child:
    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.trouble = ""
        """What is wrong with it now, in one line; empty while it runs."""
        self.changed: Callable[[], None] = lambda: None
        """Called when `trouble` changes."""
        self.log = log
        self._argv = argv
        self._environment = environment
        self._process: Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.running else None

    async def run(self) -> None:
        """Until stopped. Raises UpError if the first start fails at once: then it would fail for ever."""
        backoff = Backoff()
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._once()
            if self._stopping.is_set():
                return
            seconds = time.monotonic() - began
            if self.restarts == 0 and seconds < GOOD_START and code > 0:
                raise UpError(f"the {self.name} could not start: {self.last_words() or f'exit code {code}'}")
            backoff, delay = backoff.after(Run(seconds, was_ready=True, exit_code=code))
            when = f" in {delay:g} s" if delay else ""
            self._report(f"the {self.name} ended ({_ending(code)}), starting it again{when}; its log is {self.log}")
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except TimeoutError:
                self.restarts += 1

    async def stop(self, grace: float) -> None:
        self._stopping.set()
        if self._process is not None:
            await self._process.terminate(grace)

    def last_words(self) -> str:
        lines = [line for line in logs.tail(self.log).splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def _recovered(self, process: Process) -> None:
        """A while after a new start: the trouble is over if that process still runs."""
        if process is self._process and process.running:
            self._report("")

    def _report(self, trouble: str) -> None:
        if trouble:
            logger.warning(trouble)
        self.trouble = trouble
        self.changed()

    async def _once(self) -> int:
        logs.trim(self.log)
        try:
            self._process = Process.start(self._argv, environment=self._environment, log=self.log)
        except OSError as error:
            raise UpError(f"cannot start the {self.name} ({self._argv[0]}): {error.strerror}") from None
        if self.restarts:
            asyncio.get_running_loop().call_later(GOOD_START, self._recovered, self._process)
        code = await self._process.wait()
        self._process.kill_group()
        return code


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
