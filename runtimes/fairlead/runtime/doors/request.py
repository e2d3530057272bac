"""One HTTP request as the handlers see it: path, headers by name, and the body within the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from fairlead.runtime.doors.corked import BODY, WHOLE
from fairlead.runtime.errors import DeadlineExceeded, InvalidRequest, TooLarge
from fairlead.runtime.protocols import compression
from fairlead.runtime.protocols.v2_rest import DEFAULT_MAX_ELEMENTS

LARGE = 65_536
"""Bytes from which a body is not copied."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for."""

    max_body: int = 100 * 1024 * 1024
    max_elements: int = DEFAULT_MAX_ELEMENTS
    body_seconds: float = 60.0
    """A client that takes longer to send its body is let go."""


class TextHeaders(Mapping[str, str]):
    """Headers as text, decoded when they are read: most models read none."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.lower().encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class Exchange:
    __slots__ = (
        "_limits",
        "_receive",
        "body_read",
        "headers",
        "method",
        "model",
        "path",
        "payload",
        "protocol",
        "request_id",
        "scope",
    )

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        limits: Limits,
    ) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = self.headers.get(b"x-request-id")
        self.payload: bytes | memoryview | None = None
        """The body, unpacked, once it has been read."""
        self.model = ""
        self.protocol = ""
        """Set by the handlers of predictions: what metrics count."""
        # A body is promised by one of two headers; without them there is none to read.
        self.body_read = not (
            (b"content-length" in self.headers and self.headers[b"content-length"] != b"0")
            or b"transfer-encoding" in self.headers
        )
        self._receive = receive
        self._limits = limits

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def text_headers(self) -> Mapping[str, str]:
        """For the model: names in lower case."""
        return TextHeaders(self.headers)

    async def body(self) -> bytes:
        """The body, unpacked. Raises TooLarge, DeadlineExceeded, InvalidRequest."""
        return bytes(await self.buffer())  # bytes are not copied

    async def buffer(self) -> bytes | memoryview:
        """`body`, as a read-only view if it is large: tensors in it need no copy."""
        limit = self._limits.max_body
        length = self.headers.get(b"content-length")
        if length is not None and int(length) > limit:
            raise TooLarge(f"the body has {int(length)} bytes, over the limit of {limit}")
        body = self._read_already()
        if body is None and length is not None and (whole := self.scope.get(WHOLE)) is not None:
            body = await self._whole(whole)
        if body is None:
            body = await self._received(limit)
        self.body_read = True
        if len(body) > limit:
            raise TooLarge(f"the body has {len(body)} bytes, over the limit of {limit}")
        encoding = self.headers.get(b"content-encoding")
        if encoding is not None:
            body = compression.decompress(bytes(body), encoding.decode("latin-1"), limit)
        self.payload = body
        return body

    def _read_already(self) -> bytes | memoryview | None:
        body: bytearray | None = self.scope.get(BODY)
        if body is None:
            return None
        return bytes(body) if len(body) < LARGE else memoryview(body).toreadonly()

    async def _whole(self, whole: Callable[[], Awaitable[None]]) -> bytes | memoryview:
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                await whole()
        except TimeoutError:
            raise self._too_slow() from None
        body = self._read_already()
        if body is None:
            raise InvalidRequest("the client went away before its body was complete")
        return body

    async def _received(self, limit: int) -> bytes:
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if message.get("more_body", False):
            return await self._rest(body, limit)
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the client went away")
        return body

    def _too_slow(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"the body did not arrive within {self._limits.body_seconds:g} s")

    async def _rest(self, first: bytes, limit: int) -> bytes:
        body = bytearray(first)
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise InvalidRequest("the client went away before its body was complete")
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise TooLarge(f"the body is over the limit of {limit} bytes")
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise self._too_slow() from None

    def deadline(self, parameters: Mapping[str, Any]) -> float | None:
        """On the monotonic clock: from `x-request-timeout-seconds`, or V2's parameter `timeout` (microseconds)."""
        if not parameters and b"x-request-timeout-seconds" not in self.headers:
            return None
        header = self.header(b"x-request-timeout-seconds")
        micros = parameters.get("timeout")
        try:
            if header is not None:
                return time.monotonic() + float(header)
            return time.monotonic() + float(micros) / 1e6 if micros else None
        except (TypeError, ValueError):
            raise InvalidRequest("the request's timeout is not a number") from None
