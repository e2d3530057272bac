"""The part of JSONPath that printer columns and scale paths use: fields, indexes, `*`, `..` not, filters `[?(@.a=='b')]`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_STEP = re.compile(
    r"""\.?(?:
        (?P<field>(?:[\w$/-]|\\.)+)
      | \[\s*'(?P<quoted>[^']*)'\s*\] | \[\s*"(?P<double>[^"]*)"\s*\]
      | \[\s*(?P<index>-?\d+)\s*\]
      | (?P<all>\[\s*\*\s*\]|\*)
      | \[\?\(\s*@(?P<left>[^=!<>\s]*)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<right>'[^']*'|"[^"]*"|[^)\s]+))?\s*\)\]
    )""",
    re.VERBOSE,
)
Step = Callable[[Any], list[Any]]


@lru_cache(maxsize=512)
def compile_path(path: str) -> Callable[[Any], list[Any]]:
    """A function from an object to all values at `path`. Raises ValueError for what is not understood."""
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if not found or found.end() == at:
            raise ValueError(f"JSONPath {path!r} is not understood at {text[at:]!r}")
        steps.append(_step(found))
        at = found.end()

    def values(obj: Any) -> list[Any]:
        current = [obj]
        for step in steps:
            current = [value for item in current for value in step(item)]
        return current

    return values


def _step(found: re.Match[str]) -> Step:
    if found["index"] is not None:
        index = int(found["index"])
        return lambda item: [item[index]] if isinstance(item, list) and -len(item) <= index < len(item) else []
    if found["all"] is not None:
        return lambda item: (
            list(item.values()) if isinstance(item, dict) else list(item) if isinstance(item, list) else []
        )
    if found["left"] is not None:
        return _filter(found["left"], found["op"], found["right"])
    raw = (
        found["field"]
        if found["field"] is not None
        else found["quoted"]
        if found["quoted"] is not None
        else found["double"]
    )
    name = re.sub(r"\\(.)", r"\1", raw)
    return lambda item: [item[name]] if isinstance(item, dict) and name in item else []


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


def _filter(left: str, operator: str | None, right: str | None) -> Step:
    path = compile_path(left)
    literal = _literal(right) if right is not None else None

    def keep(item: Any) -> bool:
        values = path(item)
        if operator is None:
            return bool(values)
        try:
            return bool(values) and _COMPARE[operator](values[0], literal)
        except TypeError:
            return False

    return lambda item: [x for x in item if keep(x)] if isinstance(item, list) else []


def _literal(text: str) -> Any:
    if text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    return float(text) if "." in text else int(text) if text.lstrip("-").isdigit() else text
