"""Watches: the stream of one watch request, from a subscription of the store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import orjson

from .errors import expired
from .kinds import Kind
from .queries import Selection, list_page, seen_as
from .store import Store, Stored, Subscription

BOOKMARK_EVERY = 30.0
"""Seconds. Kubernetes sends one a minute; a client that takes silence for a stall is told sooner here."""
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class WatchOptions:
    since: str = ""
    """resourceVersion: empty or 0 begins with everything there is."""
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout: float | None = None


def encode(event: str, raw: bytes) -> bytes:
    return b'{"type":"' + event.encode() + b'","object":' + raw + b"}\n"


def bookmark(kind: Kind, version: int, *, initial_end: bool = False) -> bytes:
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return encode("BOOKMARK", orjson.dumps({"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}))


async def watch(
    store: Store, kind: Kind, wanted: Selection, options: WatchOptions, shape: Callable[[Stored], bytes]
) -> AsyncIterator[bytes]:
    """Chunks of the stream, each some whole lines. `shape` gives an object in the form that the client wants.

    Raises StatusError 410 before the first chunk if the version is too old.
    """
    everything = options.initial_events if options.initial_events is not None else options.since in ("", "0")
    since = store.version if everything else int(options.since or store.version)
    subscription = store.subscribe(kind.storage, since)
    deadline = asyncio.get_running_loop().time() + (options.timeout or random.uniform(1800, 3600))  # noqa: S311
    try:
        first = b""
        if everything:
            first = b"".join(encode("ADDED", shape(o)) for o in list_page(store, kind, wanted).items)
        if options.initial_events and options.bookmarks:
            first += bookmark(kind, since, initial_end=True)
        yield first
        async for chunk in _changes(store, kind, wanted, options, shape, subscription, deadline):
            yield chunk
    finally:
        store.unsubscribe(kind.storage, subscription)


async def _changes(
    store: Store, kind: Kind, wanted: Selection, options: WatchOptions, shape: Callable[[Stored], bytes],
    subscription: Subscription, deadline: float,
) -> AsyncIterator[bytes]:  # fmt: skip
    loop = asyncio.get_running_loop()
    while (left := deadline - loop.time()) > 0:
        try:
            async with asyncio.timeout(min(left, BOOKMARK_EVERY)):
                await subscription.awake.wait()
        except TimeoutError:
            if options.bookmarks and loop.time() < deadline:
                yield bookmark(kind, store.version)
            continue
        subscription.awake.clear()
        lines = []
        while subscription.pending:
            event = subscription.pending.popleft()
            seen = seen_as(event, wanted)
            if seen is not None:
                lines.append(encode(seen, shape(event.new)))
        if lines:
            yield b"".join(lines)
        if subscription.overrun:
            yield encode("ERROR", orjson.dumps(expired(0, store.version).status()))
            return
