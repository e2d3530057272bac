"""Logs of pods: files that the process node writes below the server's directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from . import errors

POLL = 0.2
"""Seconds between looks at a followed file."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    container: str = ""
    follow: bool = False
    previous: bool = False
    tail: int | None = None
    limit_bytes: int | None = None


def log_file(root: Path, pod: dict[str, Any], options: LogOptions) -> Path:
    """`{root}/{namespace}/{pod}/{container}/{restartCount}.log`. Raises StatusError 400, as a kubelet would."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    containers: list[str] = [c["name"] for c in pod["spec"]["containers"]]
    initial: list[str] = [c["name"] for c in pod["spec"].get("initContainers") or ()]
    container = options.container or (containers[0] if len(containers) == 1 else "")
    if not container:
        raise errors.bad_request(f"a container name must be specified for pod {name}, choose one of: {containers}")
    if container not in containers + initial:
        raise errors.bad_request(f"container {container} is not valid for pod {name}")
    state = container_state(pod, container)
    restarts = int(state.get("restartCount", 0)) - (1 if options.previous else 0)
    path = root / str(namespace) / str(name) / container / f"{restarts}.log"
    if options.previous and (restarts < 0 or not path.exists()):
        raise errors.bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
    if not path.exists() and not options.follow:
        reason = ((state.get("state") or {}).get("waiting") or {}).get("reason") or "ContainerCreating"
        text = f'container "{container}" in pod "{name}" is waiting to start: {reason}'
        raise errors.bad_request(text)
    return path


def container_state(pod: dict[str, Any], container: str) -> dict[str, Any]:
    status = pod.get("status", {})
    states = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    return next((state for state in states if state.get("name") == container), {})


def tail_offset(path: Path, lines: int) -> int:
    """Where the last `lines` lines of a file begin."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        position, found = end, 0
        if lines <= 0:
            return end
        while position > 0:
            step = min(64 * 1024, position)
            position -= step
            file.seek(position)
            block = file.read(step)
            at = len(block) - 1 if position + step == end and block.endswith(b"\n") else len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found >= lines:
                    return position + at + 1
    return 0


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


async def read_log(path: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log in chunks; with follow until `running()` is false and everything was read."""
    while (file := _opened(path)) is None:
        if not (options.follow and running()):
            return
        await asyncio.sleep(POLL)
    left = options.limit_bytes if options.limit_bytes is not None else 1 << 62
    with file:
        if options.tail is not None:
            file.seek(tail_offset(path, options.tail))
        while left > 0:
            was_running = options.follow and running()
            if file.tell() > os.fstat(file.fileno()).st_size:
                file.seek(0)  # the node cut the file; what it kept comes again rather than nothing
            chunk = file.read(min(left, 64 * 1024))
            if chunk:
                left -= len(chunk)
                yield chunk
            elif was_running:
                await asyncio.sleep(POLL)
            else:
                return
