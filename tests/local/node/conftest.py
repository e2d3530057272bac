"""An API server in memory, with just what the node asks of one: resource versions, watches, pods that linger until their node lets go."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from uuid import uuid4

import pytest

from fairlead.kube.client import ObjectList
from fairlead.kube.errors import AlreadyExists, Conflict, NotFound
from fairlead.kube.objects import Object
from fairlead.kube.resources import PODS, Resource
from fairlead.kube.watch import Event


class MemoryApi:
    def __init__(self) -> None:
        self._objects: dict[Resource, dict[tuple[str, str], Object]] = {}
        self._watches: list[tuple[Resource, asyncio.Queue[Event]]] = []
        self._version = 0
        self.writes = 0

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        found = self._kind(resource).get((namespace or "", name))
        if found is None:
            raise NotFound(404, "NotFound", f"{resource} {name} not found")
        return copy.deepcopy(found)

    async def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> ObjectList:
        items = [copy.deepcopy(obj) for (ns, _), obj in self._kind(resource).items() if namespace in (None, ns)]
        return ObjectList(items, str(self._version))

    async def watch(self, resource: Resource, namespace: str | None = None, **_: Any) -> AsyncGenerator[Event, None]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._watches.append((resource, queue))
        while True:
            yield await queue.get()

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        new: Object = copy.deepcopy(dict(obj))
        key = (new["metadata"].get("namespace", ""), new["metadata"]["name"])
        if key in self._kind(resource):
            raise AlreadyExists(409, "AlreadyExists", f"{resource} {key[1]} already exists")
        new = {"apiVersion": resource.api_version, "kind": resource.kind, **new}
        new["metadata"] |= {"uid": str(uuid4()), "generation": 1, "creationTimestamp": "2026-11-21T10:00:00Z"}
        return self._put(resource, new, "ADDED")

    async def replace(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        current = await self.get(resource, obj["metadata"]["name"], obj["metadata"].get("namespace"))
        if obj["metadata"].get("resourceVersion") not in (None, current["metadata"]["resourceVersion"]):
            raise Conflict(409, "Conflict", "the object has been modified")
        return self._put(resource, copy.deepcopy(dict(obj)), "MODIFIED")

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Object,
        namespace: str | None = None,
        *,
        kind: str = "merge",
        subresource: str | None = None,
    ) -> Object:
        current = await self.get(resource, name, namespace)
        merged = _merge(current, patch)
        if merged == current:
            return current
        if merged.get("spec") != current.get("spec"):
            merged["metadata"]["generation"] += 1
        return self._put(resource, merged, "MODIFIED")

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        **_: Any,
    ) -> None:
        current = await self.get(resource, name, namespace)
        if uid is not None and current["metadata"]["uid"] != uid:
            raise Conflict(409, "Conflict", "another object")
        if resource == PODS and grace_seconds != 0:
            grace = current["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
            current["metadata"] |= {"deletionTimestamp": "2026-11-21T10:00:00Z", "deletionGracePeriodSeconds": grace}
            self._put(resource, current, "MODIFIED")
            return
        del self._kind(resource)[(namespace or "", name)]
        self._version += 1
        current["metadata"]["resourceVersion"] = str(self._version)
        self._tell(resource, Event("DELETED", current))

    async def close(self) -> None:
        return None

    def objects(self, resource: Resource) -> list[Object]:
        return list(self._kind(resource).values())

    def _kind(self, resource: Resource) -> dict[tuple[str, str], Object]:
        return self._objects.setdefault(resource, {})

    def _put(self, resource: Resource, obj: Object, event: str) -> Object:
        self._version += 1
        self.writes += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self._kind(resource)[(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])] = obj
        self._tell(resource, Event(event, copy.deepcopy(obj)))  # type: ignore[arg-type]
        return copy.deepcopy(obj)

    def _tell(self, resource: Resource, event: Event) -> None:
        for watched, queue in self._watches:
            if watched == resource:
                queue.put_nowait(copy.deepcopy(event))


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()
