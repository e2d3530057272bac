"""What a writer knows before its informer does."""

from __future__ import annotations

from typing import Any

from fairlead.kube.objects import Object, key_of
from fairlead.kube.store import Store
from fairlead.local.node import objects
from fairlead.local.node.latest import Latest, by_controller


class Cache:
    """An informer that is told what to see."""

    def __init__(self) -> None:
        self.store = Store({"controller": by_controller})
        self._handlers: list[Any] = []

    def on_change(self, handler: Any) -> None:
        self._handlers.append(handler)

    def sees(self, obj: Object) -> None:
        old = self.store.put(obj)
        for handler in self._handlers:
            handler(old, obj)

    def loses(self, obj: Object) -> None:
        self.store.remove(key_of(obj))
        for handler in self._handlers:
            handler(obj, None)


def pod(version: int, **metadata: Any) -> Object:
    owner = {"uid": "rs", "controller": True}
    return {
        "metadata": {
            "name": "p",
            "namespace": "ns",
            "uid": "p",
            "resourceVersion": str(version),
            "ownerReferences": [owner],
            **metadata,
        }
    }


def make() -> tuple[Cache, Latest]:
    cache = Cache()
    return cache, Latest(cache)  # type: ignore[arg-type]


def test_a_pod_just_created_counts_before_the_watch_shows_it() -> None:
    cache, latest = make()
    latest.wrote(pod(5))
    assert latest.owned_by("rs") == [pod(5)]
    cache.sees(pod(5))
    assert latest.owned_by("rs") == [pod(5)]


def test_what_the_watch_shows_later_wins() -> None:
    cache, latest = make()
    latest.wrote(pod(5))
    cache.sees(pod(6))
    assert latest.owned_by("rs") == [pod(6)]
    cache.loses(pod(6))
    assert latest.owned_by("rs") == []


def test_an_older_state_in_the_watch_does_not_undo_what_was_written() -> None:
    cache, latest = make()
    cache.sees(pod(4))
    latest.wrote(pod(5))
    assert latest.owned_by("rs") == [pod(5)]


def test_a_pod_just_deleted_is_on_its_way_out_until_the_watch_agrees() -> None:
    cache, latest = make()
    cache.sees(pod(4))
    latest.deleted(pod(4))
    (going,) = latest.owned_by("rs")
    assert objects.is_terminating(going)
    cache.sees(pod(5, deletionTimestamp="2026-11-21T10:00:00Z"))
    cache.loses(pod(6))
    assert latest.owned_by("rs") == []
