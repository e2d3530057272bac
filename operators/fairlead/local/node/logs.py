"""Container logs: one file for each run, `logs/{namespace}/{pod}/{container}/{restartCount}.log`, none larger than it may be.

A process writes to its file directly (append mode), so that a busy log costs the node nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

LARGEST = 16 * 2**20
KEPT = 4 * 2**20
MESSAGE_BYTES = 2048
MESSAGE_LINES = 80
"""FallbackToLogsOnError: Kubernetes' own limits."""
RUNS_KEPT = 2
"""The present run and the one before: what `kubectl logs` and `kubectl logs --previous` read."""


def log_file(directory: Path, namespace: str, pod: str, container: str, restart: int) -> Path:
    return directory / "logs" / namespace / pod / container / f"{restart}.log"


def tail(path: Path) -> str:
    """The end of a log, fit for a termination message."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MESSAGE_BYTES))
            text = file.read(MESSAGE_BYTES).decode(errors="replace")
    except OSError:
        return ""
    lines = text.splitlines()
    if size > MESSAGE_BYTES and len(lines) > 1:
        lines = lines[1:]  # the first one was cut
    return "\n".join(lines[-MESSAGE_LINES:]).strip()


def trim(path: Path, largest: int = LARGEST, kept: int = KEPT) -> None:
    """Keeps the last `kept` bytes, from the start of a line, of a file that grew beyond `largest`.

    The writer goes on at the new end, because it appends. What it writes in the microseconds between is lost.
    """
    with contextlib.suppress(OSError), path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= largest:
            return
        file.seek(size - kept)
        file.readline()
        rest = file.read()
        file.truncate(0)
        file.seek(0)
        file.write(rest)


def forget_old_runs(current: Path) -> None:
    """Deletes the logs of runs before the previous one."""
    oldest = int(current.stem) - RUNS_KEPT + 1
    for path in current.parent.glob("*.log"):
        if path.stem.isdigit() and int(path.stem) < oldest:
            path.unlink(missing_ok=True)
