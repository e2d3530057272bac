"""What the API server says should be served, kept up to date by informers.

Only InferenceServices that something happened to are read again; `table` then joins what is known of all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from fairlead.api import names
from fairlead.gateway import essentials
from fairlead.gateway.routes import RouteTable, ServiceRoutes, route_table, service_routes
from fairlead.kube.informer import Informer, Source
from fairlead.kube.objects import Key, Object, key_of
from fairlead.kube.resources import ENDPOINT_SLICES, INFERENCE_SERVICES, SERVICES

_OWNER = "inferenceservice"


def _owner(obj: Object) -> Iterable[str]:
    name = obj["metadata"].get("labels", {}).get(names.LABEL_INFERENCE_SERVICE)
    return [f"{obj['metadata']['namespace']}/{name}"] if name else []


class Catalogue:
    def __init__(self, client: Source, domain: str) -> None:
        self._domain = domain
        label, indexers = names.LABEL_INFERENCE_SERVICE, {_OWNER: _owner}
        self._isvcs = Informer(client, INFERENCE_SERVICES, transform=essentials.inference_service)
        self._services = Informer(client, SERVICES, labels=label, indexers=indexers, transform=essentials.service)
        self._slices = Informer(
            client, ENDPOINT_SLICES, labels=label, indexers=indexers, transform=essentials.endpoint_slice
        )
        self._known: dict[Key, ServiceRoutes] = {}
        self._stale: set[Key] = set()
        self.changed = asyncio.Event()
        """Set when `table` would read something anew; the reader clears it."""
        self._isvcs.on_change(self._note(lambda obj: [key_of(obj)]))
        for informer in (self._services, self._slices):
            informer.on_change(self._note(lambda obj: [Key(*key.split("/", 1)) for key in _owner(obj)]))

    @property
    def informers(self) -> tuple[Informer, ...]:
        return self._isvcs, self._services, self._slices

    @property
    def synced(self) -> bool:
        return all(informer.synced.is_set() for informer in self.informers)

    def get(self, namespace: str, name: str) -> ServiceRoutes | None:
        self._refresh()
        return self._known.get(Key(namespace, name))

    def table(self) -> RouteTable:
        self._refresh()
        return route_table(self._known.values())

    def _note(self, keys: Callable[[Object], Iterable[Key]]) -> Callable[[Object | None, Object | None], None]:
        def handler(old: Object | None, new: Object | None) -> None:
            if essentials.same(old, new):
                return
            for obj in (old, new):
                if obj is not None:
                    self._stale.update(keys(obj))
            self.changed.set()

        return handler

    def _refresh(self) -> None:
        while self._stale:
            key = self._stale.pop()
            isvc = self._isvcs.store.get(*key)
            if isvc is None:
                self._known.pop(key, None)
                continue
            owner = f"{key.namespace}/{key.name}"
            services = {s["metadata"]["name"]: s for s in self._services.store.by_index(_OWNER, owner)}
            slices: dict[str, list[Object]] = {}
            for slice_ in self._slices.store.by_index(_OWNER, owner):
                slices.setdefault(slice_["metadata"]["labels"].get(essentials.SERVICE_OF_SLICE, ""), []).append(slice_)
            self._known[key] = service_routes(isvc, services, slices, self._domain)
