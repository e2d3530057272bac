"""What HAProxy answers on its runtime socket, read. Pure.

Its tables have a hundred columns, and a line for each server: with a thousand services, all of them as Python's dicts would be more than everything else that the agent holds.
Those that are wanted stand before the first that may be quoted, so a line is split there and no further; that is also eight times as fast as the csv module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fairlead.gateway.state import HANDOVER, HOLD, Admin, Slot

_FMAINT, _CMAINT, _DRAIN = 0x01, 0x04, 0x08
"""Bits of srv_admin_state: maintenance by the socket, by the configuration; drained."""


@dataclass(frozen=True, slots=True)
class BackendStats:
    """Since HAProxy's start, but for `current` (in a pod or queued) and `queued`."""

    current: int
    queued: int
    requests: int
    responses: int
    errors: int
    """Responses with 5xx, HAProxy's own included."""


class Load(NamedTuple):
    """Of one server."""

    limit: int
    """Requests that it may have at a time; 0: any number."""
    busy: int
    """Requests that it has, the waiting ones included."""


def info(answer: str) -> dict[str, str]:
    """Of `show info`."""
    return {key: value.strip() for key, _, value in (line.partition(":") for line in answer.splitlines())}


def entries(answer: str) -> dict[str, str]:
    """Of `show map`."""
    return {key: value for _, key, value in (line.split(" ", 2) for line in answer.splitlines() if line)}


def held(answer: str) -> dict[str, int]:
    """Of `show held`, which is our own: requests that wait for a first pod, by backend."""
    return {backend: int(count) for backend, count in (line.split() for line in answer.splitlines() if line)}


def backend_stats(answer: str) -> dict[str, BackendStats]:
    """Of `show stat`, by backend."""
    responses = ("hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_other")
    found = {}
    for name, *numbers in _rows(answer, "pxname", "scur", "qcur", "req_tot", "hrsp_5xx", *responses):
        current, queued, requests, failed, *others = map(int, numbers)
        found[name] = BackendStats(current, queued, requests, failed + sum(others), failed)
    return found


def loads(answer: str) -> dict[tuple[str, str], Load]:
    """Of `show stat`, by backend and server."""
    return {
        (backend, server): Load(int(limit or 0), int(current) + int(queued))
        for backend, server, limit, current, queued in _rows(answer, "pxname", "svname", "slim", "scur", "qcur")
    }


def servers(answer: str, load: Mapping[tuple[str, str], Load]) -> tuple[dict[str, list[Slot]], set[str]]:
    """Of `show servers state`: the slots of each backend, and the backends whose server `hold` is in use."""
    backends: dict[str, list[Slot]] = {}
    returning: set[str] = set()
    shared: dict[Slot, Slot] = {}  # most are spare, and the same
    for line in answer.splitlines()[2:]:
        fields = line.split()
        if len(fields) < 19:
            continue
        backend, server, admin = fields[1], fields[3], _admin(int(fields[6]))
        if backend == HANDOVER:
            continue
        if server == HOLD:
            if admin == "ready":
                returning.add(backend)
            continue
        limit, busy = load[backend, server]
        slot = Slot(fields[4], int(fields[18]), admin, limit, busy)
        backends.setdefault(backend, []).append(shared.setdefault(slot, slot))
    return backends, returning


def _rows(answer: str, *columns: str) -> Iterator[tuple[str, ...]]:
    """These columns of each line; of an answer that is no table (`No such proxy.`) there are none."""
    header, *lines = answer.splitlines() or [""]
    if not header.startswith("# "):
        return
    names = header.removeprefix("# ").split(",")
    wanted = [names.index(column) for column in columns]
    last = max(wanted) + 1
    for line in lines:
        if line:
            fields = line.split(",", last)
            yield tuple(fields[column] for column in wanted)


def _admin(bits: int) -> Admin:
    if bits & _FMAINT:
        return "maint"
    return "drain" if bits & _DRAIN else "ready"
