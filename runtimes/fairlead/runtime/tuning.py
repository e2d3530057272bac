"""What a model server sets for its whole process: how memory of large tensors is kept, and how often threads take turns."""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH_INTERVAL = 0.0005
"""Seconds for which a thread may keep the interpreter while another waits. Python's 5 ms are what every request would be
delayed by that comes while a model runs Python code in its thread."""

MMAP_THRESHOLD = 16 << 20
TRIM_THRESHOLD = 32 << 20
"""Bytes. glibc gives a body or tensor of more than 128 KiB pages of its own, or returns those at the heap's end, as soon as it
is freed; the kernel then clears new ones for the next request, page fault by page fault: a third of the time of a
request of 600 KB. With these, up to 32 MB for each arena stay with the process."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def apply() -> None:
    """A second call changes nothing. What the user set by glibc's own variables is left as it is."""
    sys.setswitchinterval(min(SWITCH_INTERVAL, sys.getswitchinterval()))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
