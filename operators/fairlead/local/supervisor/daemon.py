"""`fairlead up -d` and `fairlead down`: the same supervisor, in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from fairlead.local.supervisor.errors import UpError
from fairlead.local.supervisor.home import Home, Running

LOOK_EVERY = 0.02
START_PATIENCE = 60.0
STOP_PATIENCE = 30.0


def start(home: Home, arguments: Sequence[str]) -> Running:
    """Starts `fairlead up ARGUMENTS` in a session of its own and waits until it is up; raises UpError with its last words."""
    home.make()
    with home.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fairlead.cli", "up", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_PATIENCE
    while True:
        running = home.running()
        if running is not None and running.pid == process.pid:
            return running
        if process.poll() is not None:
            lines = home.log.read_text(errors="replace").strip().splitlines()
            raise UpError(lines[-1].removeprefix("error: ") if lines else f"exit code {process.returncode}")
        if time.monotonic() > deadline:
            process.terminate()
            raise UpError(f"the cluster was not up after {START_PATIENCE:g} s; see {home.log}")
        time.sleep(LOOK_EVERY)


def stop(home: Home) -> int | None:
    """Ends the cluster of a directory and waits for its end; its process, or None if there was none. Raises UpError."""
    pid = home.holder()
    if pid is None:
        return None
    if pid == 0:
        raise UpError(f"{home.directory} is locked by a process that has not said which it is; try again")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return pid
    except PermissionError:
        raise UpError(f"process {pid} is not yours; its owner can end it with `fairlead down`") from None
    deadline = time.monotonic() + STOP_PATIENCE
    while home.holder() is not None:
        if time.monotonic() > deadline:
            raise UpError(
                f"process {pid} has not ended after {STOP_PATIENCE:g} s; `kill -9 {pid}` ends it, and all that it started"
            )
        time.sleep(LOOK_EVERY)
    return pid
