"""Objects as a controller sees them: from informers' stores, with its own writes already in them.

An informer lags behind the server by a few milliseconds. A reconcile that follows its own write within that time would decide by the old state, so
what was written is remembered until the informer has caught up with it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from fairlead.api import names
from fairlead.api.quantity import parse_quantity
from fairlead.kube.errors import Conflict, NotFound
from fairlead.kube.objects import Key, Object, controller_of, key_of, resource_version
from fairlead.kube.resources import Resource
from fairlead.kube.store import Store, packed, unpacked

Objects = list[Object]  # `Cluster.list` hides the builtin inside the class

BY_SERVICE = "service"
"""The index of children by the InferenceService that their label names."""
FORGET_AFTER = 60.0
"""Seconds after which an own write is no longer believed: the informer must have seen it, or its end, by then."""


def by_service(obj: Object) -> Iterable[str]:
    service = obj["metadata"].get("labels", {}).get(names.LABEL_INFERENCE_SERVICE)
    return [str(Key(obj["metadata"].get("namespace") or "", service))] if service else []


class Writer(Protocol):
    """What is needed of a client."""

    async def apply(self, resource: Resource, obj: Mapping[str, Any], *, field_manager: str) -> Object: ...
    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object: ...
    async def replace(
        self, resource: Resource, obj: Mapping[str, Any], *, subresource: str | None = None
    ) -> Object: ...
    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Object: ...
    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, *, uid: str | None = None
    ) -> None: ...
    async def logs(
        self,
        name: str,
        namespace: str,
        *,
        container: str | None = None,
        tail: int | None = None,
        previous: bool = False,
    ) -> str: ...


class _Write(NamedTuple):
    """An own write. With a thousand services there are as many that an informer has not caught up with: kept as JSON, like a store's objects."""

    when: float
    uid: str
    version: int = 0
    services: Sequence[str] = ()
    """Under which the object is found by its index."""
    packed: bytes | None = None
    """None: it is deleted."""


class Cluster:
    def __init__(
        self, client: Writer, stores: Mapping[Resource, Store], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.client = client
        self._stores = stores
        self._clock = clock
        self._written: dict[tuple[Resource, Key], _Write] = {}
        """Oldest first."""
        self._written_for: dict[tuple[Resource, str], set[Key]] = {}

    # --- Reading --------------------------------------------------------------------------------------------

    def get(self, resource: Resource, key: Key) -> Object | None:
        return self._fresh(resource, key, self._stores[resource].get(*key))

    def summary(self, resource: Resource, key: Key) -> Object | None:
        """What the informer keeps at hand of the object, or all of it; to be read only."""
        return self._fresh(resource, key, self._stores[resource].summary(*key))

    def children(self, resource: Resource, owner: Object) -> Objects:
        """Those that the owner controls; an earlier object of the same name may have left others, which are the garbage collector's."""
        index = str(key_of(owner))
        found = {key_of(obj): obj for obj in self._stores[resource].by_index(BY_SERVICE, index)}
        unseen = self._written_for.get((resource, index), set())
        fresh = (self._fresh(resource, key, found.get(key)) for key in sorted(found.keys() | unseen))
        return [obj for obj in fresh if obj is not None and is_controlled(obj, owner)]

    def labelled(self, resource: Resource, service: Key) -> Objects:
        """Those whose label names the service, whoever controls them."""
        return self._stores[resource].by_index(BY_SERVICE, str(service))

    def list(self, resource: Resource, namespace: str | None = None) -> Objects:
        return self._stores[resource].list(namespace)

    # --- Writing --------------------------------------------------------------------------------------------

    async def apply(self, resource: Resource, desired: Object) -> Object:
        """Server-side apply, unless just this has been applied and still holds."""
        current = self.get(resource, key_of(desired))
        desired = _stamped(desired)
        if current is not None and _applied(current) == _applied(desired) and holds(current, desired):
            return current
        return self._remember(resource, await self.client.apply(resource, desired, field_manager=names.OPERATOR))

    async def replace_status(self, resource: Resource, obj: Object, status: Object) -> Object:
        """Raises Conflict if the object has changed since it was read."""
        return self._remember(
            resource, await self.client.replace(resource, {**obj, "status": status}, subresource="status")
        )

    async def scale(self, resource: Resource, key: Key, replicas: int) -> int:
        """Returns the resourceVersion that the object has now, 0 if that is not told."""
        patch = {"spec": {"replicas": replicas}}
        return _version(await self.client.patch(resource, key.name, patch, key.namespace, subresource="scale"))

    async def delete(self, resource: Resource, obj: Object) -> None:
        """Just this object, not one that has taken its name since."""
        key, uid = key_of(obj), obj["metadata"]["uid"]
        try:
            await self.client.delete(resource, key.name, key.namespace, uid=uid)
        except (NotFound, Conflict):
            return
        finally:
            self._note(resource, key, _Write(self._clock(), uid))

    # --- Own writes -----------------------------------------------------------------------------------------

    def _remember(self, resource: Resource, obj: Object) -> Object:
        obj["metadata"].pop("managedFields", None)
        uid, services = obj["metadata"].get("uid", ""), tuple(by_service(obj))
        self._note(resource, key_of(obj), _Write(self._clock(), uid, _version(obj), services, packed(obj)))
        return obj

    def _note(self, resource: Resource, key: Key, write: _Write) -> None:
        self._forget(resource, key)
        self._written[resource, key] = write
        for service in write.services:
            self._written_for.setdefault((resource, service), set()).add(key)
        (oldest_resource, oldest), first = next(iter(self._written.items()))
        if self._clock() - first.when > FORGET_AFTER:
            self._forget(oldest_resource, oldest)

    def _forget(self, resource: Resource, key: Key) -> None:
        write = self._written.pop((resource, key), None)
        for service in write.services if write is not None else ():
            keys = self._written_for.get((resource, service), set())
            keys.discard(key)
            if not keys:
                self._written_for.pop((resource, service), None)

    def _fresh(self, resource: Resource, key: Key, seen: Object | None) -> Object | None:
        write = self._written.get((resource, key))
        if write is None:
            return seen
        if write.packed is None:
            caught_up = seen is None or seen["metadata"].get("uid") != write.uid
        else:
            caught_up = seen is not None and _version(seen) >= write.version
        if caught_up or self._clock() - write.when > FORGET_AFTER:
            self._forget(resource, key)
            return seen
        return unpacked(write.packed) if write.packed is not None else None


def is_controlled(obj: Object, owner: Object) -> bool:
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == owner["metadata"]["uid"]


def holds(current: Any, desired: Any) -> bool:
    """Whether all that is desired is so. What the server or others have added does not matter; what they have changed does."""
    if current is None:
        return desired in (None, "", 0, False, {}, [])  # the server drops what is empty
    if isinstance(desired, Mapping):
        return isinstance(current, Mapping) and all(holds(current.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        return (
            isinstance(current, list)
            and len(current) == len(desired)
            and all(holds(*pair) for pair in zip(current, desired, strict=True))
        )
    return current == desired or _same_quantity(current, desired)


def _same_quantity(current: Any, desired: Any) -> bool:
    """The server writes 1000m as 1."""
    if not isinstance(current, str | int) or not isinstance(desired, str | int | float):
        return False
    try:
        return parse_quantity(current) == parse_quantity(desired)
    except ValueError:
        return False


def _stamped(desired: Object) -> Object:
    digest = hashlib.sha256(orjson.dumps(desired, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    metadata = desired["metadata"]
    annotations = {**metadata.get("annotations", {}), names.APPLIED: digest}
    return {**desired, "metadata": {**metadata, "annotations": annotations}}


def _applied(obj: Object) -> str | None:
    found: str | None = obj["metadata"].get("annotations", {}).get(names.APPLIED)
    return found


def _version(obj: Object) -> int:
    version = resource_version(obj)
    return int(version) if version.isdecimal() else 0
