"""What a handler answers, and the few shapes that answers have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson

from fairlead.runtime.errors import ServingError

Headers = list[tuple[bytes, bytes]]

JSON_HEADERS: Headers = [(b"content-type", b"application/json")]


class Reply:
    __slots__ = ("body", "headers", "status", "stream")

    def __init__(self, status: int, body: bytes, headers: Headers, stream: AsyncIterator[bytes] | None = None) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.stream = stream


def json_reply(document: Any, status: int = 200) -> Reply:
    return Reply(status, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), JSON_HEADERS)


def error_reply(error: ServingError) -> Reply:
    """`{"error": …}`, the same for V1 and V2."""
    reply = json_reply({"error": error.message}, error.http_status)
    if error.retry_after is not None:
        reply.headers = [*JSON_HEADERS, (b"retry-after", str(error.retry_after).encode())]
    return reply
