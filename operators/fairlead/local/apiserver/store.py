"""All objects, as the JSON that clients get, and the history that watches are fed from.

Objects are kept as bytes: a read or a watch event is sent without encoding anything, a write decodes what it changes, and
nobody can change an object by accident. Beside the bytes stands what is asked of many objects at once: labels and owners.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from .errors import expired
from .journal import Journal, Row
from .kinds import Storage

HISTORY = 2_000
"""Events kept for each resource, for watches that resume: a minute of a busy server, 8 MB when all objects are large."""


class Key(NamedTuple):
    storage: Storage
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Stored:
    key: Key
    version: int
    uid: str
    raw: bytes
    labels: dict[str, str]
    owners: tuple[str, ...]
    """uids of the owners."""
    deleting: bool = False

    def load(self) -> dict[str, Any]:
        obj: dict[str, Any] = orjson.loads(self.raw)
        return obj


@dataclass(frozen=True, slots=True)
class Event:
    """A change: `old` is None for a new object; `new` of a deleted one is its last state, at the version of the deletion."""

    version: int
    old: Stored | None
    new: Stored
    deleted: bool = False


@dataclass(eq=False)
class Subscription:
    """What a watch has not been sent yet."""

    limit: int
    pending: deque[Event] = field(default_factory=deque)
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    overrun: bool = False
    """The client is too slow; it has to list again."""

    def put(self, event: Event) -> None:
        if len(self.pending) >= self.limit:
            self.overrun = True
        else:
            self.pending.append(event)
        self.awake.set()


class Store:
    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._objects: dict[Storage, dict[tuple[str, str], Stored]] = {}
        self._by_uid: dict[str, Key] = {}
        self._dependents: dict[str, set[Key]] = {}
        self._history: dict[Storage, deque[Event]] = {}
        self._dropped: dict[Storage, int] = {}
        self._watches: dict[Storage, set[Subscription]] = {}
        self.observers: list[Callable[[Event], None]] = []
        """Told of each change after it is stored (the garbage collector, the CRDs)."""
        self.version = self._start = max(journal.version(), 1)
        for row in journal.load():
            self._index(stored(Key((row.group, row.plural), row.namespace, row.name), orjson.loads(row.body), row.body))

    # --- Reading ---

    def get(self, key: Key) -> Stored | None:
        return self._objects.get(key.storage, {}).get((key.namespace, key.name))

    def by_uid(self, uid: str) -> Key | None:
        return self._by_uid.get(uid)

    def dependents(self, uid: str) -> set[Key]:
        """The objects that name this uid in ownerReferences."""
        return set(self._dependents.get(uid, ()))

    def list(self, storage: Storage, namespace: str | None = None) -> Iterator[Stored]:
        objects = self._objects.get(storage, {}).values()
        return iter(objects) if namespace is None else (o for o in objects if o.key.namespace == namespace)

    def in_namespace(self, namespace: str) -> Iterator[Stored]:
        for storage in list(self._objects):
            if storage != ("", "namespaces"):
                yield from list(self.list(storage, namespace))

    # --- Writing ---

    def put(self, key: Key, obj: dict[str, Any]) -> Stored:
        """Store an object under the next resource version, on disk first."""
        version = self.version + 1
        obj["metadata"]["resourceVersion"] = str(version)
        new = stored(key, obj, orjson.dumps(obj))
        self.journal.put(Row(*key.storage, key.namespace, key.name, version, new.raw))
        self.version = version
        old = self.get(key)
        self._index(new)
        self._publish(Event(version, old, new))
        return new

    def delete(self, old: Stored) -> Stored:
        """Remove an object; its last state, at the version of the deletion."""
        key, version = old.key, self.version + 1
        self.journal.delete(Row(*key.storage, key.namespace, key.name, old.version, old.raw), version)
        self.version = version
        obj = old.load()
        obj["metadata"]["resourceVersion"] = str(version)
        last = stored(key, obj, orjson.dumps(obj))
        del self._objects[key.storage][key.namespace, key.name]
        self._by_uid.pop(old.uid, None)
        self._disown(old)
        self._publish(Event(version, old, last, deleted=True))
        return last

    def _index(self, new: Stored) -> None:
        objects = self._objects.setdefault(new.key.storage, {})
        place = (new.key.namespace, new.key.name)
        old = objects.get(place)
        if old is not None and old.owners != new.owners:
            self._disown(old)
        objects[place] = new
        self._by_uid[new.uid] = new.key
        for owner in new.owners:
            self._dependents.setdefault(owner, set()).add(new.key)

    def _disown(self, old: Stored) -> None:
        for owner in old.owners:
            dependents = self._dependents.get(owner, set())
            dependents.discard(old.key)
            if not dependents:
                self._dependents.pop(owner, None)

    # --- Watching ---

    def _publish(self, event: Event) -> None:
        storage = event.new.key.storage
        history = self._history.setdefault(storage, deque())
        history.append(event)
        if len(history) > HISTORY:
            self._dropped[storage] = history.popleft().version
        for watch in self._watches.get(storage, ()):
            watch.put(event)
        for observer in self.observers:
            observer(event)

    def subscribe(self, storage: Storage, since: int, limit: int = 10_000) -> Subscription:
        """A subscription to all changes after `since`. Raises StatusError 410 if they are not known any more."""
        oldest = max(self._start, self._dropped.get(storage, 0))
        if since < oldest:
            raise expired(since, oldest)
        missed: deque[Event] = deque()
        for event in reversed(self._history.get(storage, ())):
            if event.version <= since:
                break
            missed.appendleft(event)
        watch = Subscription(limit + len(missed), missed)
        if watch.pending:
            watch.awake.set()
        self._watches.setdefault(storage, set()).add(watch)
        return watch

    def unsubscribe(self, storage: Storage, watch: Subscription) -> None:
        self._watches.get(storage, set()).discard(watch)


def stored(key: Key, obj: dict[str, Any], raw: bytes) -> Stored:
    metadata = obj["metadata"]
    owners = tuple(o["uid"] for o in metadata.get("ownerReferences", ()))
    return Stored(
        key,
        int(metadata.get("resourceVersion", 0)),
        metadata["uid"],
        raw,
        metadata.get("labels") or {},
        owners,
        "deletionTimestamp" in metadata,
    )
