"""One model server in one process: doors open at once, models load beside them, SIGTERM drains.

Both engines run this: `process` as the process itself, `ray` inside each replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import uvicorn

from fairlead.runtime import tuning
from fairlead.runtime.doors.corked import CorkedProtocol
from fairlead.runtime.doors.grpc import GrpcDoor
from fairlead.runtime.doors.http import HttpDoor
from fairlead.runtime.doors.request import Limits
from fairlead.runtime.errors import LoadError
from fairlead.runtime.operations.access_log import AccessLog
from fairlead.runtime.operations.startup import STARTUP
from fairlead.runtime.operations.tracing import Tracer
from fairlead.runtime.repository import Repository
from fairlead.runtime.settings import FLUSH_SECONDS, LATE_SECONDS, LEAVE_SECONDS, NOTICED_SECONDS, Settings

if TYPE_CHECKING:
    from fairlead.runtime.operations.payload_log import PayloadLog

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listeners:
    """The bound sockets. gRPC binds by address: its libraries take no socket."""

    http: socket.socket
    grpc: str | None

    @property
    def http_port(self) -> int:
        return int(self.http.getsockname()[1])


def listen(settings: Settings) -> Listeners:
    """Bind the HTTP port. OSError names it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.http_port))
        # Listening at once: a connection that comes before the server is up waits in the backlog, and is not refused.
        sock.listen(2048)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {settings.host}:{settings.http_port}: {error.strerror}") from None
    sock.setblocking(False)
    grpc = None if settings.grpc_port is None else f"{settings.host}:{settings.grpc_port}"
    return Listeners(sock, grpc)


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: this server's drain has an order of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Siblings(Protocol):
    """The other processes that share a server's ports."""

    async def snapshots(self) -> list[Any]:
        """Their metrics."""

    async def may_accept(self) -> None:
        """Returns when this process may accept connections: its models are loaded."""


class ModelServer:
    """Doors over a repository, from start to the end of the drain."""

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        listeners: Listeners,
        *,
        siblings: Siblings | None = None,
    ) -> None:
        """`siblings`: the other processes that share the ports."""
        self._settings = settings
        self._listeners = listeners
        self._siblings = siblings
        self.repository = repository
        limits = Limits(max_body=settings.max_body)
        self._payload_log = _payload_log(settings, repository)
        self.http = HttpDoor(
            repository,
            limits=limits,
            access_log=AccessLog() if settings.access_log else None,
            tracer=Tracer.configured(),
            payload_log=self._payload_log,
            siblings=None if siblings is None else siblings.snapshots,
        )
        self.grpc = None
        if listeners.grpc is not None:
            self.grpc = GrpcDoor(
                repository, listeners.grpc, limits=limits, front=settings.grpc_front, shared=siblings is not None
            )
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                self.http,
                loop="none",
                http=CorkedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=settings.access_log,  # nothing else asks who the client is
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(settings.grace_seconds) or 1,
            )
        )
        self._stop = asyncio.Event()
        self._leaving = False
        self.ready = asyncio.Event()
        """Set when all models are loaded and both doors are open."""
        self._drain_seconds = settings.drain_seconds

    async def run(self, names: Sequence[str]) -> None:
        """Serve the models until `stop`. Raises LoadError if one of them cannot be loaded."""
        tuning.apply()
        STARTUP.done("import")
        stopping = asyncio.create_task(self._stop.wait())
        try:
            if self._siblings is not None and not await self._loaded_first(names, stopping, self._siblings):
                return
            await self._serve(names, stopping)
        finally:
            stopping.cancel()

    async def _loaded_first(self, names: Sequence[str], stopping: asyncio.Task[Any], siblings: Siblings) -> bool:
        """The others answer meanwhile: what this process accepted now would be told that its model is not ready."""
        loading = asyncio.create_task(self._load(names))
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            return False
        loading.result()
        await siblings.may_accept()
        return True

    async def _serve(self, names: Sequence[str], stopping: asyncio.Task[Any]) -> None:
        serving = asyncio.create_task(self._uvicorn.serve(sockets=[self._listeners.http]))
        try:
            loading = asyncio.create_task(self._open(names))
            waited: set[asyncio.Future[Any]] = {loading, stopping, serving}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            else:
                loading.cancel()
            await self._drain()
        finally:
            self._uvicorn.should_exit = True
            await serving
            if self.grpc is not None:
                await self.grpc.stop(0)
            if self._payload_log is not None:
                await self._payload_log.close(FLUSH_SECONDS)

    async def _open(self, names: Sequence[str]) -> None:
        """From the HTTP port open, which answers liveness, to all that was asked for."""
        loading = asyncio.ensure_future(self._load(names))
        if self.grpc is not None:
            await self.grpc.start()
        await loading
        if self.grpc is not None:
            await self.grpc.serving(True)
        while not self._uvicorn.started:  # noqa: ASYNC110 - a few turns of the loop, if any
            await asyncio.sleep(0.001)
        self.ready.set()
        STARTUP.done("ready")
        log.info("ready: %s", ", ".join(names))

    async def _load(self, names: Sequence[str]) -> None:
        missing = [name for name in names if name not in self.repository.runners]
        await asyncio.gather(*(self.repository.load(name) for name in missing))
        STARTUP.done("load")

    def stop(self, *, at_once: bool = False) -> None:
        """Begin the drain; `at_once` skips the time in which new requests are still taken."""
        if at_once:
            self._drain_seconds = 0.0
        self._stop.set()

    def leave(self) -> None:
        """`stop` for a server whose pod stays: nobody has been told to send no more requests here, so the server says it first.

        A connection that is closed while requests still come takes one with it now and then: one that was on its way.
        """
        self._leaving = True
        self._stop.set()

    async def _unready(self) -> None:
        """Answer as ever, and say that nothing is ready, until requests have gone elsewhere."""
        self.repository.leaving = True
        if self.grpc is not None:
            await self.grpc.serving(False)
        await quiet(lambda: self.repository.received, NOTICED_SECONDS, LEAVE_SECONDS)

    async def _drain(self) -> None:
        """Answer what still comes, and tell clients to reconnect elsewhere; then finish what is in flight."""
        if self._leaving:
            await self._unready()
        log.info("draining: %d requests in flight", self.repository.in_flight)
        self.http.draining = True
        if self.grpc is not None:
            await self.grpc.serving(False)
        await quiet(lambda: self.repository.received, self._drain_seconds, self._drain_seconds + LATE_SECONDS)
        deadline = time.monotonic() + self._settings.grace_seconds
        self._uvicorn.should_exit = True
        if self.grpc is not None:
            await self.grpc.stop(max(0.1, deadline - time.monotonic()))
        while self.http.in_flight and time.monotonic() < deadline:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.02)


def _payload_log(settings: Settings, repository: Repository) -> PayloadLog | None:
    if settings.payload_log is None:
        return None
    from fairlead.runtime.operations.payload_log import PayloadLog

    source = os.environ.get("HOSTNAME") or socket.gethostname()  # the pod's name
    return PayloadLog(settings.payload_log, repository.metrics, source=source)


async def quiet(
    received: Callable[[], float],
    at_least: float,
    at_most: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Returns after `at_least` seconds, when in the last of them (in all, if it is less than one) no request came; at once if it is 0.

    After `at_most` seconds it returns whatever comes. `received` counts what has come until now.
    """
    waited, step = 0.0, min(1.0, at_least)
    while step and waited < at_most:
        before = received()
        await sleep(step)
        waited += step
        if waited >= at_least and received() == before:
            return


def handle_signals(server: ModelServer) -> None:
    """SIGTERM drains, SIGINT (Ctrl-C) skips the wait."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    loop.add_signal_handler(signal.SIGINT, lambda: server.stop(at_once=True))


__all__ = ["Listeners", "LoadError", "ModelServer", "handle_signals", "listen"]
