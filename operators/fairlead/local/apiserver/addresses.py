"""Cluster IPs of Services: loopback addresses in 127.255.0.0/16, so that a process node can listen on them."""

from __future__ import annotations

from typing import Any

from .errors import StatusError
from .store import Event, Store, Stored

SERVICES = ("", "services")
_COUNT = 255 * 256


class Addresses:
    """Hands out what no stored Service has."""

    def __init__(self, store: Store) -> None:
        self._taken = {_address(service) for service in store.list(SERVICES)}
        self._next = 0
        store.observers.append(self._on_change)

    def _on_change(self, event: Event) -> None:
        if event.new.key.storage == SERVICES:
            if event.old is not None:
                self._taken.discard(_address(event.old))
            if not event.deleted:
                self._taken.add(_address(event.new))

    def assign(self, service: dict[str, Any]) -> None:
        """Give a new Service its cluster IP, in place, unless it is headless or external."""
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return
        if not spec.get("clusterIP"):
            spec["clusterIP"] = self._free()
        spec["clusterIPs"] = [spec["clusterIP"]]

    def keep(self, old: dict[str, Any], service: dict[str, Any]) -> None:
        """A Service keeps its address when a client leaves it out."""
        before, spec = old["spec"], service.setdefault("spec", {})
        for name in ("clusterIP", "clusterIPs"):
            if spec.get("type") != "ExternalName" and not spec.get(name) and name in before:
                spec[name] = before[name]

    def _free(self) -> str:
        for _ in range(_COUNT):
            self._next = self._next % _COUNT + 1
            address = f"127.255.{self._next >> 8}.{self._next & 255}"
            if self._next & 255 not in (0, 255) and address not in self._taken:
                return address
        raise StatusError(500, "InternalError", "no cluster IP is left in 127.255.0.0/16; delete some Services")


def _address(service: Stored) -> str:
    return str(service.load()["spec"].get("clusterIP", ""))
