"""What follows a deletion: dependents by ownerReferences, the contents of namespaces, the objects of a CRD.

Level-triggered like any controller: a change only marks objects to look at; `collect` reads each afresh and decides. All of
them are looked at after a start, so nothing is forgotten with the process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .admission import Options
from .errors import StatusError
from .kinds import CRD, NAMESPACES
from .lifecycle import CRD_CLEANUP, FOREGROUND, ORPHAN
from .operations import Operations
from .store import Event, Key, Stored

log = logging.getLogger(__name__)

EVENT_LIFETIME = 3600.0
BATCH = 50
"""Objects looked at in one go, 5-10 ms of work, before requests get their turn."""


class Collector:
    """`schedule` calls a function soon: the event loop's call_soon."""

    def __init__(self, operations: Operations, schedule: Callable[[Callable[[], None]], Any]) -> None:
        self.operations = operations
        self.store = operations.store
        self._schedule = schedule
        self._marked: dict[Key, None] = {}
        self.store.observers.append(self._on_change)
        for kind in operations.kinds.all():
            for found in self.store.list(kind.storage):
                if found.owners or found.deleting:
                    self._mark(found.key)

    def _mark(self, key: Key) -> None:
        if not self._marked:
            self._schedule(self.collect)
        self._marked[key] = None

    def _on_change(self, event: Event) -> None:
        new = event.new
        if event.deleted:
            for key in self.store.dependents(new.uid):
                self._mark(key)
            for uid in new.owners:
                self._mark_if_deleting(self.store.by_uid(uid))
            if new.key.namespace:
                self._mark_if_deleting(Key(NAMESPACES, "", new.key.namespace))
            self._mark_if_deleting(Key(CRD, "", f"{new.key.storage[1]}.{new.key.storage[0]}"))
        elif new.deleting or any(self.store.by_uid(uid) is None for uid in new.owners):
            self._mark(new.key)

    def _mark_if_deleting(self, key: Key | None) -> None:
        found = self.store.get(key) if key is not None else None
        if found is not None and found.deleting:
            self._mark(found.key)

    def collect(self) -> None:
        """Look at some of the marked objects; the rest follows when other work was done."""
        for key in list(self._marked)[:BATCH]:
            del self._marked[key]
            found = self.store.get(key)
            try:
                if found is not None:
                    self._look_at(found)
            except StatusError as fault:
                log.warning("garbage collection of %s %s/%s: %s", key.storage[1], key.namespace, key.name, fault)
        if self._marked:
            self._schedule(self.collect)

    def _look_at(self, found: Stored) -> None:
        if found.deleting:
            self._advance_deletion(found)
        elif found.owners:
            gone = [uid for uid in found.owners if self.store.by_uid(uid) is None]
            if len(gone) == len(found.owners):
                self._delete(found, "Background")
            elif gone:
                self._disown(found, gone)

    def _advance_deletion(self, found: Stored) -> None:
        if found.key.storage == NAMESPACES:
            self._empty(found, list(self.store.in_namespace(found.key.name)))
            return
        finalizers = found.load()["metadata"].get("finalizers", ())
        if CRD_CLEANUP in finalizers:
            spec = found.load()["spec"]
            self._empty(found, list(self.store.list((spec["group"], spec["names"]["plural"]))))
        if ORPHAN in finalizers:
            for dependent in self._dependents(found):
                self._disown(dependent, [found.uid])
            self.operations.finalize(found.key, ORPHAN)
        elif FOREGROUND in finalizers:
            self._delete_dependents(found)

    def _empty(self, container: Stored, contents: list[Stored]) -> None:
        """Delete a namespace's or a CRD's objects; it goes when none is left."""
        for content in contents:
            if not content.deleting:
                self._delete(content, "Background")
        if any(self.store.get(content.key) for content in contents):
            return
        if container.key.storage == NAMESPACES:
            self.store.delete(container)
        else:
            self.operations.finalize(container.key, CRD_CLEANUP)

    def _delete_dependents(self, owner: Stored) -> None:
        blocking = False
        for dependent in self._dependents(owner):
            if not dependent.deleting:
                self._delete(dependent, "Background")
            left = self.store.get(dependent.key)
            blocking = blocking or (left is not None and _blocks(left, owner.uid))
        if not blocking:
            self.operations.finalize(owner.key, FOREGROUND)

    def _dependents(self, owner: Stored) -> list[Stored]:
        return [found for key in self.store.dependents(owner.uid) if (found := self.store.get(key)) is not None]

    def _delete(self, found: Stored, propagation: str) -> None:
        kind = self.operations.kinds.stored(found.key.storage)
        self.operations.delete(kind, found.key.namespace, found.key.name, Options(), propagation=propagation)

    def _disown(self, found: Stored, owners: list[str]) -> None:
        obj = found.load()
        kept = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] not in owners]
        obj["metadata"]["ownerReferences"] = kept
        self.store.put(found.key, obj)


def expire_events(operations: Operations) -> None:
    """Delete Events which nobody has touched for EVENT_LIFETIME, as Kubernetes does."""
    oldest = operations.timestamp(-EVENT_LIFETIME)
    for kind in operations.kinds.all():
        if kind.kind != "Event":
            continue
        for found in list(operations.store.list(kind.storage)):
            event = found.load()
            last = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp")
            if max(last or "", event["metadata"]["creationTimestamp"]) < oldest:
                operations.store.delete(found)


def _blocks(dependent: Stored, uid: str) -> bool:
    owners = dependent.load()["metadata"].get("ownerReferences", ())
    return any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners)
