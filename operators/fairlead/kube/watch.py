"""A watch: the stream of what happens to a kind's objects, one JSON document a line.

Two limits keep a watch from dying unnoticed. The server is asked to end it after four to five minutes (jittered, so that the
watches of a process do not all come back at once), and a read that gets no byte for `SILENCE` seconds raises WatchStalled:
an API server sends bookmarks about every minute, so silence means that the connection is dead, whatever TCP believes.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import orjson

from fairlead.kube.errors import ApiError, Unavailable, WatchStalled, api_error
from fairlead.kube.objects import Object

if TYPE_CHECKING:
    from fairlead.kube.transport import Transport

SILENCE = 90.0
SERVER_TIMEOUT = (240, 300)

ADDED, MODIFIED, DELETED, BOOKMARK, ERROR = "ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"


class Event(NamedTuple):
    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK; a bookmark's object has only its resourceVersion."""
    object: Object


def query(resource_version: str) -> dict[str, str]:
    return {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": resource_version,
        "timeoutSeconds": str(random.randint(*SERVER_TIMEOUT)),  # noqa: S311
    }


async def events(
    transport: Transport, path: str, query: Mapping[str, str], *, where: str, silence: float
) -> AsyncGenerator[Event, None]:
    try:
        async with (
            transport.stream(path, where=where, query=query, silence=silence) as body,
            aclosing(lines(body.iter_any())) as documents,
        ):
            async for document in documents:
                yield _event(document, where)
    except Unavailable as error:
        if isinstance(error.__cause__, aiohttp.SocketTimeoutError):
            message = f"no event and no bookmark for {silence:.0f} s"
            raise WatchStalled(0, "WatchStalled", message, where=where) from error
        raise


async def lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Whole lines from chunks that end anywhere. A last line without its end is yielded too."""
    parts: list[bytes] = []
    async for chunk in chunks:
        head, *rest = chunk.split(b"\n")
        parts.append(head)
        for tail in rest:
            if line := b"".join(parts):
                yield line
            parts = [tail]
    if line := b"".join(parts):
        yield line


def _event(document: bytes, where: str) -> Event:
    try:
        decoded = orjson.loads(document)
        kind, obj = decoded["type"], decoded["object"]
    except (ValueError, KeyError, TypeError):
        # A stream that is cut off in the middle of a document, or a proxy's error page.
        raise Unavailable(0, "BrokenStream", f"not a watch event: {document[:200]!r}", where=where) from None
    if kind == ERROR:
        raise _stream_error(obj, where)
    return Event(kind, obj)


def _stream_error(status: Object, where: str) -> ApiError:
    """The HTTP status of a watch was 200 long ago; an ERROR event brings the real one (410: too old a version)."""
    return api_error(int(status.get("code") or 500), status, where=where)
