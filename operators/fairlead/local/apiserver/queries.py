"""Reading many objects: lists in pages, and which watch sees which event."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from .errors import bad_request
from .kinds import Kind
from .selectors import FieldSelector, LabelSelector, parse_fields, parse_labels
from .store import Event, Store, Stored


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind are asked for."""

    namespace: str | None = None
    labels: LabelSelector | None = None
    fields: FieldSelector | None = None

    def matches(self, found: Stored) -> bool:
        if self.namespace is not None and found.key.namespace != self.namespace:
            return False
        if self.labels is not None and not self.labels.matches(found.labels):
            return False
        return self.fields is None or self.fields.matches(_field_reader(found, self.fields.by_name_alone))


def selection(kind: Kind, namespace: str | None, labels: str, fields: str) -> Selection:
    """Parse the selectors of a request. Raises StatusError 400."""
    parsed = parse_fields(fields)
    if parsed is not None and kind.custom is not None and not parsed.by_name_alone:
        label = next(path for path, _, _ in parsed.tests if not path.startswith("metadata."))
        raise bad_request(f"field label not supported: {label}")
    return Selection(namespace, parse_labels(labels), parsed)


def _field_reader(found: Stored, by_name_alone: bool) -> Callable[[str], str]:
    if by_name_alone:
        return lambda path: found.key.name if path == "metadata.name" else found.key.namespace
    obj = found.load()

    def read(path: str) -> str:
        value: Any = obj
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    return read


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Stored]
    version: int
    next: str = ""
    remaining: int = 0


def list_page(store: Store, kind: Kind, wanted: Selection, limit: int = 0, token: str = "") -> Page:
    """The matching objects by namespace and name. A later page shows what is there then, at the version of the first."""
    only = wanted.fields.only("metadata.name") if wanted.fields is not None else None
    found = store.list(kind.storage, wanted.namespace)
    if only is not None:
        found = iter([o for o in found if o.key.name == only])
    items = sorted((o for o in found if wanted.matches(o)), key=lambda o: (o.key.namespace, o.key.name))
    version = store.version
    if token:
        version, after = _position(token)
        items = [o for o in items if (o.key.namespace, o.key.name) > after]
    if not limit or len(items) <= limit:
        return Page(items, version)
    last = items[limit - 1].key
    following = base64.urlsafe_b64encode(orjson.dumps([version, last.namespace, last.name])).decode().rstrip("=")
    return Page(items[:limit], version, following, len(items) - limit)


def _position(token: str) -> tuple[int, tuple[str, str]]:
    try:
        version, namespace, name = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(version), (str(namespace), str(name))
    except ValueError:
        raise bad_request(f"continue key is not valid: {token!r}; list again without it") from None


def seen_as(event: Event, wanted: Selection) -> str | None:
    """ADDED, MODIFIED or DELETED as a watch with this selection sees the event; None if not at all.

    An object whose labels change may enter or leave a selection: that is an addition or a deletion to the watch.
    """
    before = event.old is not None and wanted.matches(event.old)
    after = not event.deleted and wanted.matches(event.new)
    if after:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else None
