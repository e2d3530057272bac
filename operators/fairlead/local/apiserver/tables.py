"""`kubectl get`: objects as rows of a `meta.k8s.io/v1` Table, the form in which the server prints for the client.

Custom kinds say their columns in the CRD; those of the built-in kinds are in `builtin_columns`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from .builtin_columns import BUILTIN
from .durations import since
from .jsonpath import compile_path
from .kinds import Column, Kind
from .rows import Definition, Row

NAME = Column("Name", "string", ".metadata.name", "Name must be unique within a namespace.", format="name")
AGE = Column("Age", "date", ".metadata.creationTimestamp", "CreationTimestamp is when this object was created.")


def columns(kind: Kind) -> Sequence[Column]:
    """The columns of a kind's table."""
    definition = BUILTIN.get(kind.storage)
    if definition is not None:
        return definition.columns
    return (NAME, *kind.columns) if kind.columns else (NAME, AGE)


def table(
    kind: Kind,
    objects: Iterable[dict[str, Any]],
    now: float,
    *,
    version: str,
    include: str = "Metadata",
    headers: bool = True,
) -> dict[str, Any]:
    """The Table. `include` says how much of each object goes with its row: None, Metadata or Object."""
    definition = BUILTIN.get(kind.storage) or _custom(kind)
    rows = [{"cells": definition.cells(Row(obj, now)), **_object(obj, include)} for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [_described(column) for column in definition.columns] if headers else None,
        "rows": rows,
    }


def _described(column: Column) -> dict[str, Any]:
    kind = "string" if column.type == "date" and not column.path else column.type
    return {
        "name": column.name,
        "type": kind,
        "format": column.format,
        "description": column.description or column.path or column.name,
        "priority": column.priority,
    }


def _object(obj: dict[str, Any], include: str) -> dict[str, Any]:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": obj}
    return {"object": partial(obj)}


def partial(obj: dict[str, Any]) -> dict[str, Any]:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


@functools.lru_cache(maxsize=64)
def _custom(kind: Kind) -> Definition:
    shown = tuple(columns(kind))
    paths = [(column, compile_path(column.path)) for column in shown]

    def cells(row: Row) -> list[Any]:
        return [_cell(column, values(row.obj), row.now) for column, values in paths]

    return Definition(shown, cells)


def _cell(column: Column, values: list[Any], now: float) -> Any:
    if not values or values[0] is None:
        return "<unknown>" if column.type == "date" and column.path == AGE.path else None
    value = values[0]
    match column.type:
        case "date":
            return since(value, now)
        case "integer":
            return int(value) if isinstance(value, (int, float)) else None
        case "number":
            return value if isinstance(value, (int, float)) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    return value if isinstance(value, str) else printed(value)


def printed(value: Any) -> str:
    """A value in a column of strings, as Go's %v would have it for what people print: numbers and truth values."""
    return str(value).lower() if isinstance(value, bool) else str(value)
