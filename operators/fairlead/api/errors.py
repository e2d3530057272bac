"""What can be wrong with an object of ours.

ApiTypeError
└── InvalidObject    the object breaks its schema or one of its rules; names every place and what to do
"""

from __future__ import annotations

from typing import NamedTuple


class ApiTypeError(Exception):
    """Base of the errors that `fairlead.api` raises."""


class Problem(NamedTuple):
    """One thing that is wrong: where (`spec.predictor.model`), and what to do about it."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidObject(ApiTypeError):
    """The object is not a valid `kind`. `problems` has at least one entry."""

    def __init__(self, kind: str, name: str, problems: tuple[Problem, ...]) -> None:
        self.kind = kind
        self.name = name
        self.problems = problems
        super().__init__(f"{kind} {name or '(no name)'}: " + "; ".join(map(str, problems)))
