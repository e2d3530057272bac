"""Events about objects, as `kubectl describe` shows them: core/v1, aggregated, and never in the way.

`emit` only notes the event down; a task of its own writes it. The same event about the same object is written once and then
counted (`count`, `lastTimestamp`). An object may have 25 different ones in a row and then one every five minutes (client-go's
limits); more are dropped and counted in a metric. All memories are bounded, and no failure ever reaches the caller.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from fairlead.kube import metrics
from fairlead.kube.errors import KubeError, NotFound
from fairlead.kube.objects import Object, timestamp, utcnow
from fairlead.kube.resources import EVENTS, Resource

log = logging.getLogger(__name__)

REMEMBERED = 4096
PENDING = 1000
BURST = 25
REFILL = 300.0
MESSAGE_LIMIT = 1024
"""The API server's limit."""
CLOSE_TIMEOUT = 2.0


class Writer(Protocol):
    """What events need of a client."""

    async def create(self, resource: Resource, obj: Object) -> Object: ...
    async def patch(self, resource: Resource, name: str, patch: Object, namespace: str | None = None) -> Object: ...


class _What(NamedTuple):
    """What makes two events the same."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    type: str
    reason: str
    message: str

    @property
    def about(self) -> tuple[str, ...]:
        return self[:5]


@dataclass(slots=True)
class _Note:
    count: int
    first: datetime
    last: datetime


@dataclass(slots=True)
class _Written:
    name: str
    count: int


V = TypeVar("V")


class _Recent(Generic[V]):
    """A dict of the entries used last. Of a key it keeps the hash alone, 64 bits: the keys of a few thousand events would be megabytes of messages."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[int, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        hashed = hash(key)
        if hashed in self._entries:
            self._entries.move_to_end(hashed)
        return self._entries.get(hashed)

    def put(self, key: Hashable, value: V) -> None:
        hashed = hash(key)
        self._entries[hashed] = value
        self._entries.move_to_end(hashed)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


class Events:
    def __init__(
        self,
        client: Writer,
        component: str,
        *,
        now: Callable[[], datetime] = utcnow,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._component = component
        self._instance = os.environ.get("POD_NAME") or socket.gethostname()
        self._now = now
        self._clock = clock
        self._pending: OrderedDict[_What, _Note] = OrderedDict()
        self._written: _Recent[_Written] = _Recent(REMEMBERED)
        self._buckets: _Recent[tuple[float, float]] = _Recent(REMEMBERED)
        self._sender: asyncio.Task[None] | None = None

    def emit(self, obj: Mapping[str, Any], type: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Notes an event about `obj`; call it from within the event loop."""
        metadata = obj.get("metadata", {})
        what = _What(
            str(obj.get("apiVersion", "")),
            str(obj.get("kind", "")),
            str(metadata.get("namespace") or ""),
            str(metadata.get("name", "")),
            str(metadata.get("uid", "")),
            type,
            reason,
            message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…",
        )
        now = self._now()
        if note := self._pending.get(what):
            note.count += 1
            note.last = now
        elif len(self._pending) >= PENDING:
            metrics.EVENTS_DROPPED.labels(reason="backlog").inc()
        elif not self._within_limits(what.about):
            metrics.EVENTS_DROPPED.labels(reason="rate").inc()
        else:
            self._pending[what] = _Note(1, now, now)
        if self._pending and (self._sender is None or self._sender.done()):
            self._sender = asyncio.get_running_loop().create_task(self._send(), name="events")

    async def close(self) -> None:
        """Writes what is pending, if that is quick."""
        if self._sender is not None:
            await asyncio.wait({self._sender}, timeout=CLOSE_TIMEOUT)
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    def _within_limits(self, about: tuple[str, ...]) -> bool:
        """Takes a token from the object's bucket, if there is one left."""
        now = self._clock()
        tokens, since = self._buckets.get(about) or (float(BURST), now)
        tokens = min(float(BURST), tokens + (now - since) / REFILL)
        allowed = tokens >= 1
        self._buckets.put(about, (tokens - 1 if allowed else tokens, now))
        return allowed

    async def _send(self) -> None:
        while self._pending:
            what, note = self._pending.popitem(last=False)
            try:
                await self._write(what, note)
            except KubeError as error:
                metrics.EVENTS_DROPPED.labels(reason="error").inc()
                log.info("an event was not written: %s", error)
            except Exception:
                metrics.EVENTS_DROPPED.labels(reason="error").inc()
                log.exception("an event was not written")

    async def _write(self, what: _What, note: _Note) -> None:
        if written := self._written.get(what):
            count = written.count + note.count
            patch = {"count": count, "lastTimestamp": timestamp(note.last)}
            try:
                await self._client.patch(EVENTS, written.name, patch, what.namespace or "default")
            except NotFound:
                pass  # events live for an hour: tell it anew
            else:
                written.count = count
                return
        event = self._event(what, note)
        await self._client.create(EVENTS, event)
        self._written.put(what, _Written(event["metadata"]["name"], note.count))

    def _event(self, what: _What, note: _Note) -> Object:
        involved = {
            "apiVersion": what.api_version,
            "kind": what.kind,
            "namespace": what.namespace,
            "name": what.name,
            "uid": what.uid,
        }
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            # Names are unique by the clock, as client-go's are; 253 characters are a name's limit.
            "metadata": {"name": f"{what.name[:230]}.{time.time_ns():x}", "namespace": what.namespace or "default"},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "type": what.type,
            "reason": what.reason,
            "message": what.message,
            "count": note.count,
            "firstTimestamp": timestamp(note.first),
            "lastTimestamp": timestamp(note.last),
            "eventTime": None,
            "source": {"component": self._component, "host": self._instance},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }
