"""Processes that leave nothing behind: each leads a session of its own, dies with its parent, and is swept up with all its descendants.

Two nets under each other. The kernel kills a direct child when its parent dies (PR_SET_PDEATHSIG). Whatever a child has started itself
is found by a mark in the environment, which descendants inherit even where they change session, and killed by `sweep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int) -> Callable[[], None]:
    """For `preexec_fn`: the kernel kills the new process as soon as the thread that started it ends (start it from the main thread)."""

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the parent died before the line above
                os._exit(1)

    return prepare


class Process:
    """A running child. Its end is noticed at once, by a pidfd where the system has them."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watch()

    @classmethod
    def start(
        cls, argv: Sequence[str], *, environment: Mapping[str, str], directory: Path | None = None, log: Path
    ) -> Process:
        """Raises OSError if the program cannot be started. Call it from the main thread."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
                # Threads of this process hold no lock that two system calls could need.
                preexec_fn=die_with_parent(os.getpid()),
            )
        return cls(popen)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return not self._ended.done()

    async def wait(self) -> int:
        """The exit code; minus the signal's number if one killed it."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """To the leader alone, as a container engine does: how its children end is its own affair."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def terminate(self, grace: float) -> int:
        """SIGTERM, `grace` seconds, SIGKILL for the whole group; the exit code."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), max(0.0, grace))
        self.kill_group()
        return await self.wait()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or a kernel before 5.3
            waiter = loop.run_in_executor(None, self._popen.wait)
            waiter.add_done_callback(lambda _: self._finish())
            return

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._finish()

        loop.add_reader(pidfd, ended)

    def _finish(self) -> None:
        code = self._popen.wait()
        if not self._ended.done():
            self._ended.set_result(code)


def marked(mark: str) -> Iterator[int]:
    """Processes whose environment has `mark` (NAME=value), without this one. Without /proc there are none to be found."""
    wanted = mark.encode()
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield pid


def sweep(mark: str) -> int:
    """Kills what carries the mark, until nothing does; returns how many there were. A zombie has no environment any more."""
    killed = 0
    for _ in range(20):
        found = list(marked(mark))
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed += len(found)
    return killed


def resident_memory(pid: int) -> int:
    """Bytes that a process and its descendants hold in memory; 0 if there is no telling.

    Pages that several of them share are counted once for each, as they are by any sum of resident sizes.
    """
    total, pids = 0, [pid]
    page = os.sysconf("SC_PAGE_SIZE")
    while pids:
        current = pids.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{current}/statm").read_text().split()[1]) * page
            for task in Path(f"/proc/{current}/task").iterdir():
                pids += [int(child) for child in (task / "children").read_text().split()]
    return total
