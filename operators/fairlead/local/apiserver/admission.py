"""From what a client sent to what may be stored: decode, drop or refuse unknown fields, fill in defaults, validate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import errors
from .cel_rules import BLOCKING, NOT_CHECKED, check_rules, has_rules
from .defaults import apply_defaults
from .errors import FieldError
from .kinds import Kind
from .rules import check_builtin
from .schema import OBJECT_META, builtin
from .validation import decode, default, prune, unknown_fields_error, validate, validate_name

Object = dict[str, Any]

_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")


@dataclass(slots=True)
class Options:
    """How a write is meant: the query parameters of a POST, PUT or PATCH."""

    manager: str = "unknown"
    field_validation: str = "Warn"
    """Ignore, Warn or Strict."""
    dry_run: bool = False
    force: bool = False
    warnings: list[str] = field(default_factory=list)
    """Filled in here; they become Warning headers."""


def admit(obj: Object, old: Object | None, kind: Kind, options: Options, *, subresource: str = "") -> None:
    """Make `obj`, in place, what can be stored instead of `old`. Raises StatusError 400 or 422."""
    decode_strictly(obj, kind, options)
    if kind.custom is not None:
        default(obj, kind.schema)
    else:
        apply_defaults(obj, kind.kind, kind.group)
    faults = list(_faults(obj, old, kind, subresource))
    if faults:
        name = obj["metadata"].get("name") or obj["metadata"].get("generateName", "")
        raise errors.invalid(kind.kind, kind.group, name, faults)


def decode_strictly(obj: Object, kind: Kind, options: Options) -> None:
    """Check types as far as they are Go's, and deal with unknown fields as the client asked."""
    if kind.custom is None:
        decode(obj, kind.schema, kind.kind, kind.version)
    else:
        decode(obj["metadata"], builtin(OBJECT_META), kind.kind, kind.version)
    unknown: list[str] = []
    prune(obj, kind.schema, "", unknown)
    if unknown and options.field_validation == "Strict":
        raise unknown_fields_error(kind.kind, kind.version, unknown)
    if unknown and options.field_validation == "Warn":
        options.warnings.extend(f'unknown field "{name}"' for name in sorted(unknown))


def _faults(obj: Object, old: Object | None, kind: Kind, subresource: str) -> Iterator[FieldError]:
    if old is None:
        yield from _metadata(obj["metadata"], kind)
    elif obj["metadata"].get("labels") != old["metadata"].get("labels"):
        yield from _labels(obj["metadata"])
    if kind.custom is None:
        if not subresource:
            yield from check_builtin(obj, old, kind.kind, kind.group)
        return
    if subresource:
        yield from _custom(obj.get(subresource), (old or {}).get(subresource), kind, subresource)
    else:
        yield from _custom(obj, old, kind, "")


def _custom(value: Any, old: Any, kind: Kind, field_name: str) -> Iterator[FieldError]:
    schema = kind.schema.field(field_name) if field_name else kind.schema
    if value is None and field_name:
        return
    found = list(validate(value, schema, field_name))
    yield from found
    if has_rules(schema):
        if any(fault.reason in BLOCKING for fault in found):
            yield NOT_CHECKED
        else:
            yield from check_rules(value, old, schema, field_name)


def _metadata(metadata: Object, kind: Kind) -> Iterator[FieldError]:
    name = metadata.get("name")
    if not name:
        yield errors.required_value("metadata.name", "name or generateName is required")
    else:
        yield from validate_name(name, kind.name_rule)
    yield from _labels(metadata)


def _labels(metadata: Object) -> Iterator[FieldError]:
    for key, value in (metadata.get("labels") or {}).items():
        if not _LABEL_KEY.fullmatch(key):
            detail = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            yield errors.invalid_value("metadata.labels", key, detail)
        if len(value) > 63:
            yield errors.invalid_value("metadata.labels", value, "must be no more than 63 bytes")
        elif not _LABEL_VALUE.fullmatch(value):
            detail = (
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
                "start and end with an alphanumeric character"
            )
            yield errors.invalid_value("metadata.labels", value, detail)
