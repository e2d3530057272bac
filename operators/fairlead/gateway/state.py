"""What a HAProxy knows that can change without a reload, and the commands that change it.

The maps (by name, key to value) and the servers of each backend, as plain values. `Command.apply` does to this model what
`Command.text`, sent to HAProxy's runtime socket, does to HAProxy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

MAPS = ("hosts", "paths", "http", "grpc", "upstreams", "timeouts", "holds", "troubles")
"""`hosts`, `paths`: to a route. `http`, `grpc`: a route to its backend, or its weighted backends, for that kind of request.
`upstreams`: a backend to whom it serves. `timeouts`: a backend to the milliseconds that a response may take. `holds`: a backend whose pods have to be woken to the milliseconds that
a request may wait for them; 0: none will come. `troubles`: a component's route to why it cannot serve, percent-encoded."""

HOLD = "hold"
"""The server of each backend that takes over when its last pod has refused a connection: the request goes back to where others wait."""

HANDOVER = "handover"
"""The backend that leads from a worker that a reload has replaced to its successor."""

Admin = Literal["ready", "drain", "maint"]

UNUSED_ADDRESS, UNUSED_PORT = "127.0.0.1", 9


@dataclass(frozen=True, slots=True)
class Slot:
    """One server of a backend. `busy` counts the requests it has, as last read; a slot in `maint` that is not busy is free."""

    address: str = UNUSED_ADDRESS
    port: int = UNUSED_PORT
    admin: Admin = "maint"
    maxconn: int = 0
    busy: int = 0

    @property
    def free(self) -> bool:
        return self.admin == "maint" and self.busy == 0


@dataclass(slots=True)
class State:
    """`backends` maps a backend's name to its slots; slot `n` is HAProxy's server `s{n+1}`. `returning`: backends whose server `hold` is in use.

    That is so while the backend has pods, as far as the agent knows, and until the last one's requests have ended: without any, requests wait
    before they come to a backend.
    """

    maps: dict[str, dict[str, str]] = field(default_factory=lambda: {name: {} for name in MAPS})
    backends: dict[str, list[Slot]] = field(default_factory=dict)
    returning: set[str] = field(default_factory=set)

    def copy(self) -> State:
        return State(
            {name: dict(entries) for name, entries in self.maps.items()},
            {b: list(s) for b, s in self.backends.items()},
            set(self.returning),
        )


def map_file(name: str) -> str:
    return f"{name}.map"


class Command(Protocol):
    @property
    def text(self) -> str: ...
    def apply(self, state: State) -> None: ...


@dataclass(frozen=True, slots=True)
class AddEntry:
    map: str
    key: str
    value: str

    @property
    def text(self) -> str:
        return f"add map {map_file(self.map)} {self.key} {self.value}"

    def apply(self, state: State) -> None:
        state.maps[self.map][self.key] = self.value


@dataclass(frozen=True, slots=True)
class SetEntry:
    map: str
    key: str
    value: str

    @property
    def text(self) -> str:
        return f"set map {map_file(self.map)} {self.key} {self.value}"

    def apply(self, state: State) -> None:
        state.maps[self.map][self.key] = self.value


@dataclass(frozen=True, slots=True)
class DeleteEntry:
    map: str
    key: str

    @property
    def text(self) -> str:
        return f"del map {map_file(self.map)} {self.key}"

    def apply(self, state: State) -> None:
        del state.maps[self.map][self.key]


@dataclass(frozen=True, slots=True)
class _ServerCommand:
    backend: str
    slot: int

    @property
    def server(self) -> str:
        return f"{self.backend}/s{self.slot + 1}"

    def _replace(self, state: State, slot: Slot) -> None:
        state.backends[self.backend][self.slot] = slot

    def _slot(self, state: State) -> Slot:
        return state.backends[self.backend][self.slot]


@dataclass(frozen=True, slots=True)
class SetAddress(_ServerCommand):
    address: str
    port: int

    @property
    def text(self) -> str:
        return f"set server {self.server} addr {self.address} port {self.port}"

    def apply(self, state: State) -> None:
        self._replace(state, replace(self._slot(state), address=self.address, port=self.port))


@dataclass(frozen=True, slots=True)
class SetMaxconn(_ServerCommand):
    maxconn: int

    @property
    def text(self) -> str:
        return f"set maxconn server {self.server} {self.maxconn}"

    def apply(self, state: State) -> None:
        self._replace(state, replace(self._slot(state), maxconn=self.maxconn))


@dataclass(frozen=True, slots=True)
class SetAdmin(_ServerCommand):
    admin: Admin

    @property
    def text(self) -> str:
        return f"set server {self.server} state {self.admin}"

    def apply(self, state: State) -> None:
        slot = self._slot(state)
        # A server that has just left the balancing may have requests that were not there at the last reading.
        busy = max(1, slot.busy) if self.admin == "drain" and slot.admin == "ready" else slot.busy
        self._replace(state, replace(slot, admin=self.admin, busy=busy))


@dataclass(frozen=True, slots=True)
class SetReturning:
    """Whether the backend's server `hold` is in use."""

    backend: str
    on: bool

    @property
    def text(self) -> str:
        return f"set server {self.backend}/{HOLD} state {'ready' if self.on else 'maint'}"

    def apply(self, state: State) -> None:
        (state.returning.add if self.on else state.returning.discard)(self.backend)
