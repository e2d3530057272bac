"""An informer's copy of the server's objects, with indexes. Readers share its objects: copy before changing one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from fairlead.kube.objects import Key, Object, key_of

Indexer = Callable[[Object], Iterable[str]]
"""The index keys of an object, such as the names of the Secrets that it mentions; none, one or several."""


Objects = list[Object]  # `Store.list` hides the builtin inside the class


class Store:
    def __init__(self, indexers: Mapping[str, Indexer] | None = None) -> None:
        self._namespaces: dict[str, dict[str, Object]] = {}
        self._indexers = dict(indexers or {})
        self._indexes: dict[str, dict[str, set[Key]]] = {name: {} for name in self._indexers}

    def get(self, namespace: str | None, name: str) -> Object | None:
        return self._namespaces.get(namespace or "", {}).get(name)

    def list(self, namespace: str | None = None) -> Objects:
        """Those of one namespace, or all."""
        return list(self._namespaces.get(namespace, {}).values()) if namespace is not None else list(self)

    def by_index(self, index: str, key: str) -> Objects:
        """The objects for which the indexer `index` gives `key`, ordered by namespace and name."""
        found = (self.get(*place) for place in sorted(self._indexes[index].get(key, ())))
        return [obj for obj in found if obj is not None]

    def keys(self) -> set[Key]:
        return {Key(namespace, name) for namespace, names in self._namespaces.items() for name in names}

    def __iter__(self) -> Iterator[Object]:
        for names in self._namespaces.values():
            yield from names.values()

    def __len__(self) -> int:
        return sum(len(names) for names in self._namespaces.values())

    def put(self, obj: Object) -> Object | None:
        """Sets the object; returns the one that it replaces."""
        key = key_of(obj)
        old = self.remove(key)
        self._namespaces.setdefault(key.namespace, {})[key.name] = obj
        for name, indexer in self._indexers.items():
            for value in indexer(obj):
                self._indexes[name].setdefault(value, set()).add(key)
        return old

    def remove(self, key: Key) -> Object | None:
        names = self._namespaces.get(key.namespace, {})
        old = names.pop(key.name, None)
        if old is None:
            return None
        if not names:
            del self._namespaces[key.namespace]
        for name, indexer in self._indexers.items():
            index = self._indexes[name]
            for value in indexer(old):
                if members := index.get(value):
                    members.discard(key)
                    if not members:
                        del index[value]
        return old
