"""What a start was made of: one phase after the other, from the start of the process to ready, in seconds of the wall clock.

    import    Python and the server's own modules; with the engine ray also Ray, up to the replica's server
    download  the wait for the model's files, as far as imports had not covered it
    load      the model, with the framework's imports that had not been done meanwhile
    ready     what was left: opening the doors

A phase that took place in another process of the pod, as the download does with the engine ray, is part of the one that waited for it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

BEGAN_ENV = "FAIRLEAD_PROCESS_STARTED"
"""When the pod's first process started, in seconds since the epoch, for those that it starts."""


class Startup:
    def __init__(self, began: float) -> None:
        self.began = began
        self.phases: dict[str, float] = {}
        self._last = began

    def done(self, phase: str) -> None:
        """The phase ends now and the next begins. Only the first time counts: models may be loaded again later."""
        now = time.time()
        if phase not in self.phases:
            self.phases[phase] = max(0.0, now - self._last)
            self._last = now


def process_started() -> float:
    """Seconds since the epoch; that of the pod's first process, where it told. Now, where the system does not say."""
    told = os.environ.get(BEGAN_ENV)
    if told is not None:
        return float(told)
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        began = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, AttributeError):  # no /proc, or not Linux
        began = time.time()
    return began


def hand_down() -> None:
    """To the processes that this one starts."""
    os.environ[BEGAN_ENV] = f"{STARTUP.began:.3f}"


STARTUP = Startup(process_started())
"""This process's."""
