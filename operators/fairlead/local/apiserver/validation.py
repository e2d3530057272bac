"""Objects against their schema, with the texts of a real API server.

`prune` drops what the schema does not name and says what it was; `default` fills in; `validate` lists what is wrong with an
object of a custom kind. Objects of built-in kinds are decoded into Go structs by a real server, hence `decode`, whose
complaints are worded like Go's. CEL rules are in `cel_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from . import errors
from .errors import FieldError, StatusError
from .schema import Schema

_PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "int-or-string": (int, str),
    "quantity": (int, float, str),
}
_GO_TYPES = {"object": "map", "array": "slice", "boolean": "bool", "number": "float64"}
_FORMATS = {
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$"),
    "date": re.compile(r"\d{4}-\d\d-\d\d$"),
    "uuid": re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
    "ipv4": re.compile(r"(\d{1,3}\.){3}\d{1,3}$"),
}


def json_type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def has_type(value: Any, kind: str) -> bool:
    if kind == "any":
        return True
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _PYTHON_TYPES[kind])


def join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


# --- Unknown fields ---------------------------------------------------------------------------------------------


def prune(value: Any, schema: Schema, path: str, unknown: list[str]) -> None:
    """Remove from `value`, in place, the fields that the schema does not know; their paths are added to `unknown`."""
    if isinstance(value, dict):
        known = schema.properties
        for name in list(value):
            child = known.get(name) or schema.additional
            if child is not None:
                if isinstance(value[name], (dict, list)):
                    prune(value[name], child, join(path, name), unknown)
            elif not schema.open:
                unknown.append(join(path, name))
                del value[name]
    elif isinstance(value, list):
        items = schema.items
        for position, item in enumerate(value):
            if isinstance(item, (dict, list)):
                prune(item, items, f"{path}[{position}]", unknown)


# --- Defaults ---------------------------------------------------------------------------------------------------


def default(value: Any, schema: Schema) -> None:
    """Fill in, in place, the defaults that the schema gives for absent fields."""
    if isinstance(value, dict):
        for name, child in schema.properties.items():
            if (name not in value or value[name] is None) and child.structural and "default" in child.raw:
                value[name] = _fresh(child.raw["default"])
            if name in value:
                default(value[name], child)
        if schema.additional is not None:
            for name, item in value.items():
                if name not in schema.properties:
                    default(item, schema.additional)
    elif isinstance(value, list) and schema.kind == "array":
        for item in value:
            default(item, schema.items)


def _fresh(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _fresh(item) for key, item in value.items()}
    return [_fresh(item) for item in value] if isinstance(value, list) else value


# --- Built-in kinds: decoding -----------------------------------------------------------------------------------


def decode(value: Any, schema: Schema, kind: str, version: str) -> None:
    """Check types and drop nulls, in place, as decoding JSON into a Go struct does. Raises StatusError 400."""
    wrong = _first_mismatch(value, schema)
    if wrong is None:
        return
    path, node, expected = wrong
    found = {"object": "object", "integer": "number", "boolean": "bool"}.get(json_type(node), json_type(node))
    declared = expected.raw.get("format") if expected.kind in ("integer", "string") else None
    raise errors.bad_request(
        f'{kind} in version "{version}" cannot be handled as a {kind}: json: cannot unmarshal {found} '
        f"into Go struct field {kind}{path} of type {declared or _GO_TYPES.get(expected.kind, expected.kind)}"
    )


def _first_mismatch(node: Any, schema: Schema) -> tuple[str, Any, Schema] | None:
    """(path, value, schema) of the first value of a wrong type. The path is put together on the way back: most have none."""
    if not has_type(node, schema.kind):
        return ("", node, schema)
    if isinstance(node, dict):
        for name, item in list(node.items()):
            if item is None and not schema.open:
                del node[name]
            elif wrong := _first_mismatch(item, schema.field(name)):
                return (f".{name}{wrong[0]}", *wrong[1:])
    elif isinstance(node, list):
        items = schema.items
        for position, item in enumerate(node):
            if wrong := _first_mismatch(item, items):
                return (f"[{position}]{wrong[0]}", *wrong[1:])
    return None


def unknown_fields_error(kind: str, version: str, unknown: list[str]) -> StatusError:
    names = ", ".join(f'unknown field "{field}"' for field in sorted(unknown))
    return errors.bad_request(
        f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {names}'
    )


# --- Custom kinds: structural validation ------------------------------------------------------------------------


def validate(value: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    """Everything in which `value` departs from the schema; nothing below a value of the wrong type."""
    if value is None and schema.raw.get("nullable"):
        return
    if not has_type(value, schema.kind):
        yield errors.wrong_type(
            path, json_type(value), {"int-or-string": "integer,string"}.get(schema.kind, schema.kind)
        )
        return
    supported = schema.raw.get("enum")
    if supported is not None and value not in supported:
        yield errors.unsupported_value(path, value, supported)
    if isinstance(value, dict):
        yield from _object(value, schema, path)
    elif isinstance(value, list):
        yield from _array(value, schema, path)
    elif isinstance(value, str):
        yield from _string(value, schema.raw, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(value, schema.raw, path)
    yield from _combined(value, schema.raw, path)


def _object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[FieldError]:
    for name in schema.required:
        if name not in value:
            yield errors.required_value(join(path, name))
    for name, item in value.items():
        child = schema.properties.get(name) or schema.additional
        if child is not None:
            yield from validate(item, child, join(path, name))
    count, most, least = len(value), schema.raw.get("maxProperties"), schema.raw.get("minProperties")
    if most is not None and count > most:
        yield errors.too_many(path, count, most)
    if least is not None and count < least:
        yield errors.invalid_value(path, count, f"{path} in body should have at least {least} properties")


def _array(value: list[Any], schema: Schema, path: str) -> Iterator[FieldError]:
    count, most, least = len(value), schema.raw.get("maxItems"), schema.raw.get("minItems")
    if most is not None and count > most:
        yield errors.too_many(path, count, most)
    if least is not None and count < least:
        yield errors.invalid_value(path, count, f"{path} in body should have at least {least} items")
    for position, item in enumerate(value):
        yield from validate(item, schema.items, f"{path}[{position}]")
    seen: set[str] = set()
    for position, item in enumerate(value if schema.list_type in ("set", "map") else ()):
        identity: Any = item
        if schema.list_type == "map" and isinstance(item, dict):
            identity = {key: item[key] for key in schema.list_keys if key in item}
        text = errors.shown(identity)
        if text in seen:
            yield errors.duplicate_value(f"{path}[{position}]", identity)
        seen.add(text)


def _string(value: str, raw: dict[str, Any], path: str) -> Iterator[FieldError]:
    most, least, pattern = raw.get("maxLength"), raw.get("minLength"), raw.get("pattern")
    if most is not None and len(value) > most:
        yield errors.too_long(path, most)
    elif least is not None and len(value) < least:
        yield errors.invalid_value(path, value, f"{path} in body should be at least {least} chars long")
    elif pattern is not None and not _pattern(pattern).search(value):
        yield errors.invalid_value(path, value, f"{path} in body should match '{pattern}'")
    known_format = _FORMATS.get(raw.get("format", ""))
    if known_format is not None and not known_format.match(value):
        yield errors.invalid_value(
            path, value, f"{path} in body must be of type {raw['format']}: {errors.shown(value)}"
        )


def _number(value: float, raw: dict[str, Any], path: str) -> Iterator[FieldError]:
    least, most, step = raw.get("minimum"), raw.get("maximum"), raw.get("multipleOf")
    if least is not None and (value < least or (value == least and raw.get("exclusiveMinimum"))):
        bound = "greater than" if raw.get("exclusiveMinimum") else "greater than or equal to"
        yield errors.invalid_value(path, value, f"{path} in body should be {bound} {least}")
    if most is not None and (value > most or (value == most and raw.get("exclusiveMaximum"))):
        bound = "less than" if raw.get("exclusiveMaximum") else "less than or equal to"
        yield errors.invalid_value(path, value, f"{path} in body should be {bound} {most}")
    if step and value % step:
        yield errors.invalid_value(path, value, f"{path} in body should be a multiple of {step}")


def _combined(value: Any, raw: dict[str, Any], path: str) -> Iterator[FieldError]:
    """allOf, anyOf, oneOf and not."""
    for part in raw.get("allOf", ()):
        yield from validate(value, _part(part), path)
    any_of = raw.get("anyOf") if raw.get("x-kubernetes-int-or-string") is not True else None
    if any_of is not None and not any(_fits(value, part, path) for part in any_of):
        yield errors.invalid_value(path, json_type(value), "must validate at least one schema (anyOf)")
    if "oneOf" in raw and sum(_fits(value, part, path) for part in raw["oneOf"]) != 1:
        yield errors.invalid_value(path, json_type(value), "must validate one and only one schema (oneOf)")
    if "not" in raw and _fits(value, raw["not"], path):
        yield errors.invalid_value(path, json_type(value), "must not validate the schema (not)")


def _part(raw: dict[str, Any]) -> Schema:
    return Schema(raw, structural=True)


def _fits(value: Any, raw: dict[str, Any], path: str) -> bool:
    return next(validate(value, _part(raw), path), None) is None


@lru_cache(maxsize=512)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace(r"\z", r"\Z"))


# --- Names ------------------------------------------------------------------------------------------------------

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SERVICE_LABEL = r"[a-z]([-a-z0-9]*[a-z0-9])?"


def validate_name(name: str, rule: str, path: str = "metadata.name") -> Iterator[FieldError]:
    """`rule` is subdomain, label (namespaces), service (RFC 1035) or path (RBAC: anything without `/` and `%`)."""
    if rule == "path":
        if "/" in name or "%" in name or name in (".", ".."):
            yield errors.invalid_value(path, name, "may not contain '/' or '%'")
        return
    kind, pattern, limit, starts, example = {
        "subdomain": ("a lowercase RFC 1123 subdomain", _SUBDOMAIN, 253, "an alphanumeric character", "'example.com'"),
        "label": ("a lowercase RFC 1123 label", _LABEL, 63, "an alphanumeric character", "'my-name',  or '123-abc'"),
        "service": ("a DNS-1035 label", _SERVICE_LABEL, 63, "an alphabetic character", "'my-name',  or 'abc-123'"),
    }[rule]
    if len(name) > limit:
        yield errors.invalid_value(path, name, f"must be no more than {limit} characters")
    if not re.fullmatch(pattern, name):
        marks = "'-' or '.'" if rule == "subdomain" else "'-'"
        begin = (
            f"start and end with {starts}"
            if rule != "service"
            else f"start with {starts}, and end with an alphanumeric character"
        )
        yield errors.invalid_value(
            path,
            name,
            f"{kind} must consist of lower case alphanumeric characters{',' if rule == 'subdomain' else ' or'} "
            f"{marks}, and must {begin} (e.g. {example}, regex used for validation is '{pattern}')",
        )
