"""The fast front of the gRPC door: HTTP/2 and gRPC in Rust (pygrpc-native's low-level front), for ModelInfer alone.

grpc.aio costs 350 us of CPU a call and pygrpc-native's imitation of it 55 to 90; this, which makes nothing of a call but a
task, less. Every other method goes on to a grpc.aio server behind it, over a Unix socket.

    client ── front (Rust threads) ── one thread that takes calls in batches ── event loop: a task for each call
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from fairlead.runtime.errors import GRPC_INTERNAL, GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE, ServingError

log = logging.getLogger(__name__)

MOST_AT_ONCE = 64
"""Calls that one crossing to the event loop may bring."""


FLUSH_SECONDS = 0.25
"""Between the last answer and the end of its connection: the front closes without sending what it was just given."""
NOT_PARSED = "the message cannot be parsed as what this method takes"


class Predict(Protocol):
    def __call__(self, payload: bytes, headers: Mapping[str, str], remaining: float | None) -> Awaitable[bytes]:
        """The answer to a message. Raises ServingError, DecodeError. `remaining`: seconds until the caller's deadline."""


class NativeFront:
    """Listens on `address` from the start on, and answers from `start` on."""

    def __init__(self, address: str, method: str, predict: Predict, *, max_message: int, shared: bool) -> None:
        """Raises OSError if the address cannot be bound. `shared`: others bind it, too."""
        from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

        self._front = NativeGrpcFront(
            address,
            [(method, False)],
            io_threads=1,
            call_details=True,
            keepalive_permit_without_calls=False,
            reuse_port=shared,
        )
        self._cancel = EVENT_CANCEL
        self._predict = predict
        self._max_message = max_message
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self.port: int = self._front.bound_port

    def start(self, behind: str) -> None:
        """`behind`: the Unix socket of the server for every other method."""
        self._front.set_fallback(behind)
        self._front.start()
        threading.Thread(target=self._receive, name="grpc-receive", daemon=True).start()

    async def stop(self, grace: float) -> None:
        """Refuse what comes now; let what is in flight finish, at most `grace` seconds long."""
        self._stopping = True
        if tasks := list(self._calls.values()):
            await asyncio.wait(tasks, timeout=grace)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(FLUSH_SECONDS)
        await self._loop.run_in_executor(None, self._front.close)

    def _receive(self) -> None:
        while (events := self._front.recv_batch_details(MOST_AT_ONCE)) is not None:
            try:
                self._loop.call_soon_threadsafe(self._take, events)
            except RuntimeError:  # the loop was closed without `stop`
                self._front.close()
                return

    def _take(self, events: list[tuple[Any, ...]]) -> None:
        calls = self._calls
        for kind, call, _, payload, _, details in events:
            if kind == self._cancel:
                if call in calls:
                    calls[call].cancel()
            elif self._stopping:
                self._front.fail(call, GRPC_UNAVAILABLE, "the server is shutting down")
            else:
                calls[call] = self._loop.create_task(self._answer(call, payload, details))

    async def _answer(self, call: int, payload: bytes, details: tuple[Any, ...]) -> None:
        metadata, _, remaining = details
        try:
            if len(payload) > self._max_message:
                text = f"the message has {len(payload)} bytes, over the limit of {self._max_message}"
                self._front.fail(call, GRPC_RESOURCE_EXHAUSTED, text)
                return
            headers = {key: value for key, value in metadata if type(value) is str}
            self._front.respond(call, await self._predict(payload, headers, remaining))
        except ServingError as error:
            self._front.fail(call, error.grpc_code, error.message, trailing_metadata=retry_metadata(error))
        except DecodeError:
            self._front.fail(call, GRPC_INTERNAL, NOT_PARSED)
        except asyncio.CancelledError:
            self._front.fail(
                call, GRPC_UNAVAILABLE, "the server is shutting down"
            )  # nobody hears it if the client left
        except Exception as error:
            log.exception("ModelInfer")
            self._front.fail(call, GRPC_INTERNAL, f"internal error: {type(error).__name__}: {error}")
        finally:
            del self._calls[call]


def retry_metadata(error: ServingError) -> tuple[tuple[str, str], ...]:
    """Trailing metadata that tells a client when to try again."""
    return () if error.retry_after is None else (("grpc-retry-pushback-ms", str(error.retry_after * 1000)),)
