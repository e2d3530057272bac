"""The commands that lead HAProxy from what it knows to what it should serve, in an order that loses no request. Pure.

A backend of the pool is lent to an upstream (the map `upstreams` says which to which) and its servers to endpoints.
What is not there yet is added from the inside out, servers before weights before hosts; what goes is taken away from the outside in.
An endpoint that leaves is drained: its server is free for another one only when its last request has ended.
A backend's last endpoint has also those that it has refused: HAProxy counts them nowhere, and tries them again after a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from fairlead.gateway.routes import Endpoint, RouteTable, Split, Transport, Upstream
from fairlead.gateway.state import (
    AddEntry,
    Command,
    DeleteEntry,
    SetAddress,
    SetAdmin,
    SetEntry,
    SetMaxconn,
    SetReturning,
    Slot,
    State,
)

TRIED_AGAIN = 2.0
"""Seconds in which HAProxy has surely tried again a request that a server refused: it pauses for one."""

Server = tuple[str, int]
"""A backend and the number of its slot."""


@dataclass(slots=True)
class Plan:
    commands: list[Command] = field(default_factory=list)
    missing_backends: dict[Transport, int] = field(default_factory=dict)
    """Per transport: backends that the pool lacks."""
    missing_slots: dict[str, int] = field(default_factory=dict)
    """Per backend: servers that it lacks."""
    draining: bool = False
    """Some server waits for its last request: plan again with fresh numbers."""
    settled: dict[str, Upstream | None] = field(default_factory=dict)
    """Per backend: the upstream whose endpoints it serves just so."""
    left: dict[Server, float] = field(default_factory=dict)
    """When servers that are being drained were taken out of the balancing: for the next plan."""

    @property
    def needs_reload(self) -> bool:
        return bool(self.missing_backends or self.missing_slots)


def plan(state: State, table: RouteTable, before: Plan | None = None, *, now: float = 0.0) -> Plan:
    """`before`: the plan whose commands the state has had last: an upstream that is still the same object needs no look at its servers, and
    servers that it drained may not be done yet. `now`: seconds of any clock, the same one for all plans."""
    before = before or Plan()
    result = Plan(left={server: left for server, left in before.left.items() if now - left <= TRIED_AGAIN})
    lent = {upstream: backend for backend, upstream in state.maps["upstreams"].items() if backend in state.backends}
    unlent = {t: _unlent(state, t) for t in Transport}
    for upstream in table.upstreams.values():
        if upstream.key not in lent:
            backend = next(unlent[upstream.transport], None)
            if backend is None:
                result.missing_backends[upstream.transport] = result.missing_backends.get(upstream.transport, 0) + 1
            else:
                lent[upstream.key] = backend

    wanted = _wanted_maps(table, lent)
    for key, backend in lent.items():
        target = table.upstreams.get(key)
        if (target is not None and before.settled.get(backend) is target) or _place(
            result, backend, state.backends[backend], target, returning=backend in state.returning, now=now
        ):
            result.settled[backend] = target
        if target is None and not all(slot.free for slot in state.backends[backend]):
            # Still finishing requests: keep its name and its timeout until it can be lent to another.
            wanted["upstreams"][backend] = key
            wanted["timeouts"][backend] = state.maps["timeouts"].get(backend, "60000")
            if backend in state.maps["holds"]:
                wanted["holds"][backend] = state.maps["holds"][backend]

    # A change concerns one or two of the maps; with a thousand services the others are many thousand entries.
    names = ("upstreams", "timeouts", "holds", "troubles", "http", "grpc", "hosts", "paths")
    inside_out = [name for name in names if state.maps[name] != wanted[name]]
    for name in inside_out:
        result.commands.extend(_additions(name, state.maps[name], wanted[name]))
    for name in reversed(inside_out):
        result.commands.extend(DeleteEntry(name, key) for key in state.maps[name].keys() - wanted[name].keys())
    return result


def split_text(split: Split, lent: Mapping[str, str]) -> str:
    """A backend's name, or the total weight and each backend with the sum of the weights up to it: `100:h1-0001=80,h1-0002=100`."""
    present = [(lent[upstream], weight) for upstream, weight in split if upstream in lent]
    if len(present) < 2:
        return "".join(backend for backend, _ in present)
    total, arms = 0, []
    for backend, weight in present:
        total += weight
        arms.append(f"{backend}={total}")
    return f"{total}:{','.join(arms)}"


def split_weights(text: str) -> dict[str, int]:
    """The backends and weights of a `split_text`."""
    total, _, arms = text.rpartition(":")
    if not total:
        return {arms: 1} if arms else {}
    weights, before = {}, 0
    for arm in arms.split(","):
        backend, _, upto = arm.partition("=")
        weights[backend] = int(upto) - before
        before = int(upto)
    return weights


def _unlent(state: State, transport: Transport) -> Iterator[str]:
    taken = state.maps["upstreams"]
    for backend, slots in state.backends.items():
        if backend.startswith(f"{transport}-") and backend not in taken and all(slot.free for slot in slots):
            yield backend


def _wanted_maps(table: RouteTable, lent: Mapping[str, str]) -> dict[str, dict[str, str]]:
    lent = {key: backend for key, backend in lent.items() if key in table.upstreams}
    backends = {backend: table.upstreams[key] for key, backend in lent.items()}
    splits = {
        transport: {
            route: text for route, split in table.splits[transport].items() if (text := split_text(split, lent))
        }
        for transport in Transport
    }
    return {
        "hosts": table.hosts,
        "paths": table.paths,
        "http": splits[Transport.HTTP],
        "grpc": splits[Transport.GRPC],
        "upstreams": {backend: upstream.key for backend, upstream in backends.items()},
        "timeouts": {backend: str(max(1, round(upstream.timeout * 1000))) for backend, upstream in backends.items()},
        "holds": {
            backend: str(round(upstream.hold * 1000))
            for backend, upstream in backends.items()
            if upstream.hold is not None
        },
        "troubles": {route: quote(text, safe="") for route, text in table.troubles.items()},
    }


def _additions(name: str, current: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[Command]:
    for key, value in wanted.items():
        if key not in current:
            yield AddEntry(name, key, value)
        elif current[key] != value:
            yield SetEntry(name, key, value)


def _place(
    result: Plan, backend: str, slots: list[Slot], upstream: Upstream | None, *, returning: bool, now: float
) -> bool:
    """Give each ready endpoint a server, and take the servers of all others out. Returns whether there was, and is, nothing to do."""
    begun, leaving = len(result.commands), False
    ready = upstream.ready if upstream else frozenset()
    maxconn = upstream.concurrency if upstream else 0
    at: dict[Endpoint, int] = {}
    for number, slot in enumerate(slots):
        endpoint = Endpoint(slot.address, slot.port)
        if endpoint in ready and endpoint not in at:
            at[endpoint] = number
    free = [number for number, slot in enumerate(slots) if slot.free and number not in at.values()]
    for endpoint in sorted(ready):
        if endpoint not in at:
            if not free:
                result.missing_slots[backend] = result.missing_slots.get(backend, 0) + 1
                continue
            at[endpoint] = free.pop(0)
            result.commands.append(SetAddress(backend, at[endpoint], endpoint.address, endpoint.port))
        number = at[endpoint]
        if slots[number].maxconn != maxconn:
            result.commands.append(SetMaxconn(backend, number, maxconn))
        if slots[number].admin != "ready":
            result.commands.append(SetAdmin(backend, number, "ready"))
    if at and not returning:
        result.commands.append(SetReturning(backend, on=True))
    # Where another server is up, a request that was refused is tried again at once.
    retrying = [] if at else [number for number in range(len(slots)) if (backend, number) in result.left]
    if returning and not at and not retrying and not any(slot.busy or slot.admin == "ready" for slot in slots):
        result.commands.append(SetReturning(backend, on=False))
    for number, slot in enumerate(slots):
        if number in at.values():
            continue
        if slot.admin == "ready":
            result.commands.append(SetAdmin(backend, number, "drain"))
            result.left[backend, number] = now
            leaving = True
        elif number in retrying:
            leaving = True
        elif slot.admin == "drain" and slot.busy == 0:
            result.commands.append(SetAdmin(backend, number, "maint"))
        elif slot.busy:
            leaving = True
    result.draining |= leaving
    return not leaving and len(result.commands) == begun and backend not in result.missing_slots


def grown(state: State, needs: Plan, *, spare_slots: int) -> State:
    """The state with room for what was missing: pools and slots at least double, so that n additions cost log n reloads."""
    larger = state.copy()
    for transport, missing in needs.missing_backends.items():
        present = sum(backend.startswith(f"{transport}-") for backend in larger.backends)
        for number in range(present, present + max(present, missing)):
            larger.backends[backend_name(transport, number)] = [Slot()] * spare_slots
    for backend, missing in needs.missing_slots.items():
        larger.backends[backend].extend([Slot()] * max(len(larger.backends[backend]), missing))
    return larger


def backend_name(transport: Transport, number: int) -> str:
    return f"{transport}-{number + 1:04d}"


def initial_state(http_backends: int, grpc_backends: int, slots: int) -> State:
    state = State()
    for transport, count in ((Transport.HTTP, http_backends), (Transport.GRPC, grpc_backends)):
        for number in range(count):
            state.backends[backend_name(transport, number)] = [Slot()] * slots
    return state
