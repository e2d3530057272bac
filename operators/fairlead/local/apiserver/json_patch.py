"""JSON patch, RFC 6902, with JSON pointers, RFC 6901."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from .errors import StatusError


def failed(why: str) -> StatusError:
    return StatusError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def json_patch(target: Any, operations: Sequence[Any]) -> Any:
    """A changed copy of `target`. Raises StatusError 422 and changes nothing if one operation cannot be done."""
    result = copy.deepcopy(target)
    for position, operation in enumerate(operations):
        where = f"operation {position}"
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise failed(f"{where} is not an object with op and path")
        result = _apply(result, operation, where)
    return result


def _apply(document: Any, operation: dict[str, Any], where: str) -> Any:
    path = _pointer(operation["path"])
    match operation.get("op"):
        case "add":
            return _add(document, path, _value(operation, where), where)
        case "remove":
            return _remove(document, path, where)
        case "replace":
            _get(document, path, where)
            return _add(_remove(document, path, where), path, _value(operation, where), where)
        case "move":
            source = _pointer(operation.get("from", ""))
            value = _get(document, source, where)
            return _add(_remove(document, source, where), path, value, where)
        case "copy":
            value = copy.deepcopy(_get(document, _pointer(operation.get("from", "")), where))
            return _add(document, path, value, where)
        case "test":
            if not _same(_get(document, path, where), _value(operation, where)):
                raise failed(f"testing value {operation['path']} failed")
            return document
        case other:
            raise failed(f"{where} has an unknown op {other!r}")


def _same(left: Any, right: Any) -> bool:
    """JSON equality: Python's own takes true for 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _value(operation: dict[str, Any], where: str) -> Any:
    if "value" not in operation:
        raise failed(f"{where} ({operation['op']}) has no value")
    return operation["value"]


def _pointer(path: Any) -> list[str]:
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise failed(f"{path!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _index(array: list[Any], token: str, end: int, where: str) -> int:
    if not token.isdigit() or int(token) >= end:
        raise failed(f"{where}: index {token!r} is outside of the list of {len(array)}")
    return int(token)


def _get(document: Any, path: list[str], where: str) -> Any:
    for token in path:
        if isinstance(document, dict) and token in document:
            document = document[token]
        elif isinstance(document, list):
            document = document[_index(document, token, len(document), where)]
        else:
            raise failed(f"{where}: there is no value at {token!r} of /{'/'.join(path)}")
    return document


def _add(document: Any, path: list[str], value: Any, where: str) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1], where), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(parent, last, len(parent) + 1, where), value)
    else:
        raise failed(f"{where}: the parent of /{'/'.join(path)} is neither an object nor a list")
    return document


def _remove(document: Any, path: list[str], where: str) -> Any:
    _get(document, path, where)
    if not path:
        return None
    parent = _get(document, path[:-1], where)
    if isinstance(parent, dict):
        del parent[path[-1]]
    else:
        del parent[_index(parent, path[-1], len(parent), where)]
    return document
