"""CloudEvents 1.0 on V1's predict: binary mode (`ce-` headers) and structured mode (a JSON envelope), answered in kind."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.protocols.v2_rest import parse_json

STRUCTURED = "application/cloudevents+json"
RESPONSE_TYPE = "org.kubeflow.serving.inference.response"
_REQUIRED = ("id", "source", "specversion", "type")


class Event:
    """An event that came: its body, and what the answer repeats of it."""

    __slots__ = ("body", "id", "structured")

    def __init__(self, body: bytes, id: str, *, structured: bool) -> None:
        self.body = body
        self.id = id
        self.structured = structured


def decode(headers: Mapping[bytes, bytes], body: bytes) -> Event | None:
    """The event in a request; None if it is not one."""
    if b"ce-specversion" in headers:
        missing = [name for name in _REQUIRED if b"ce-" + name.encode() not in headers]
        if missing:
            raise InvalidRequest(f"the CloudEvent has no ce-{missing[0]} header")
        return Event(body, headers[b"ce-id"].decode("latin-1"), structured=False)
    if not headers.get(b"content-type", b"").startswith(STRUCTURED.encode()):
        return None
    envelope = parse_json(body)
    missing = [name for name in _REQUIRED if not isinstance(envelope, dict) or not isinstance(envelope.get(name), str)]
    if missing:
        raise InvalidRequest(f"the CloudEvent has no {missing[0]!r}")
    return Event(_payload(envelope), envelope["id"], structured=True)


def _payload(envelope: dict[str, Any]) -> bytes:
    if "data_base64" in envelope:
        try:
            return base64.b64decode(envelope["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InvalidRequest("the CloudEvent's data_base64 is not base64") from None
    return orjson.dumps(envelope.get("data"))


def encode(event: Event, body: bytes, model: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The answer's body and headers, in the mode of the question."""
    source = f"io.fairlead.inference.{model}"
    if event.structured:
        envelope = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": source,
            "type": RESPONSE_TYPE,
            "datacontenttype": "application/json",
            "data": orjson.Fragment(body),
        }
        return orjson.dumps(envelope), [(b"content-type", STRUCTURED.encode())]
    return body, [
        (b"content-type", b"application/json"),
        (b"ce-specversion", b"1.0"),
        (b"ce-id", event.id.encode("latin-1")),
        (b"ce-source", source.encode()),
        (b"ce-type", RESPONSE_TYPE.encode()),
    ]
