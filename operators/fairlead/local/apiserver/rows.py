"""What a table's row is made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .durations import since
from .kinds import Column

NONE = "<none>"


@dataclass(frozen=True)
class Row:
    """An object to be printed, and when."""

    obj: dict[str, Any]
    now: float

    def __getitem__(self, path: str) -> Any:
        """The value at a dotted path; None where there is none."""
        value: Any = self.obj
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        return value

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def age(self) -> str:
        created = self["metadata.creationTimestamp"]
        return since(created, self.now) if created else "<unknown>"


@dataclass(frozen=True)
class Definition:
    columns: tuple[Column, ...]
    cells: Callable[[Row], list[Any]]
