"""When the supervisor is killed (kill -9, out of memory), someone must clear up what its children had started themselves.

A fork of the supervisor, made while it is small, waits for the other end of a pipe to close. The kernel does that however the supervisor
ends; then all that carries the cluster's mark in its environment is killed.
"""

from __future__ import annotations

import gc
import os
import signal

from fairlead.local.node.process import sweep


def guard(mark: str) -> None:
    """Starts the watchdog for this process. `mark` is NAME=value. Call it before there are threads or an event loop."""
    if not hasattr(os, "fork"):
        return
    reading, writing = os.pipe()
    os.set_inheritable(writing, False)
    gc.freeze()  # keeps the two processes' memory shared
    if os.fork() != 0:
        os.close(reading)
        return
    try:
        os.close(writing)
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _release_standard_streams()
        os.read(reading, 1)
        sweep(mark)
    finally:
        os._exit(0)


def _release_standard_streams() -> None:
    """So that whoever reads the supervisor's output sees its end when the supervisor ends."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
