"""What an operator of the gateway may choose, checked once."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from fairlead.api import names

ADMIN_SOCKET = "admin.sock"
MASTER_SOCKET = "master.sock"
HOLD_SOCKET = "hold.sock"
NOTICE_SOCKET = "notice.sock"
"""The agent's, to which HAProxy logs that requests begin, or cease, to wait."""
CONFIG_FILE = "haproxy.cfg"

_SOCKET_PATH_LIMIT = 107
_FILES_PER_CONNECTION = 2
_FILES_FOR_ITSELF = 500
_FEWEST_CONNECTIONS = 100


class SettingsError(ValueError):
    """A setting that cannot work; the message says which and what to give instead."""


def _open_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All times are in seconds. `directory` holds HAProxy's configuration, maps and sockets, and is private to its user."""

    directory: Path
    bind: tuple[str, ...] = (f"127.0.0.1:{names.GATEWAY_PORT}",)
    domain: str = names.DEFAULT_DOMAIN

    threads: int = min(4, os.cpu_count() or 1)
    max_connections: int = 100_000
    """Of clients; fewer where `open_files` has no room for so many."""
    open_files: int = _open_files()
    """HAProxy's hard limit: it refuses to start when its connections and servers may need more."""

    http_backends: int = 32
    """Spare backends for workloads' HTTP ports at the start; they double, by a reload, when they run out."""
    grpc_backends: int = 32
    slots: int = 4
    """Spare servers of each backend at the start; a backend's slots double, by a reload, when they run out."""

    connect_timeout: float = 1.0
    client_timeout: float = 600.0
    """How long a client may say nothing in the middle of a request, or of a stream that it keeps open."""
    queue_timeout: float = 60.0
    """How long a request may wait for one of a workload's pods when all have as many as `containerConcurrency` allows."""
    hold_timeout: float = 30.0
    """How long a request may wait for a workload that has no ready pod; 0 answers 503 at once."""
    hold_limit: int = 1000
    """Requests that may wait like that, for one workload."""
    hold_bytes: int = 128 << 20
    """What all requests that wait like that may take of memory, the kernel's included: at least 16 KiB each, 144 KiB with a large body.
    One of each workload may wait beyond it, to wake it."""
    drain_timeout: float = 900.0
    """How long a HAProxy process that a reload replaced may take to finish its requests."""

    def __post_init__(self) -> None:
        socket = self.directory.absolute() / ADMIN_SOCKET
        if len(os.fsencode(socket)) + 16 > _SOCKET_PATH_LIMIT:  # HAProxy binds NAME.PID.tmp first
            raise SettingsError(f"the path {socket} is too long for a Unix socket; choose a shorter --directory")
        if not self.bind:
            raise SettingsError("no address to bind; give --bind HOST:PORT")
        for field in ("threads", "max_connections", "http_backends", "grpc_backends", "slots"):
            if getattr(self, field) < 1:
                raise SettingsError(f"{field} is {getattr(self, field)}; it must be at least 1")

    def connections(self, servers: int) -> int:
        """HAProxy's `maxconn` beside so many server slots, which it counts as one file each. Raises SettingsError if few are left."""
        room = (self.open_files - _FILES_FOR_ITSELF - servers) // _FILES_PER_CONNECTION
        if room < min(self.max_connections, _FEWEST_CONNECTIONS):
            raise SettingsError(
                f"{servers} server slots leave no room for connections where a process may open {self.open_files} files; "
                "raise that limit (ulimit -Hn, or LimitNOFILE of the container engine), or lower --slots"
            )
        return min(self.max_connections, room)

    @property
    def admin_socket(self) -> Path:
        return self.directory.absolute() / ADMIN_SOCKET

    @property
    def notice_socket(self) -> Path:
        return self.directory.absolute() / NOTICE_SOCKET

    @property
    def master_socket(self) -> Path:
        return self.directory.absolute() / MASTER_SOCKET
