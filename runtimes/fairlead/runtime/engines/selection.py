"""Which engine `auto` means."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fairlead.runtime.errors import LoadError

RAY_NEEDS = 2 * 2**30
"""Bytes of memory limit from which Ray is worth its 0.6 GB: below, it would take over a third of the pod."""

_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def choose(wanted: str, *, ray_installed: bool, memory_limit: int | None) -> tuple[str, str]:
    """The engine's name and the reason. LoadError if what is wanted cannot be had."""
    if wanted == "process":
        return "process", "asked for"
    if wanted == "ray":
        if not ray_installed:
            raise LoadError("engine ray is asked for, but Ray is not installed: pip install 'fairlead[ray]'")
        return "ray", "asked for"
    if not ray_installed:
        return "process", "Ray is not installed"
    if memory_limit is None:
        return "process", "there is no memory limit: this is not a pod with Ray's share set aside"
    gib = memory_limit / 2**30
    if memory_limit < RAY_NEEDS:
        return "process", f"the memory limit is {gib:.1f} GiB, Ray is used from {RAY_NEEDS / 2**30:.0f} GiB"
    return "ray", f"the memory limit is {gib:.1f} GiB"


def ray_installed() -> bool:
    return importlib.util.find_spec("ray") is not None


def memory_limit() -> int | None:
    """This container's memory limit in bytes; None if it has none."""
    for path in _LIMIT_FILES:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:  # cgroup v1 says "no limit" with a number near 2^63
            return int(text)
    return None
