"""What the API server refuses, as the `Status` objects that a Kubernetes API server answers.

StatusError carries code, reason and message; the functions below make the usual ones with Kubernetes' own texts.
FieldError is one thing wrong in one field of an object; `invalid` gathers them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class StatusError(Exception):
    """A request that was not done; `status()` is the answer's body."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of one field. `reason` is Kubernetes' cause type; `message` is what kubectl prints after the field."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def invalid_value(field: str, value: Any, detail: str) -> FieldError:
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}")


def wrong_type(field: str, found: str, wanted: str) -> FieldError:
    """`found` and `wanted` are JSON type names, as the API server prints them."""
    text = f'Invalid value: "{found}": {field} in body must be of type {wanted}: "{found}"'
    return FieldError(field, "FieldValueTypeInvalid", text)


def required_value(field: str, detail: str = "") -> FieldError:
    return FieldError(field, "FieldValueRequired", f"Required value{': ' + detail if detail else ''}")


def unsupported_value(field: str, value: Any, supported: Sequence[Any]) -> FieldError:
    values = ", ".join(shown(v) for v in supported)
    return FieldError(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {values}")


def duplicate_value(field: str, value: Any) -> FieldError:
    return FieldError(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def too_long(field: str, limit: int) -> FieldError:
    return FieldError(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(field: str, count: int, limit: int) -> FieldError:
    return FieldError(field, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} items")


def forbidden_field(field: str, detail: str) -> FieldError:
    return FieldError(field, "FieldValueForbidden", f"Forbidden: {detail}")


def invalid(kind: str, group: str, name: str, faults: Sequence[FieldError]) -> StatusError:
    qualified = f"{kind}.{group}" if group else kind
    texts = [str(fault) for fault in faults]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    causes = [{"reason": f.reason, "message": f.message, "field": f.field} for f in faults]
    details = {"name": name, "group": group, "kind": kind, "causes": causes}
    return StatusError(422, "Invalid", f'{qualified} "{name}" is invalid: {text}', details)


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> StatusError:
    details = {"name": name, "group": group, "kind": plural}
    return StatusError(404, "NotFound", f'{_qualified(plural, group)} "{name}" not found', details)


def no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def already_exists(plural: str, group: str, name: str) -> StatusError:
    details = {"name": name, "group": group, "kind": plural}
    return StatusError(409, "AlreadyExists", f'{_qualified(plural, group)} "{name}" already exists', details)


def conflict(plural: str, group: str, name: str, why: str = "") -> StatusError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    details = {"name": name, "group": group, "kind": plural}
    text = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}'
    return StatusError(409, "Conflict", text, details)


def apply_conflict(conflicts: Sequence[tuple[str, str]]) -> StatusError:
    """`conflicts` are (manager as printed, field path); the texts are the API server's own."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": field}
        for manager, field in conflicts
    ]
    count = f"{len(conflicts)} conflict{'s' if len(conflicts) > 1 else ''}"
    managers = {manager for manager, _ in conflicts}
    if len(conflicts) == 1:
        text = f"conflict with {conflicts[0][0]}: {conflicts[0][1]}"
    else:
        blocks = []
        for manager in sorted(managers):
            fields = "\n".join(f"- {field}" for owner, field in conflicts if owner == manager)
            blocks.append(f"conflicts with {manager}:\n{fields}")
        text = "\n".join(blocks)
    plural = f"Apply failed with {count}: {text}"
    return StatusError(409, "Conflict", plural, {"causes": causes})


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def forbidden(plural: str, group: str, name: str, why: str) -> StatusError:
    details = {"name": name, "group": group, "kind": plural}
    return StatusError(403, "Forbidden", f'{_qualified(plural, group)} "{name}" is forbidden: {why}', details)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def not_here(verb: str) -> StatusError:
    text = (
        f"{verb} is not available on the embedded cluster: its pods are processes of this machine, reach them directly"
    )
    return StatusError(501, "NotImplemented", text)


def method_not_allowed() -> StatusError:
    text = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", text)


def not_acceptable(offered: str) -> StatusError:
    text = f"only the following media types are accepted: {offered}"
    return StatusError(406, "NotAcceptable", text)


def unsupported_media_type(given: str, offered: str) -> StatusError:
    text = f"the body of the request was in an unknown format ({given}) - accepted media types include: {offered}"
    return StatusError(415, "UnsupportedMediaType", text)


def expired(wanted: int, oldest: int) -> StatusError:
    return StatusError(410, "Expired", f"too old resource version: {wanted} ({oldest})")


def storage_failed(directory: str, why: str) -> StatusError:
    text = f"the change was not stored: {why} ({directory}); free some space there, reads go on working"
    return StatusError(507, "InsufficientStorage", text)
