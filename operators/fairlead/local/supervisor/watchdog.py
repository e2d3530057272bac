"""When the supervisor is killed (kill -9, out of memory), someone must clear up what its children had started themselves.

A fork of the supervisor, made while it is small, waits for the other end of a pipe to close. The kernel does that however the supervisor
ends; then all that carries the cluster's mark in its environment is killed.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Iterator

from fairlead.local.node.process import sweep

ALL_WELL = b"."


@contextlib.contextmanager
def guarded(mark: str) -> Iterator[None]:
    """A watchdog over this process while the block runs; at its end there is nothing to clear up, and the watchdog goes first.

    `mark` is NAME=value. Enter it before there are threads or an event loop.
    """
    reading, writing = os.pipe()
    gc.freeze()  # keeps the two processes' memory shared
    watchdog = os.fork()
    if watchdog == 0:
        try:
            os.close(writing)
            _watch(reading, mark)
        finally:
            os._exit(0)
    os.close(reading)
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, ALL_WELL)
        os.close(writing)
        os.waitpid(watchdog, 0)


def _watch(reading: int, mark: str) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _release_standard_streams()
    if os.read(reading, 1) != ALL_WELL:
        sweep(mark)


def _release_standard_streams() -> None:
    """So that whoever reads the supervisor's output sees its end when the supervisor ends."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
