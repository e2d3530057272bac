"""An informer's copy of the server's objects, with indexes.

Objects are kept as JSON and decoded for each reader, who may do with his own what he likes. As Python's dicts they take four times the memory and more, and most
are read once in a long while; to decode one takes some microseconds. What is read of thousands of objects each second is kept beside them: see `summary`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import orjson

from fairlead.kube.objects import Key, Object, key_of, resource_version

Indexer = Callable[[Object], Iterable[str]]
"""The index keys of an object, such as the names of the Secrets that it mentions; none, one or several."""
Summary = Callable[[Object], Object]
"""The little of an object that is to be at hand without decoding: at least its name, namespace, uid and resourceVersion, at their places."""


Objects = list[Object]  # `Store.list` hides the builtin inside the class


class _Entry(NamedTuple):
    version: str
    packed: bytes
    summary: Object | None

    @property
    def object(self) -> Object:
        return unpacked(self.packed)


class Store:
    def __init__(self, indexers: Mapping[str, Indexer] | None = None, summary: Summary | None = None) -> None:
        self._namespaces: dict[str, dict[str, _Entry]] = {}
        self._indexers = dict(indexers or {})
        self._indexes: dict[str, dict[str, set[Key]]] = {name: {} for name in self._indexers}
        self._summary = summary

    def get(self, namespace: str | None, name: str) -> Object | None:
        entry = self._entry(namespace, name)
        return entry.object if entry is not None else None

    def summary(self, namespace: str | None, name: str) -> Object | None:
        """What `summary` made of the object, which all readers share: not to be changed. Without one, the object."""
        entry = self._entry(namespace, name)
        if entry is None:
            return None
        return entry.summary if entry.summary is not None else entry.object

    def version(self, key: Key) -> str | None:
        """The resourceVersion of the object, if there is one."""
        entry = self._entry(*key)
        return entry.version if entry is not None else None

    def list(self, namespace: str | None = None) -> Objects:
        """Those of one namespace, or all."""
        if namespace is None:
            return list(self)
        return [entry.object for entry in self._namespaces.get(namespace, {}).values()]

    def by_index(self, index: str, key: str) -> Objects:
        """The objects for which the indexer `index` gives `key`, ordered by namespace and name."""
        found = (self.get(*place) for place in sorted(self._indexes[index].get(key, ())))
        return [obj for obj in found if obj is not None]

    def keys(self, namespace: str | None = None) -> set[Key]:
        """Those of one namespace, or all."""
        wanted = self._namespaces if namespace is None else {namespace: self._namespaces.get(namespace, {})}
        return {Key(namespace, name) for namespace, names in wanted.items() for name in names}

    def __iter__(self) -> Iterator[Object]:
        for names in self._namespaces.values():
            for entry in names.values():
                yield entry.object

    def __len__(self) -> int:
        return sum(len(names) for names in self._namespaces.values())

    def put(self, obj: Object) -> Object | None:
        """Sets the object, of which this keeps nothing but a copy; returns the one that it replaces."""
        key = key_of(obj)
        old = self.remove(key)
        summary = self._summary(obj) if self._summary else None
        entry = _Entry(resource_version(obj), packed(obj), summary)
        self._namespaces.setdefault(key.namespace, {})[key.name] = entry
        for name, indexer in self._indexers.items():
            for value in indexer(obj):
                self._indexes[name].setdefault(value, set()).add(key)
        return old

    def remove(self, key: Key) -> Object | None:
        names = self._namespaces.get(key.namespace, {})
        entry = names.pop(key.name, None)
        if entry is None:
            return None
        if not names:
            del self._namespaces[key.namespace]
        old = entry.object
        for name, indexer in self._indexers.items():
            index = self._indexes[name]
            for value in indexer(old):
                if members := index.get(value):
                    members.discard(key)
                    if not members:
                        del index[value]
        return old

    def _entry(self, namespace: str | None, name: str) -> _Entry | None:
        return self._namespaces.get(namespace or "", {}).get(name)


def packed(obj: Object) -> bytes:
    """A copy: orjson's own result keeps the buffer that it was written into, which is twice as large or more."""
    return memoryview(orjson.dumps(obj)).tobytes()


def unpacked(json: bytes) -> Object:
    obj: Object = orjson.loads(json)
    return obj
