"""CEL rules of CRDs (`x-kubernetes-validations`), evaluated by the Rust interpreter of `common-expression-language`.

The interpreter is loaded when the first rule is met. A rule that cannot be evaluated is a fault of the object's CRD and is
reported as such, never passed over.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from .errors import FieldError, invalid_value, shown
from .schema import Schema
from .validation import join, json_type

NOT_CHECKED = FieldError(
    "<nil>",
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
BLOCKING = {
    "FieldValueRequired", "FieldValueTypeInvalid", "FieldValueTooLong", "FieldValueTooMany",
    "FieldValueNotSupported", "FieldValueDuplicate",
}  # fmt: skip
"""Faults after which rules are not evaluated: they may rely on what is missing."""


@cache
def _interpreter() -> Any:
    """The extension module alone: its package also imports a command line, 15 MB of it."""
    package = importlib.util.find_spec("cel")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("CEL rules need `common-expression-language`: pip install 'fairlead[local]'")
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(package.submodule_search_locations[0]) / f"cel{suffix}"
        if path.exists():
            spec = importlib.util.spec_from_file_location("cel", path)
            if spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    return importlib.import_module("cel")


def _indexed(items: list[Any], wanted: Any) -> int:
    return items.index(wanted) if wanted in items else -1


FUNCTIONS: dict[str, Any] = {
    "sum": lambda items: sum(items),
    "isSorted": lambda items: all(a <= b for a, b in itertools.pairwise(items)),
    "indexOf": lambda whole, part: whole.find(part) if isinstance(whole, str) else _indexed(whole, part),
    "split": lambda text, by: text.split(by),
    "join": lambda items, by="": by.join(items),
    "trim": lambda text: text.strip(),
    "lowerAscii": lambda text: text.lower(),
    "upperAscii": lambda text: text.upper(),
    "replace": lambda text, old, new: text.replace(old, new),
    "substring": lambda text, start, end=None: text[start:end],
}
"""Kubernetes' list and string libraries, as far as the interpreter does not bring them."""


@cache
def _program(rule: str) -> Any:
    return _interpreter().compile(rule)


def has_rules(schema: Schema) -> bool:
    """Whether there is a rule in the schema or below."""
    known = schema.__dict__.get("_has_rules")
    if known is None:
        children = [*schema.properties.values(), *([schema.items] if schema.kind == "array" else [])]
        if schema.additional is not None:
            children.append(schema.additional)
        known = "x-kubernetes-validations" in schema.raw or (
            schema.structural and any(has_rules(child) for child in children)
        )
        schema.__dict__["_has_rules"] = known
    return bool(known)


def check_rules(value: Any, old: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    """Evaluate all rules on `value`; those that speak of `oldSelf` only if there is an old value."""
    if value is None or not has_rules(schema):
        return
    for rule in schema.raw.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] or old is not None:
            yield from _check(rule, value, old, schema, path)
    if isinstance(value, dict):
        for name, item in value.items():
            child = schema.properties.get(name) or schema.additional
            if child is not None:
                before = old.get(name) if isinstance(old, dict) else None
                yield from check_rules(item, before, child, join(path, name))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            before = _counterpart(item, old, schema)
            yield from check_rules(item, before, schema.items, f"{path}[{position}]")


def _counterpart(item: Any, old: Any, schema: Schema) -> Any:
    """The item of the old list with the same keys; there is none in lists without keys."""
    if schema.list_type != "map" or not isinstance(old, list) or not isinstance(item, dict):
        return None
    same = (o for o in old if isinstance(o, dict) and all(o.get(k) == item.get(k) for k in schema.list_keys))
    return next(same, None)


def _check(rule: dict[str, Any], value: Any, old: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    variables = {"self": typed(value, schema), "oldSelf": typed(old, schema)}
    at = path + rule.get("fieldPath", "") if path else rule.get("fieldPath", "").lstrip(".")
    try:
        context = _interpreter().Context(variables=variables, functions=FUNCTIONS)
        if _program(rule["rule"]).execute(context) is True:
            return
        message = rule.get("message") or f"failed rule: {' '.join(rule['rule'].split())}"
        if rule.get("messageExpression"):
            message = str(_program(rule["messageExpression"]).execute(context)) or message
    except (ValueError, TypeError, RuntimeError, KeyError, IndexError, ArithmeticError) as fault:
        message = f"rule compile error or evaluation failed: {fault} in rule {shown(rule['rule'])}"
    reason = rule.get("reason", "FieldValueInvalid")
    shown_value = json_type(value) if isinstance(value, (dict, list)) else value
    if reason == "FieldValueInvalid":
        yield invalid_value(at or "<nil>", shown_value, message)
    else:
        yield FieldError(at, reason, message)


def typed(value: Any, schema: Schema) -> Any:
    """`value` with the numbers that the schema calls `number` as floats: CEL does not compare 1 with 1.0."""
    if isinstance(value, dict):
        return {name: typed(item, schema.field(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [typed(item, schema.items) for item in value]
    if schema.kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
