"""Strategic merge patch: what `kubectl apply`, `edit` and `patch` send for built-in kinds.

Lists of a schema's `patchStrategy: merge` are merged by `patchMergeKey`. Directives: `$patch: replace|delete|merge`,
`$retainKeys`, `$setElementOrder/<list>`, `$deleteFromPrimitiveList/<list>`.
"""

from __future__ import annotations

from typing import Any

from .errors import bad_request
from .ordering import interleave
from .schema import Schema

ORDER = "$setElementOrder/"
DELETE = "$deleteFromPrimitiveList/"


def strategic_merge(target: Any, patch: Any, schema: Schema) -> Any:
    """`target` changed by `patch`. Neither is modified. Raises StatusError 400 for a directive that makes no sense."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive not in (None, "replace", "merge"):
        raise bad_request(f"unknown directive $patch: {directive!r}; it may be replace, delete or merge")
    result = dict(target) if isinstance(target, dict) and directive != "replace" else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _field(result.get(key), value, schema.field(key), patch.get(ORDER + key))
    for key, value in patch.items():
        if key.startswith(DELETE):
            name = key.removeprefix(DELETE)
            result[name] = [item for item in result.get(name, []) if item not in value]
        elif key.startswith(ORDER) and isinstance(result.get(key.removeprefix(ORDER)), list):
            name = key.removeprefix(ORDER)
            if name not in patch:
                result[name] = _ordered(result[name], value, schema.field(name).patch_merge_key)
    return result


def _field(target: Any, value: Any, schema: Schema, order: list[Any] | None) -> Any:
    if isinstance(value, dict):
        replaced = "replace" in schema.patch_strategies
        return strategic_merge(None if replaced else target, value, schema)
    if isinstance(value, list):
        if "merge" not in schema.patch_strategies:
            return [strategic_merge(None, item, schema.items) for item in value]
        merged = _list(target if isinstance(target, list) else [], value, schema)
        return merged if order is None else _ordered(merged, order, schema.patch_merge_key)
    return value


def _list(target: list[Any], patch: list[Any], schema: Schema) -> list[Any]:
    if not any(isinstance(item, dict) for item in patch):
        return target + [item for item in dict.fromkeys(patch) if item not in target]
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    key = schema.patch_merge_key
    result = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        at = next((i for i, old in enumerate(result) if isinstance(old, dict) and old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            result = [old for old in result if old.get(key) != item[key]]
        elif at is None:
            result.append(strategic_merge(None, item, schema.items))
        else:
            result[at] = strategic_merge(result[at], item, schema.items)
    return result


def _ordered(items: list[Any], order: list[Any], key: str) -> list[Any]:
    if not key or not all(isinstance(item, dict) for item in items):
        places = {item: item for item in items}
        return [item for item in interleave(items, [o for o in order if o in places]) if item in places]
    by_key: dict[Any, list[Any]] = {}
    for item in items:
        by_key.setdefault(item.get(key), []).append(item)
    wanted = [o[key] for o in order if isinstance(o, dict) and o.get(key) in by_key]
    return [item for name in interleave(list(by_key), wanted) for item in by_key[name]]
