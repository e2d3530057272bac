"""Server processes of a benchmark: started so that they end with it, measured from outside, stopped with all they started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_us() -> None:
    """SIGTERM and SIGINT unwind the benchmark, so that what it started is stopped; orphans of its children become its own."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _: sys.exit(128 + caught))
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def start(command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, nice: int = 0) -> Process:
    """A process that the kernel kills when this one dies, however it dies."""

    def before() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.nice(nice)

    with log.open("ab") as file:
        return Process(
            subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env=None if environment is None else dict(environment),
                preexec_fn=before,
            ),
            log,
        )


class DidNotStart(Exception):
    """A server ended, or did not answer in time; its last lines."""


class Process:
    """A process and its descendants."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen = popen
        self.log = log

    @property
    def pid(self) -> int:
        return self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: int) -> None:
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def tree(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for pid, fields in _stats():
            children.setdefault(int(fields[1]), []).append(pid)
        found = [self.pid]
        for parent in found:
            found += children.get(parent, [])
        return found

    def proportional_set_size(self) -> float:
        """MB of all its processes, shared pages divided among those who share them."""
        return self._memory("Pss:")

    def anonymous(self) -> float:
        """The part of it that is no file's: what the processes have written, and other users of a library do not change."""
        return self._memory("Pss_Anon:")

    def _memory(self, field: str) -> float:
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith(field))
        return total / 1024

    def cpu_seconds(self) -> float:
        """Time that all its threads have had a core so far. Threads that have ended are not counted."""
        nanoseconds = 0
        for pid in self.tree():
            for schedule in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    nanoseconds += int(schedule.read_text().split()[0])
        return nanoseconds / 1e9

    def open_files(self) -> int:
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                total += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return total

    def stop(self, seconds: float = 60.0) -> int | None:
        """SIGTERM to the main process; its exit code, or None if it had to be killed. Then whatever it left."""
        self.signal(signal.SIGCONT)
        pids = self.tree()
        self._popen.terminate()
        try:
            code: int | None = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()
        return code

    def last_lines(self, count: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def _stats() -> Iterator[tuple[int, list[str]]]:
    """Of every process, the fields of /proc/PID/stat from its third (the state) on."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until(
    what: str, process: Process, ready: Callable[[], bool], *, seconds: float = 120.0, pause: float = 0.01
) -> None:
    """Call `ready` until it is true. Raises DidNotStart."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not process.alive():
            raise DidNotStart(f"{what} ended:\n{process.last_lines()}")
        if ready():
            return
        time.sleep(pause)
    raise DidNotStart(f"{what} took more than {seconds:g} s:\n{process.last_lines()}")
