"""An API server in memory, with the faults of real ones at hand."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable
from typing import Any

from fairlead.kube.client import ObjectList
from fairlead.kube.errors import AlreadyExists, ApiError, Conflict, Gone, NotFound, Unavailable, WatchStalled
from fairlead.kube.objects import Key, Object, key_of
from fairlead.kube.resources import Resource
from fairlead.kube.watch import BOOKMARK, SILENCE, Event


def obj(name: str, namespace: str = "ns", **spec: Any) -> Object:
    return {"metadata": {"name": name, "namespace": namespace, "labels": {}}, "spec": spec}


class FakeApi:
    """One kind's objects, their history, and watches on it. Synchronous methods change the state as others would."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.version = 1
        self.history: list[tuple[int, Event]] = []
        self.compacted = 0
        """Watches from before this version are Gone."""
        self.lists = 0
        self.watches = 0
        self.fail: list[ApiError] = []
        """Raised by the next requests, one each."""
        self.before: Callable[[str], None] = lambda _: None
        """Told the verb of each request."""
        self.delay = 0.0
        """Seconds that each request takes."""
        self._open: list[asyncio.Queue[Event | ApiError | None]] = []

    # --- What others do -------------------------------------------------------------------------------------

    def put(self, value: Object) -> Object:
        key = key_of(value)
        kind = "MODIFIED" if key in self.objects else "ADDED"
        return self._record(kind, value)

    def remove(self, key: Key) -> None:
        self._record("DELETED", self.objects[key])

    def bookmark(self) -> None:
        self.send(Event(BOOKMARK, {"metadata": {"resourceVersion": str(self.version)}}))

    def send(self, event: Event) -> None:
        """An event on all open watches that is not in the history: a duplicate, a straggler."""
        for queue in self._open:
            queue.put_nowait(event)

    def end_watches(self, error: ApiError | None = None) -> None:
        for queue in self._open:
            queue.put_nowait(error)
        self._open.clear()

    def lose_watches(self) -> None:
        """The connections die and nobody is told."""
        self._open.clear()

    def compact(self) -> None:
        self.compacted = self.version

    def _record(self, kind: str, value: Object) -> Object:
        self.version += 1
        stored = copy.deepcopy(value)
        stored["metadata"]["resourceVersion"] = str(self.version)
        if kind == "DELETED":
            del self.objects[key_of(stored)]
        else:
            self.objects[key_of(stored)] = stored
        event = Event(kind, stored)
        self.history.append((self.version, event))
        self.send(event)
        return stored

    # --- What the client does -------------------------------------------------------------------------------

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> ObjectList:
        self.lists += 1
        await self._request("list")
        return ObjectList([copy.deepcopy(item) for item in self.objects.values()], str(self.version))

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str | None = None,
        fields: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        self.watches += 1
        await self._request("watch")
        if int(resource_version) < self.compacted:
            raise Gone(410, "Expired", "too old resource version")
        if int(resource_version) > self.version:
            raise ApiError(504, "Timeout", "Too large resource version")
        queue: asyncio.Queue[Event | ApiError | None] = asyncio.Queue()
        for version, event in self.history:
            if version > int(resource_version):
                queue.put_nowait(event)
        self._open.append(queue)
        try:
            while True:
                try:
                    async with asyncio.timeout(SILENCE):
                        item = await queue.get()
                except TimeoutError:
                    raise WatchStalled(0, "WatchStalled", "no event and no bookmark") from None
                if item is None:
                    return
                if isinstance(item, ApiError):
                    raise item
                yield Event(item.type, copy.deepcopy(item.object))
        finally:
            if queue in self._open:
                self._open.remove(queue)

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        await self._request("get")
        return copy.deepcopy(self._existing(Key(namespace or "", name)))

    async def create(self, resource: Resource, value: Object) -> Object:
        await self._request("create")
        if key_of(value) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", "it exists")
        return copy.deepcopy(self.put(value))

    async def replace(self, resource: Resource, value: Object) -> Object:
        await self._request("replace")
        existing = self._existing(key_of(value))
        if value["metadata"].get("resourceVersion", "") != existing["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "the object has been modified")
        return copy.deepcopy(self.put(value))

    async def patch(self, resource: Resource, name: str, patch: Object, namespace: str | None = None) -> Object:
        """A merge patch of top-level fields."""
        await self._request("patch")
        return copy.deepcopy(self.put({**self._existing(Key(namespace or "", name)), **patch}))

    def _existing(self, key: Key) -> Object:
        if key not in self.objects:
            raise NotFound(404, "NotFound", f"{key} not found")
        return self.objects[key]

    async def _request(self, verb: str) -> None:
        self.before(verb)
        await asyncio.sleep(self.delay)
        if self.fail:
            raise self.fail.pop(0)


def unavailable() -> Unavailable:
    return Unavailable(503, "ServiceUnavailable", "try later")


class FakeCluster:
    """A client for several kinds, each of them a FakeApi."""

    def __init__(self) -> None:
        self._kinds: dict[Resource, FakeApi] = {}

    def __getitem__(self, resource: Resource) -> FakeApi:
        return self._kinds.setdefault(resource, FakeApi())

    def list(self, resource: Resource, *args: Any, **options: Any) -> Any:
        return self[resource].list(resource, *args, **options)

    def watch(self, resource: Resource, *args: Any, **options: Any) -> Any:
        return self[resource].watch(resource, *args, **options)

    def get(self, resource: Resource, *args: Any) -> Any:
        return self[resource].get(resource, *args)

    def create(self, resource: Resource, value: Object) -> Any:
        return self[resource].create(resource, value)

    def replace(self, resource: Resource, value: Object) -> Any:
        return self[resource].replace(resource, value)
