"""Label and field selectors: parsed once per request, asked once per object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .errors import bad_request

_TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|>|<|[A-Za-z0-9._/-]+)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """`operator` is one of: in, notin, exists, absent, gt, lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
        if value is None or not value.lstrip("-").isdigit():
            return False
        bound = int(next(iter(self.values)))
        return int(value) > bound if self.operator == "gt" else int(value) < bound


@dataclass(frozen=True, slots=True)
class LabelSelector:
    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(r.matches(labels) for r in self.requirements)


class _Tokens:
    def __init__(self, text: str) -> None:
        self.text = text
        self.rest: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if not found:
                raise self.error(text[at:])
            self.rest.append(found.group(1))
            at = found.end()

    def error(self, near: str) -> Exception:
        return bad_request(f"unable to parse requirement: found {near!r} in label selector {self.text!r}")

    def peek(self) -> str:
        return self.rest[0] if self.rest else ""

    def take(self, *wanted: str) -> str:
        token = self.rest.pop(0) if self.rest else ""
        if (wanted and token not in wanted) or (not wanted and (not token or not re.match(r"[A-Za-z0-9]", token))):
            raise self.error(token or "end of text")
        return token


def parse_labels(text: str) -> LabelSelector | None:
    """The selector in Kubernetes' syntax (`a=b,c!=d,e in (f,g),!h`); None if it selects everything."""
    tokens = _Tokens(text)
    requirements: list[Requirement] = []
    while tokens.peek():
        if tokens.peek() == "!":
            tokens.take("!")
            requirements.append(Requirement(tokens.take(), "absent"))
        else:
            requirements.append(_requirement(tokens.take(), tokens))
        if tokens.peek():
            tokens.take(",")
    return LabelSelector(tuple(requirements)) if requirements else None


def _requirement(key: str, tokens: _Tokens) -> Requirement:
    operator = tokens.peek()
    if operator in ("", ","):
        return Requirement(key, "exists")
    tokens.take("=", "==", "!=", "in", "notin", ">", "<")
    if operator in ("in", "notin"):
        tokens.take("(")
        values = {_value(tokens)}
        while tokens.peek() == ",":
            tokens.take(",")
            values.add(_value(tokens))
        tokens.take(")")
        return Requirement(key, operator, frozenset(values))
    if operator in (">", "<"):
        return Requirement(key, "gt" if operator == ">" else "lt", frozenset([tokens.take()]))
    return Requirement(key, "notin" if operator == "!=" else "in", frozenset([_value(tokens)]))


def _value(tokens: _Tokens) -> str:
    return "" if tokens.peek() in ("", ",", ")") else tokens.take()


FieldTest = tuple[str, str, bool]
"""(path, value, whether it must be equal)."""


@dataclass(frozen=True, slots=True)
class FieldSelector:
    tests: tuple[FieldTest, ...]

    def matches(self, field: Callable[[str], str]) -> bool:
        return all((field(path) == value) is equal for path, value, equal in self.tests)

    def only(self, path: str) -> str | None:
        """The value that `path` must equal, if the selector fixes it."""
        return next((value for p, value, equal in self.tests if p == path and equal), None)

    @property
    def by_name_alone(self) -> bool:
        return all(path in ("metadata.name", "metadata.namespace") for path, _, _ in self.tests)


def parse_fields(text: str) -> FieldSelector | None:
    """`metadata.name=x,status.phase!=Running`; None if it selects everything."""
    tests: list[FieldTest] = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        found = re.match(r"([^=!]+)(==|!=|=)(.*)$", term)
        if not found:
            raise bad_request(f"invalid field selector {text!r}: {term!r} is not key=value or key!=value")
        tests.append((found.group(1).strip(), found.group(3).strip(), found.group(2) != "!="))
    return FieldSelector(tuple(tests)) if tests else None
