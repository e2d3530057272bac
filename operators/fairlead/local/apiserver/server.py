"""The server put together: what it stores where, which port it has, and when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from .admission import Options
from .certificates import identity, write_private
from .errors import StatusError
from .garbage import Collector, expire_events
from .http import LARGEST_BODY, Server
from .journal import Nowhere, SqliteJournal
from .kinds import CRD, NAMESPACES, Kinds
from .kubeconfig import kubeconfig
from .operations import Operations
from .resources import Resources
from .store import Event, Key, Store

log = logging.getLogger(__name__)

DEFAULT_NAMESPACES = ("default", "kube-system", "kube-public", "kserve", "fairlead-system")
KEEP_ALIVE = 300.0
"""Seconds an idle connection stays: longer than clients pause, since one that closes as a request comes costs a retry."""
READY = "ready"
"""The file that says, by its content, where the server listens; it exists only while the server does."""


@dataclass(frozen=True, slots=True)
class Settings:
    directory: Path
    ephemeral: bool = False
    host: str = "127.0.0.1"
    port: int = 0
    """0: the port of the last time if it is free, else any."""
    crds: Path | None = None


def cluster(settings: Settings, schedule: Callable[[Callable[[], None]], Any]) -> tuple[Operations, Kinds]:
    """Everything below HTTP: the stored objects, the kinds that they define, the collector."""
    journal = Nowhere() if settings.ephemeral else SqliteJournal(settings.directory / "state.db")
    store, kinds = Store(journal), Kinds()
    for crd in store.list(CRD):
        kinds.define(crd.load())

    def follow_definitions(event: Event) -> None:
        if event.new.key.storage == CRD:
            (kinds.forget if event.deleted else kinds.define)(event.new.load())

    store.observers.append(follow_definitions)
    operations = Operations(store, kinds)
    Collector(operations, schedule)
    _seed(operations, kinds, settings.crds)
    return operations, kinds


def _seed(operations: Operations, kinds: Kinds, crds: Path | None) -> None:
    """What every cluster has: namespaces, and the CRDs of a folder, which replace older ones of the same name."""
    options = Options("fairlead-apiserver")
    namespaces = kinds.stored(NAMESPACES)
    for name in DEFAULT_NAMESPACES:
        if operations.store.get(Key(NAMESPACES, "", name)) is None:
            operations.create(namespaces, "", {"metadata": {"name": name}}, options)
    files = sorted([*crds.glob("*.yaml"), *crds.glob("*.json")]) if crds is not None else []
    for file in files:
        for crd in _documents(file):
            if crd and crd.get("kind") == "CustomResourceDefinition":
                forced = Options("fairlead-apiserver", force=True)
                operations.apply(kinds.stored(CRD), "", crd["metadata"]["name"], crd, forced)


def _documents(file: Path) -> list[Any]:
    if file.suffix == ".json":
        return [orjson.loads(file.read_bytes())]
    import yaml

    return list(yaml.load_all(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _listen(settings: Settings) -> socket.socket:
    """A bound socket: on the port asked for, else on last time's, else on any that is free."""
    remembered = settings.directory / "port"
    last = int(remembered.read_text()) if remembered.exists() and not settings.port else settings.port
    for port in dict.fromkeys([last, settings.port]):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((settings.host, port))
        except OSError as fault:
            sock.close()
            if port == settings.port:
                raise OSError(fault.errno, f"cannot listen on {settings.host}:{port}: {fault.strerror}") from fault
            continue
        write_private(remembered, str(sock.getsockname()[1]))
        return sock
    raise AssertionError("the loop above returns or raises")


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[str]:
    """Serve until the block ends; yields the URL. The kubeconfig is written before, the ready file last."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    who = identity(settings.directory)
    operations, kinds = cluster(settings, asyncio.get_running_loop().call_soon)
    server = Server(Resources(operations, settings.directory / "logs"), kinds, who.token)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(who.certificate, who.key)

    loop = asyncio.get_running_loop()

    def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LARGEST_BODY)

    web_server = web.Server(
        server.handle,
        request_factory=make_request,
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=KEEP_ALIVE,
    )
    runner = web.ServerRunner(web_server, shutdown_timeout=0.5)  # open watches would hold it up for a minute
    await runner.setup()
    sock = _listen(settings)
    site = web.SockSite(runner, sock, ssl_context=context, backlog=512)
    await site.start()
    host, port = sock.getsockname()[:2]
    server.address = f"{host}:{port}"
    url = f"https://{server.address}"
    write_private(settings.directory / "kubeconfig", kubeconfig(url, who.authority.read_bytes(), who.token))
    write_private(settings.directory / READY, server.address + "\n")
    expiry = loop.create_task(_expire_events(operations), name="event expiry")
    try:
        yield url
    finally:
        expiry.cancel()
        (settings.directory / READY).unlink(missing_ok=True)
        await runner.shutdown()
        await runner.cleanup()
        operations.store.journal.close()


async def _expire_events(operations: Operations) -> None:
    while True:
        await asyncio.sleep(60)
        try:
            expire_events(operations)
        except StatusError as fault:
            log.warning("old events stay: %s", fault)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    async with serving(settings) as url:
        log.info("serving on %s; KUBECONFIG=%s", url, settings.directory / "kubeconfig")
        await stopped.wait()
