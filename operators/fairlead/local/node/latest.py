"""An informer's objects as the writer of some of them knows them: what we just wrote counts at once, not when the watch tells us.

Without it a reconcile that follows closely on another would create its pods a second time.
"""

from __future__ import annotations

from collections.abc import Iterable

from fairlead.kube.informer import Informer
from fairlead.kube.objects import Object
from fairlead.local.node import objects


def version(obj: Object) -> int:
    """Resource versions of one kind can be compared (KEP-5504 made the custom a promise)."""
    return int(obj["metadata"].get("resourceVersion") or 0)


class Latest:
    def __init__(self, informer: Informer) -> None:
        self._informer = informer
        self._written: dict[str, Object] = {}
        self._deleted: set[str] = set()
        informer.on_change(self._seen)

    def owned_by(self, uid: str) -> list[Object]:
        """All that the owner controls."""
        return self.merged(self._informer.store.by_index("controller", uid), uid)

    def merged(self, cached: Iterable[Object], owner: str) -> list[Object]:
        own = {objects.uid(obj): obj for obj in cached}
        for uid, written in self._written.items():
            if objects.controller_uid(written) == owner and (uid not in own or version(own[uid]) < version(written)):
                own[uid] = written
        return [
            _going(obj) if uid in self._deleted and not objects.is_terminating(obj) else obj for uid, obj in own.items()
        ]

    def wrote(self, obj: Object) -> None:
        self._written[objects.uid(obj)] = obj

    def deleted(self, obj: Object) -> None:
        self._deleted.add(objects.uid(obj))

    def _seen(self, old: Object | None, new: Object | None) -> None:
        known = new or old
        if known is None:
            return
        uid = objects.uid(known)
        if new is None or objects.is_terminating(new):
            self._deleted.discard(uid)
        written = self._written.get(uid)
        if written is not None and (new is None or version(new) >= version(written)):
            del self._written[uid]


def _going(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "1970-01-01T00:00:00Z"}}


def by_controller(obj: Object) -> list[str]:
    """The index that `owned_by` needs."""
    uid = objects.controller_uid(obj)
    return [uid] if uid else []
