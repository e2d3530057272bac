"""Payload logging: the requests and answers of predictions as CloudEvents to an address, as KServe's `logger` has them.

KServe puts a proxy beside the model for it. Here the server does it itself, when it has answered: events wait in a queue of bounded length and size, and what does not
fit is counted and gone. A receiver that is slow or away costs memory up to that bound, and no request anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from fairlead.runtime.doors.reply import Reply
from fairlead.runtime.doors.request import Exchange
from fairlead.runtime.operations.event_sender import EventSender, Receiver
from fairlead.runtime.operations.metrics import Metrics
from fairlead.runtime.protocols.cloudevents import RESPONSE_TYPE
from fairlead.runtime.settings import PayloadLogging

log = logging.getLogger(__name__)

REQUEST_TYPE = "org.kubeflow.serving.inference.request"
ENDPOINT = "default"
"""KServe's word for the pods that are no canary. Ours may have been one, and are not restarted when they are promoted: the source, which is the pod, tells revisions apart."""
MOST_EVENTS = 10_000
MOST_BYTES = 16 * 1024 * 1024
CONNECTIONS = 8
ATTEMPT_SECONDS = 30.0
PAUSES = (0.1, 0.4, 1.6, 6.4)
"""Seconds between the attempts to send an event: a receiver may be away for that long."""
AGAIN = (408, 425, 429)
"""Beside 5xx: answers after which another attempt may succeed."""
_JSON = b"application/json"
_TENSORS = b"inference-header-content-length"
"""Without it, V2's binary tensors cannot be told from the JSON before them."""


class Event(NamedTuple):
    type: str
    head: bytes
    """Its own headers, a line each."""
    body: bytes | memoryview


class PayloadLog:
    """Of one server; all its methods are called in the server's event loop."""

    def __init__(
        self,
        options: PayloadLogging,
        metrics: Metrics,
        *,
        source: str,
        most_events: int = MOST_EVENTS,
        most_bytes: int = MOST_BYTES,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        """`source`: the pod's name."""
        self._options = options
        self._metrics = metrics
        self._most_events, self._most_bytes, self._pauses = most_events, most_bytes, pauses
        self._receiver = Receiver(options.url)
        self._common = {kind: _common(kind, options, source) for kind in (REQUEST_TYPE, RESPONSE_TYPE)}
        self._queue: deque[Event] = deque()
        self._unsent = 0
        self._unsent_bytes = 0
        self._idle: list[EventSender] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._failing = False

    def follow(self, reply: Reply) -> list[bytes] | None:
        """Before a streamed answer is sent: the list in which its parts will be found. None for any other."""
        if reply.stream is None:
            return None
        parts: list[bytes] = []
        reply.stream = _copied(reply.stream, parts, self._most_bytes)
        return parts

    def record(self, exchange: Exchange, reply: Reply, parts: list[bytes] | None, started: float) -> None:
        """What was asked and answered; an answer only if it is one (200), as in KServe. `started`: by the performance counter."""
        if exchange.payload is None:
            return  # it never came whole
        headers = exchange.headers
        now = time.time()
        identity = headers.get(b"ce-id") or exchange.request_id or uuid.uuid4().hex.encode()
        about = b"ce-id: %b\r\nce-metadata: %b\r\n" % (identity, self._metadata(exchange))
        if self._options.requests:
            began = now - (time.perf_counter() - started)
            kind = headers.get(b"content-type", _JSON)
            self._put(REQUEST_TYPE, about, began, kind, headers.get(_TENSORS), exchange.payload)
        if self._options.responses and reply.status == 200:
            body = reply.body if parts is None else b"".join(parts)
            told = dict(reply.headers)
            self._put(RESPONSE_TYPE, about, now, told.get(b"content-type", _JSON), told.get(_TENSORS), body)

    async def close(self, seconds: float) -> None:
        """What waits is sent, for so long; the rest is lost."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=seconds)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._unsent:
            log.warning("%d payloads were not logged: %s did not take them in time", self._unsent, self._receiver)
            self._queue.clear()
            self._unsent = 0
        while self._idle:
            self._idle.pop().close()

    def _metadata(self, exchange: Exchange) -> bytes:
        """As in KServe: a JSON object with a list of values for each header."""
        found = {name: exchange.header(name.lower().encode()) for name in self._options.metadata_headers}
        return json.dumps({name: [value] for name, value in found.items() if value is not None}).encode()

    def _put(
        self, kind: str, about: bytes, when: float, content: bytes, tensors: bytes | None, body: bytes | memoryview
    ) -> None:
        if self._unsent >= self._most_events or self._unsent_bytes + len(body) > self._most_bytes:
            self._metrics.payloads_dropped.add((kind,))
            return
        moment = datetime.fromtimestamp(when, UTC).isoformat().replace("+00:00", "Z").encode()
        head = b"%b%bce-time: %b\r\ncontent-type: %b\r\n" % (self._common[kind], about, moment, content)
        if tensors is not None:
            head += b"%b: %b\r\n" % (_TENSORS, tensors)
        self._queue.append(Event(kind, head, body))
        self._unsent += 1
        self._unsent_bytes += len(body)
        if len(self._sending) < CONNECTIONS:
            task = asyncio.get_running_loop().create_task(self._send_all())
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send_all(self) -> None:
        """On one connection, until none waits."""
        sender = self._idle.pop() if self._idle else EventSender(self._receiver)
        try:
            while self._queue:
                event = self._queue.popleft()
                reason = await self._send(sender, event)
                self._unsent -= 1
                self._unsent_bytes -= len(event.body)
                (self._metrics.payloads_failed if reason else self._metrics.payloads_sent).add((event.type,))
                self._tell(reason)
        except BaseException:
            sender.close()
            raise
        self._idle.append(sender)

    async def _send(self, sender: EventSender, event: Event) -> str | None:
        """None, or why the receiver has not taken it."""
        reason = ""
        for pause in (*self._pauses, None):
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    status = await sender.post(event.head, event.body)
            except TimeoutError:
                reason = f"no answer in {ATTEMPT_SECONDS:g} s"
            except OSError as error:
                reason = str(error) or type(error).__name__
            else:
                if 200 <= status < 300:
                    return None
                reason = f"it answered {status}"
                if status < 500 and status not in AGAIN:
                    break
            if pause is not None:
                await asyncio.sleep(pause)
        return reason

    def _tell(self, reason: str | None) -> None:
        """The log says when it begins to fail and when it is over, not each time."""
        if bool(reason) == self._failing:
            return
        self._failing = bool(reason)
        if reason:
            log.warning("payloads are not logged: %s does not take them: %s", self._receiver, reason)
        else:
            log.info("payloads are logged again")


def _common(kind: str, options: PayloadLogging, source: str) -> bytes:
    """The headers that all events of a type have."""
    attributes = {
        "specversion": "1.0",
        "type": kind,
        "source": source,
        "inferenceservicename": options.inference_service,
        "namespace": options.namespace,
        "component": options.component,
        "endpoint": ENDPOINT,
    }
    if options.annotations:
        attributes["annotations"] = json.dumps(dict(options.annotations))
    return "".join(f"ce-{name}: {value}\r\n" for name, value in attributes.items()).encode()


async def _copied(stream: AsyncIterator[bytes], parts: list[bytes], most: int) -> AsyncIterator[bytes]:
    """The stream; its parts too, until there are more than `most` bytes, which no queue takes."""
    size = 0
    async for part in stream:
        if size <= most:
            parts.append(part)
            size += len(part)
        yield part
