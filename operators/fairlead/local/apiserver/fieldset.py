"""Sets of fields, in the encoding of `managedFields` (FieldsV1): nested dicts, so that nothing is converted.

Keys: `f:name` a field, `k:{…}` a list item by its keys, `v:…` a member of a set. A node is in the set itself if it is
empty or has the key `"."`; the root never is, so `{}` is the empty set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .schema import Schema

FieldSet = dict[str, Any]


def item_key(item: Any, schema: Schema) -> str | None:
    """The key of an item of a list of type map or set; None if it lacks its keys."""
    if schema.list_type == "set":
        return "v:" + json.dumps(item, separators=(",", ":"), ensure_ascii=False)
    if not isinstance(item, dict):
        return None
    keys = {}
    for name in sorted(schema.list_keys):
        value = item.get(name)
        if value is None:
            value = schema.items.field(name).default
        if value is not None:
            keys[name] = value
    return "k:" + json.dumps(keys, separators=(",", ":"), ensure_ascii=False) if keys else None


def granular(value: Any, schema: Schema) -> bool:
    """Whether parts of the value can belong to different managers."""
    if isinstance(value, dict):
        return not schema.atomic_map
    return isinstance(value, list) and schema.list_type in ("map", "set")


def field_set(value: Any, schema: Schema) -> FieldSet:
    """All fields of a granular value."""
    result: FieldSet = {}
    if isinstance(value, dict):
        declared = schema.properties
        for name, item in value.items():
            child = schema.field(name)
            if not granular(item, child) or not item:
                result["f:" + name] = {}
            elif inner := field_set(item, child):
                result["f:" + name] = inner if name in declared else {".": {}, **inner}
    else:
        items = schema.items
        for item in value:
            key = item_key(item, schema)
            if key is not None:
                inner = field_set(item, items) if granular(item, items) else {}
                result[key] = {".": {}, **inner} if inner else {}
    return result


def _member(node: FieldSet) -> bool:
    return not node or "." in node


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    result = dict(left)
    for key, node in right.items():
        mine = result.get(key)
        if mine is None:
            result[key] = node
        elif mine != node:
            both = union(mine, node)
            result[key] = {".": {}, **both} if _member(mine) or _member(node) else both
    return result


def subtract(left: FieldSet, right: FieldSet) -> FieldSet:
    """The members of `left` which are not members of `right`."""
    result: FieldSet = {}
    for key, node in left.items():
        if key == ".":
            continue
        other = right.get(key)
        if other is None:
            result[key] = node
            continue
        rest = subtract(node, other)
        if _member(node) and not _member(other):
            result[key] = {".": {}, **rest} if rest else {}
        elif rest:
            result[key] = rest
    return result


def intersect(left: FieldSet, right: FieldSet) -> FieldSet:
    result: FieldSet = {}
    for key, node in left.items():
        other = right.get(key)
        if key == "." or other is None:
            continue
        both = intersect(node, other)
        if _member(node) and _member(other):
            result[key] = {".": {}, **both} if both else {}
        elif both:
            result[key] = both
    return result


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """The members as people read them: `.spec.ports[containerPort=80,protocol="TCP"].name`."""
    for key, node in fields.items():
        if key == ".":
            continue
        path = prefix + _printed(key)
        if _member(node):
            yield path
        yield from paths(node, path)


def _printed(key: str) -> str:
    kind, _, rest = key.partition(":")
    if kind == "f":
        return "." + rest
    if kind == "v":
        return f"[={rest}]"
    pairs = ",".join(f"{name}={json.dumps(value)}" for name, value in json.loads(rest).items())
    return f"[{pairs}]"
