"""A kind's objects kept in memory: listed once, then watched; whoever asked is told of every change.

The mechanism is client-go's reflector. A list gives the state at one resourceVersion and a watch what happened after it.
When a watch ends, for whatever reason, the next begins at the last version seen, so nothing is missed and nothing is listed
again; bookmarks keep that version fresh while nothing happens. Only when the server no longer keeps it (410 Gone), or refuses
it, are the objects listed anew, and what has vanished meanwhile is reported as deleted. There is no periodic relist.

A watch without a sign of life for `watch.SILENCE` seconds is given up. API servers send a bookmark about every minute, but the
first may take two, and of a kind that has not changed since the server started there is none: then the price is one request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Protocol

from fairlead.kube import metrics
from fairlead.kube.backoff import Backoff
from fairlead.kube.client import ObjectList
from fairlead.kube.errors import ApiError, ConfigError, Gone, WatchStalled
from fairlead.kube.objects import Key, Object, key_of, resource_version
from fairlead.kube.resources import Resource
from fairlead.kube.store import Indexer, Store, Summary
from fairlead.kube.watch import BOOKMARK, DELETED, Event

log = logging.getLogger(__name__)

Handler = Callable[[Object | None, Object | None], None]
"""Called with (None, new), (old, new) or (old, None). Must not block."""
Transform = Callable[[Object], Object]
"""What to keep of an object, at least name, namespace and resourceVersion; may change the one it is given."""

RETRY = Backoff(base=0.2, cap=30.0)
STEADY = 5.0
"""A watch that held for so many seconds ends a row of failures."""
TOMBSTONES = 1024


class Source(Protocol):
    """What an informer needs of a client."""

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> ObjectList: ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str | None = None,
        fields: str | None = None,
    ) -> AsyncGenerator[Event, None]: ...


class Informer:
    def __init__(
        self,
        client: Source,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        transform: Transform | None = None,
        indexers: Mapping[str, Indexer] | None = None,
        summary: Summary | None = None,
    ) -> None:
        self.resource = resource
        self.store = Store(indexers, summary)
        self.synced = asyncio.Event()
        """Set when the first list is in the store and has been told to all handlers."""
        self.last_active = float("-inf")
        """By the event loop's clock: when this last tried something or got something. It never rests for long (see `watch`)."""
        self._client = client
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._transform = transform
        self._handlers: list[Handler] = []
        self._versions = _Versions()

    def on_change(self, handler: Handler) -> None:
        """Tells `handler` of every change from now on, and at once of what is already known."""
        self._handlers.append(handler)
        for obj in self.store.list():
            _tell(handler, None, obj)

    async def run(self) -> None:
        """Until cancelled. Errors of the server are waited out; they never end this."""
        failures = 0
        listed = False
        while True:
            began = self.last_active = asyncio.get_running_loop().time()
            try:
                if not listed:
                    await self._list()
                    listed = True
                await self._watch()
                reason = "ended"
            except WatchStalled:
                reason = "silent"
            except Gone:
                listed, reason = False, "gone"
            except (ApiError, ConfigError) as error:
                # A refused watch may be refused for its version ("too large": the server was restored from a backup).
                listed = listed and getattr(error, "status", 0) in (0, 429, 503)
                reason = "failed"
                log.warning("watch of %s: %s", self.resource, error)
            metrics.WATCH_RESTARTS.labels(resource=str(self.resource), reason=reason).inc()
            held = asyncio.get_running_loop().time() - began
            failures = 0 if held >= STEADY else failures + 1
            if failures:
                await asyncio.sleep(RETRY.delay(failures))

    # --- List and watch -------------------------------------------------------------------------------------

    async def _list(self) -> None:
        """Makes the store equal to the server's state, whatever came before: a list is the truth, even an older one."""
        metrics.LISTS.labels(resource=str(self.resource)).inc()
        listed = await self._client.list(self.resource, self._namespace, labels=self._labels, fields=self._fields)
        vanished = self.store.keys() - {key_of(obj) for obj in listed.items}
        self._versions = _Versions(listed.resource_version)
        for key in vanished:
            self._changed(self.store.remove(key), None)
        for obj in listed.items:
            if self.store.version(key_of(obj)) != resource_version(obj):
                self._put(obj)
        self.synced.set()

    async def _watch(self) -> None:
        watch = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._versions.latest,
            labels=self._labels,
            fields=self._fields,
        )
        async with aclosing(watch) as events:
            async for event in events:
                self.last_active = asyncio.get_running_loop().time()
                self._take(event)

    def _take(self, event: Event) -> None:
        version = resource_version(event.object)
        if event.type == BOOKMARK:
            self._versions.reach(version)
            return
        key = key_of(event.object)
        if self._versions.is_old(key, version, self.store.version(key)):
            return
        self._versions.reach(version)
        if event.type == DELETED:
            self._versions.bury(key, version)
            if (known := self.store.remove(key)) is not None:
                self._changed(known, None)
        else:
            self._put(event.object)

    # --- Telling --------------------------------------------------------------------------------------------

    def _put(self, obj: Object) -> None:
        obj["metadata"].pop("managedFields", None)  # a third of a typical object, and nobody's business here
        kept = self._transform(obj) if self._transform else obj
        self._changed(self.store.put(kept), kept)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        for handler in self._handlers:
            _tell(handler, old, new)


class _Versions:
    """Which versions have been seen, so that duplicates and stragglers are known for what they are.

    An event is old if its object is held at that version or a later one; if the object is not held, an event no newer than
    the list, or than the object's deletion, is old: it must not raise the dead. Versions are numbers in practice and, since
    Kubernetes 1.35, by contract; if one is not, only an equal one counts as old.
    """

    def __init__(self, listed: str = "") -> None:
        self.latest = listed
        """Where the next watch begins."""
        self._listed = listed
        self._buried: dict[Key, str] = {}

    def reach(self, version: str) -> None:
        if not _at_most(version, self.latest):
            self.latest = version

    def bury(self, key: Key, version: str) -> None:
        self._buried.pop(key, None)
        self._buried[key] = version
        if len(self._buried) > TOMBSTONES:
            del self._buried[next(iter(self._buried))]

    def is_old(self, key: Key, version: str, held: str | None) -> bool:
        if held is not None:
            return _at_most(version, held)
        return _at_most(version, self._listed) or _at_most(version, self._buried.get(key, ""))


def _at_most(version: str, other: str) -> bool:
    if version.isdecimal() and other.isdecimal():
        return int(version) <= int(other)
    return version == other


def _tell(handler: Handler, old: Object | None, new: Object | None) -> None:
    try:
        handler(old, new)
    except Exception:
        # One object that a handler cannot digest must not keep all others from everyone.
        log.exception("a handler failed on %s", key_of(new or old or {"metadata": {"name": "?"}}))
