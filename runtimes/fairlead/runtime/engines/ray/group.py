"""A Ray of several pods: a head and workers that join it, each with one replica that takes requests of its own.

    client ── gateway ─┬─ head: replica, Serve's controller, GCS
                       ├─ worker: replica
                       └─ worker: replica

The operator tells pods of their group by the environment, with KServe's names. No request depends on another pod: a worker that loses
the head goes on serving, and joins the next head as soon as that one serves. Whoever leaves finishes first what its replica has taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import signal
import socket
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.api.names import HEAD_SERVICE_ENV, RAY_NODE_COUNT_ENV, RAY_PORT, RAY_TOKEN_ENV
from fairlead.runtime.engines.ray import environment as ray_environment
from fairlead.runtime.engines.ray import node
from fairlead.runtime.errors import LoadError
from fairlead.runtime.settings import LEAVE_SECONDS, Settings

if TYPE_CHECKING:
    from fairlead.runtime.server import ModelServer

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between a worker's looks at its raylet and the head."""
END, LEAVE = b"end", b"leave"
"""What a replica is told by `finish_requests`: its pod ends, and the gateway knows it; or its pod stays, and will have another one."""


@dataclass(frozen=True)
class Group:
    size: int
    """Pods, the head included."""
    head: str | None
    """The name that leads to the head; None: this is the head."""
    address: str | None
    """This pod's, for Ray; None: Ray finds one."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Group | None:
        """None: this pod is on its own. Raises LoadError if the group has no token, or no size."""
        text = environment.get(RAY_NODE_COUNT_ENV, "1")
        head = environment.get(HEAD_SERVICE_ENV) or None
        if not text.isdecimal():
            raise LoadError(f"{RAY_NODE_COUNT_ENV}={text!r} is no number of pods")
        if int(text) <= 1:
            return None
        if not any(environment.get(name) for name in ray_environment.TOKENS):
            raise LoadError(f"pods that make one Ray need the same {RAY_TOKEN_ENV}, from a Secret")
        return cls(int(text), head, environment.get("POD_IP") or None)

    def node_parameters(self) -> dict[str, Any]:
        own = {} if self.address is None else {"node_ip_address": self.address}
        return own if self.head else {"gcs_server_port": RAY_PORT, **own}


def run_worker(settings: Settings, group: Group) -> None:
    """Have this pod in the head's Ray until a signal comes; what runs on it is the head's to say."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    current: str | None = None
    joined: Any = None
    while not stop.wait(LOOK_SECONDS if joined else 0.2):
        if joined is not None and joined.dead_processes():
            log.warning("the raylet ended; joining again")
            node.stop_node(joined)
            joined = current = None
        found = head_to_join(resolve(group.head or ""), current, settings.http_port)
        if found is None or found == current:
            continue
        if joined is not None:
            log.info("the head is at %s now", found)
            finish_requests(settings, LEAVE)
            node.stop_node(joined)
        joined = joined_node(found, group)
        current = found if joined is not None else None
    if joined is not None:
        finish_requests(settings)
        node.stop_node(joined)


def joined_node(address: str, group: Group) -> Any:
    """A node of the Ray whose head is there; None if that does not take it yet."""
    try:
        return node.start_node(gcs_address=f"{address}:{RAY_PORT}", num_cpus=1, **group.node_parameters())
    except Exception as error:  # Ray raises plain Exceptions for all that may be the matter
        log.warning("cannot join %s yet: %s", address, error)
        return None


def head_to_join(addresses: list[str], current: str | None, http_port: int) -> str | None:
    """The head that this pod should be with. One that has gone silent is left only for one that serves already."""
    if current is None:
        return next((address for address in addresses if answers(address, RAY_PORT)), None)
    if answers(current, RAY_PORT):
        return current
    others = [address for address in addresses if address != current]
    return next((address for address in others if is_ready(address, http_port)), current)


def resolve(name: str) -> list[str]:
    """The addresses that a name has now."""
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError:
        return []


def answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def is_ready(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def finish_requests(settings: Settings, how: bytes = END) -> None:
    """Have this pod's replica drain as any server does that is told to end (END) or whose pod stays (LEAVE), and wait for it."""
    with socket.socket(socket.AF_UNIX) as leaving, contextlib.suppress(OSError):
        leaving.settimeout(LEAVE_SECONDS + settings.seconds_to_end + 5)
        leaving.connect(str(drain_socket(settings.host, settings.http_port)))
        leaving.sendall(how)
        leaving.recv(1)  # the end of the connection is the end of the drain


async def drain_when_told(server: ModelServer, running: asyncio.Task[None], settings: Settings) -> asyncio.Server:
    """The replica's side of `finish_requests`: its process is Ray's, and takes no signals from us."""

    async def drain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(len(LEAVE)) == LEAVE:
            server.leave()
        else:
            server.stop()
        await asyncio.wait({running})
        writer.close()

    path = drain_socket(settings.host, settings.http_port)
    path.unlink(missing_ok=True)  # of the replica before this one
    return await asyncio.start_unix_server(drain, path)


def drain_socket(host: str, port: int) -> Path:
    return Path(tempfile.gettempdir()) / f"fairlead-{host}-{port}.drain"
