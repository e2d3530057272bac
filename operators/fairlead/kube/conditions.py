"""Status conditions: lists of `{type, status, reason, message, lastTransitionTime}`, in the order of their first appearance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from fairlead.kube.objects import Object, timestamp

Status = Literal["True", "False", "Unknown"]


def set_condition(
    conditions: Iterable[Mapping[str, Any]], type: str, status: Status, reason: str, message: str, now: datetime
) -> list[Object]:
    """The conditions with this one set. `lastTransitionTime` moves only when `status` changes.

    An empty reason or message is left out.
    """
    result = [dict(condition) for condition in conditions]
    old = next((condition for condition in result if condition["type"] == type), None)
    moved = old is None or old.get("status") != status or "lastTransitionTime" not in old
    new: Object = {
        "type": type,
        "status": status,
        **({"reason": reason} if reason else {}),
        **({"message": message} if message else {}),
        "lastTransitionTime": timestamp(now) if moved or old is None else old["lastTransitionTime"],
    }
    if old is None:
        return [*result, new]
    return [new if condition is old else condition for condition in result]


def remove_condition(conditions: Iterable[Mapping[str, Any]], type: str) -> list[Object]:
    return [dict(condition) for condition in conditions if condition["type"] != type]


def get_condition(conditions: Iterable[Mapping[str, Any]], type: str) -> Mapping[str, Any] | None:
    return next((condition for condition in conditions if condition["type"] == type), None)


def is_true(conditions: Iterable[Mapping[str, Any]], type: str) -> bool:
    condition = get_condition(conditions, type)
    return condition is not None and condition.get("status") == "True"
