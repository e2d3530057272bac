"""Kubernetes' protobuf, read only: kubectl's own commands (`create configmap`, `auth can-i`) send nothing else.

The wire format is walked with the field numbers of `protobuf_fields.json` (see `extract_protobuf`) into the JSON that the same
client would have sent. Answers are always JSON, which such clients accept.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from .errors import bad_request

MAGIC = b"k8s\x00"
_META = "k8s.io.apimachinery.pkg.apis.meta.v1."

MEANT_ZEROS = {
    "replicas", "minReplicas", "gracePeriodSeconds", "deletionGracePeriodSeconds", "terminationGracePeriodSeconds",
    "revisionHistoryLimit", "defaultMode", "mode", "runAsUser", "runAsGroup", "fsGroup", "allowPrivilegeEscalation",
    "automountServiceAccountToken", "enableServiceLinks", "controller", "blockOwnerDeletion", "minAvailable", "maxUnavailable",
}  # fmt: skip
"""Optional fields, sent only when set: their zeros count. Other zeros are Go's way to write nothing."""


@lru_cache(maxsize=1)
def _messages() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = orjson.loads(Path(__file__).with_name("protobuf_fields.json").read_bytes())
    return found


def decode_object(body: bytes) -> dict[str, Any]:
    """The object in a `runtime.Unknown` envelope. Raises StatusError 400."""
    try:
        if not body.startswith(MAGIC):
            raise ValueError("the prefix k8s\\0 is missing")
        envelope = {number: value for number, _, value in _fields(body[len(MAGIC) :])}
        type_meta = {number: value.decode() for number, _, value in _fields(envelope[1])}
        api_version, kind = type_meta[1], type_meta[2]
        return {"apiVersion": api_version, "kind": kind, **_message(envelope[2], _message_name(api_version, kind))}
    except (ValueError, KeyError, IndexError, AttributeError, struct.error) as fault:
        raise bad_request(f"the protobuf body cannot be read: {fault}; send JSON") from fault


def _message_name(api_version: str, kind: str) -> str:
    if kind == "DeleteOptions":
        return _META + kind
    group, _, version = api_version.rpartition("/")
    return (
        f"k8s.io.api.{group.split('.')[0] or 'core'}.{version}.{kind}"
        if "rbac" not in group
        else f"k8s.io.api.rbac.{version}.{kind}"
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, raw value) of each field of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: Any
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is longer than its message")
            value, at = data[at : at + size], at + size
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value, at = data[at : at + width], at + width
        else:
            raise ValueError(f"wire type {wire} is unknown")
        yield tag >> 3, wire, value


def _message(data: bytes, name: str) -> dict[str, Any]:
    known = _messages()[name]
    result: dict[str, Any] = {}
    for number, _, raw in _fields(data):
        if str(number) not in known:
            continue  # a newer client's field: dropped, as the real server does
        field, kind = known[str(number)]
        if kind.startswith("[]"):
            result.setdefault(field, []).append(_value(raw, kind[2:]))
        elif kind.startswith("{}"):
            entry = {n: v for n, _, v in _fields(raw)}
            value = _value(entry[2], kind[2:]) if 2 in entry else ""
            result.setdefault(field, {})[entry.get(1, b"").decode()] = value
        else:
            value = _value(raw, kind)
            if value is not None and (value or value == {} or field in MEANT_ZEROS):
                result[field] = value
    return {field: value for field, value in result.items() if value != {} or field in ("emptyDir", "securityContext")}


def _value(raw: Any, kind: str) -> Any:
    special = _SPECIAL.get(kind.rpartition(".")[2]) if "." in kind else None
    if special is not None:
        return special(raw)
    match kind:
        case "string":
            return raw.decode()
        case "bool":
            return bool(raw)
        case "int":
            return raw - (1 << 64) if raw >= 1 << 63 else raw
        case "bytes":
            return base64.b64encode(raw).decode()
        case "double":
            return struct.unpack("<d", raw)[0]
    return _message(raw, kind)


def _time(raw: bytes) -> str | None:
    parts = {number: value for number, _, value in _fields(raw)}
    if 1 not in parts:
        return None
    seconds = parts[1] - (1 << 64) if parts[1] >= 1 << 63 else parts[1]
    if seconds <= 0:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(raw: bytes) -> str | None:
    parts = {number: value for number, _, value in _fields(raw)}
    whole = _time(raw)
    return f"{whole[:-1]}.{parts.get(2, 0) // 1000:06d}Z" if whole else None


def _int_or_string(raw: bytes) -> int | str:
    parts = {number: value for number, _, value in _fields(raw)}
    return str(parts.get(3, b"").decode()) if parts.get(1) else int(parts.get(2, 0))


def _quantity(raw: bytes) -> str:
    return next((value.decode() for number, _, value in _fields(raw) if number == 1), "0")


def _json(raw: bytes) -> Any:
    return orjson.loads(next((value for number, _, value in _fields(raw) if number == 1), b"null"))


_SPECIAL: dict[str, Callable[[bytes], Any]] = {
    "Time": _time,
    "MicroTime": _micro_time,
    "IntOrString": _int_or_string,
    "Quantity": _quantity,
    "FieldsV1": _json,
    "RawExtension": _json,
}
