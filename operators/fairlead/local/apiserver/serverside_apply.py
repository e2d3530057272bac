"""Server-side apply: who owns which field, merged by the schema.

`apply` merges what one manager wants into the live object: conflicts where another manager owns a field that would change,
removal of what the manager wanted before and wants no longer. `track` does the bookkeeping for all other writes.
The rules are those of structured-merge-diff, which Kubernetes uses; the sets are in `fieldset`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from .errors import apply_conflict
from .fieldset import FieldSet, field_set, granular, intersect, item_key, paths, subtract, union
from .ordering import interleave
from .schema import Schema

Object = dict[str, Any]

KUBECTL = "kubectl"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

UNOWNED: FieldSet = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {
        f"f:{name}": {}
        for name in (
            "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields",
            "deletionTimestamp", "deletionGracePeriodSeconds",
        )
    },
}  # fmt: skip
"""What identifies an object or is the server's own belongs to nobody."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: entries of `managedFields` are told apart by all of this."""

    manager: str
    operation: str
    version: str
    subresource: str = ""

    def printed(self) -> str:
        part = f' with subresource "{self.subresource}"' if self.subresource else ""
        return f"{json.dumps(self.manager)}{part} using {self.version}"


@dataclass(slots=True)
class Entry:
    fields: FieldSet
    time: str | None = None


Managers = dict[Writer, Entry]


def managers_of(obj: Object) -> Managers:
    found: Managers = {}
    for entry in obj.get("metadata", {}).get("managedFields", ()):
        writer = Writer(
            entry.get("manager", ""),
            entry.get("operation", ""),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
        )
        found[writer] = Entry(entry.get("fieldsV1", {}), entry.get("time"))
    return found


def store_managers(obj: Object, managers: Managers) -> None:
    """Write `managedFields`; managers that own nothing are left out."""
    entries = []
    for writer, entry in managers.items():
        if not entry.fields:
            continue
        row: Object = {"manager": writer.manager, "operation": writer.operation, "apiVersion": writer.version}
        if entry.time:
            row["time"] = entry.time
        row.update(fieldsType="FieldsV1", fieldsV1=entry.fields)
        if writer.subresource:
            row["subresource"] = writer.subresource
        entries.append(row)
    obj["metadata"]["managedFields"] = entries
    if not entries:
        del obj["metadata"]["managedFields"]


@dataclass(slots=True)
class Difference:
    changed: FieldSet = field(default_factory=dict)
    """Added or modified."""
    removed: FieldSet = field(default_factory=dict)


def difference(old: Any, new: Any, schema: Schema) -> Difference:
    """The fields in which two granular values of the same schema differ."""
    found = Difference()
    before, after = _children(old, schema), _children(new, schema)
    for key, (item, child) in after.items():
        if key not in before:
            found.changed[key] = _appeared(key, item, child)
        elif before[key][0] != item:
            previous = before[key][0]
            if granular(item, child) and granular(previous, child) and type(item) is type(previous):
                inner = difference(previous, item, child)
                if inner.changed:
                    found.changed[key] = inner.changed
                if inner.removed:
                    found.removed[key] = inner.removed
            else:
                found.changed[key] = _appeared(key, item, child)
    for key, (item, child) in before.items():
        if key not in after:
            below = field_set(item, child) if granular(item, child) else {}
            found.removed[key] = {".": {}, **below} if below else {}
    return found


def _children(value: Any, schema: Schema) -> dict[str, tuple[Any, Schema]]:
    if isinstance(value, dict):
        return {"f:" + name: (item, schema.field(name)) for name, item in value.items()}
    found = {}
    for item in value:
        key = item_key(item, schema)
        if key is not None:
            found[key] = (item, schema.items)
    return found


def _appeared(key: str, item: Any, schema: Schema) -> FieldSet:
    """The set of a new value: all below it, and a list item or a map itself."""
    inner = field_set(item, schema) if granular(item, schema) else {}
    field_of_struct = key.startswith("f:") and bool(schema.properties)
    return {".": {}, **inner} if inner and not field_of_struct else inner


def merge(live: Any, wanted: Any, schema: Schema) -> Any:
    """`live` with everything that `wanted` says; neither is modified."""
    if not granular(wanted, schema) or type(live) is not type(wanted):
        return wanted
    if isinstance(wanted, dict):
        result = dict(live)
        for name, value in wanted.items():
            result[name] = merge(live[name], value, schema.field(name)) if name in live else value
        return result
    old = {item_key(item, schema): item for item in live}
    new = {item_key(item, schema): item for item in wanted}
    items = schema.items
    return [
        merge(old[key], new[key], items) if key in old and key in new else new.get(key, old.get(key))
        for key in interleave(list(old), list(new))
    ]


def prune(value: Any, previous: FieldSet, keep: FieldSet, schema: Schema) -> Any:
    """`value` without the fields of `previous` that nobody in `keep` names, nor anything below them."""
    if not granular(value, schema):
        return value
    if isinstance(value, dict):
        result = {}
        for name, item in value.items():
            key = "f:" + name
            if key not in previous:
                result[name] = item
            elif key in keep:
                result[name] = prune(item, previous[key], keep[key], schema.field(name))
        return result
    kept = []
    for item in value:
        key = item_key(item, schema) or ""
        if key not in previous:
            kept.append(item)
        elif key in keep:
            kept.append(prune(item, previous[key], keep[key], schema.items))
    return kept


def apply(live: Object | None, wanted: Object, schema: Schema, writer: Writer, *, force: bool, now: str) -> Object:
    """The live object (None: it does not exist) after `writer` applied `wanted`. Raises StatusError 409 on conflicts."""
    base = _without_managers(live or {})
    managers = managers_of(live or {})
    wanted = _without_managers(wanted)
    fields = subtract(field_set(wanted, schema), UNOWNED)
    merged: Object = merge(base, wanted, schema)
    changed = difference(base, merged, schema).changed
    handed_over = _last_applied(base, schema) if writer.manager == KUBECTL else {}
    conflicts: list[tuple[str, str]] = []
    others: FieldSet = {}
    for other, entry in managers.items():
        if other == writer:
            continue
        lost = intersect(entry.fields, intersect(changed, fields))
        if lost and (force or not subtract(lost, handed_over)):
            entry.fields = subtract(entry.fields, lost)
        else:
            conflicts.extend((other.printed(), path) for path in sorted(paths(lost)))
        others = union(others, entry.fields)
    if conflicts:
        raise apply_conflict(conflicts)
    mine = managers.get(writer)
    if mine is not None and mine.fields != fields:
        merged = prune(merged, mine.fields, union(others, fields), schema)
    touched = mine is None or mine.fields != fields or merged != base
    managers[writer] = Entry(fields, now if touched or mine is None else mine.time)
    merged.setdefault("metadata", {})
    merged["metadata"] = dict(merged["metadata"])
    store_managers(merged, managers)
    return merged


def _last_applied(live: Object, schema: Schema) -> FieldSet:
    """What client-side `kubectl apply` wrote: its own server-side apply does not conflict with that."""
    text = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        wanted = json.loads(text or "{}")
    except ValueError:
        return {}
    return field_set(wanted, schema) if isinstance(wanted, dict) else {}


def track(old: Object, new: Object, schema: Schema, writer: Writer, *, now: str) -> None:
    """Record in `new`, in place, that `writer` made of `old` what `new` is.

    `managedFields` that `new` brings along count: kubectl changes them so when it turns from client-side to server-side
    apply, and `[{}]` asks for a clean slate. Without any, those of `old` go on.
    """
    given = new.get("metadata", {}).get("managedFields")
    managers = managers_of(old if given is None else new)
    delta = difference(_without_managers(old), _without_managers(new), schema)
    changed, removed = subtract(delta.changed, UNOWNED), subtract(delta.removed, UNOWNED)
    if changed or removed:
        gone = union(changed, removed)
        for other, entry in managers.items():
            entry.fields = subtract(entry.fields, removed if other == writer else gone)
    if changed:
        mine = managers.get(writer)
        managers[writer] = Entry(union(mine.fields, changed) if mine else changed, now)
    store_managers(new, managers)


def _without_managers(obj: Object) -> Object:
    if "managedFields" not in obj.get("metadata", {}):
        return obj
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}
