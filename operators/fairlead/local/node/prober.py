"""Asking a container how it is: httpGet, tcpSocket, exec and grpc, each without a client library, because it is asked every 50 ms."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import subprocess
from collections.abc import Mapping
from typing import Any

from fairlead.local.node.process import die_with_parent

GRPC_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_ANSWER = 64 * 1024


async def ask(
    probe: Mapping[str, Any], container: Mapping[str, Any], ip: str, environment: Mapping[str, str]
) -> str | None:
    """None if the container answers as it should, else why not. The caller limits the time."""
    try:
        if "httpGet" in probe:
            return await http_get(probe["httpGet"], container, ip)
        if "tcpSocket" in probe:
            return await _tcp(probe["tcpSocket"], container, ip)
        if "grpc" in probe:
            return await _grpc(ip, int(probe["grpc"]["port"]), probe["grpc"].get("service") or "")
        if "exec" in probe:
            return await execute(probe["exec"]["command"], environment)
    except (OSError, EOFError, ValueError) as error:
        return str(error) or type(error).__name__
    return "the probe names no action"


def port_number(port: int | str, container: Mapping[str, Any]) -> int:
    """A container port by number or by name; raises ValueError for a name that the container does not have."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for candidate in container.get("ports") or ():
        if candidate.get("name") == port:
            return int(candidate["containerPort"])
    raise ValueError(f"container {container['name']} has no port named {port}")


async def http_get(action: Mapping[str, Any], container: Mapping[str, Any], ip: str) -> str | None:
    """As the kubelet: any status from 200 to 399 is well; a certificate is not checked."""
    port = port_number(action["port"], container)
    secure = str(action.get("scheme", "HTTP")).upper() == "HTTPS"
    headers = {"Host": f"{ip}:{port}", "User-Agent": "fairlead-probe", "Connection": "close"}
    headers |= {header["name"]: header["value"] for header in action.get("httpHeaders") or ()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    reader, writer = await asyncio.open_connection(
        action.get("host") or ip, port, ssl=_unchecked_tls() if secure else None
    )
    try:
        writer.write(f"GET {action.get('path') or '/'} HTTP/1.1\r\n{lines}\r\n".encode())
        answer = await reader.readline()
        words = answer.split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            return f"not an HTTP answer: {answer[:80]!r}"
        status = int(words[1])
        return None if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}"
    finally:
        writer.close()


async def _tcp(action: Mapping[str, Any], container: Mapping[str, Any], ip: str) -> str | None:
    _, writer = await asyncio.open_connection(action.get("host") or ip, port_number(action["port"], container))
    writer.close()
    return None


async def execute(command: list[str], environment: Mapping[str, str]) -> str | None:
    """Runs a command with the container's environment; its whole group dies with the caller's time limit."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent(os.getpid()),
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode == 0:
        return None
    return output[-300:].decode(errors="replace").strip() or f"exit code {process.returncode}"


async def _grpc(ip: str, port: int, service: str) -> str | None:
    """grpc.health.v1.Health/Check by hand: one request, and the one byte of its answer that matters."""
    reader, writer = await asyncio.open_connection(ip, port)
    try:
        writer.write(
            GRPC_PREFACE
            + _frame(4, 0, 0, b"")
            + _frame(1, 4, 1, _health_headers(ip, port))
            + _frame(0, 1, 1, _health_request(service))
        )
        received = 0
        while received < MAX_ANSWER:
            head = await reader.readexactly(9)
            length, kind, stream = int.from_bytes(head[:3]), head[3], int.from_bytes(head[5:9])
            payload = await reader.readexactly(length)
            received += length
            if kind == 4 and not head[4] & 1:
                writer.write(_frame(4, 1, 0, b""))
            elif kind == 0 and stream == 1 and payload:
                # 5 bytes of gRPC framing, then field 1 (status) as a varint: 1 is SERVING.
                status = payload[6] if len(payload) > 6 and payload[5] == 0x08 else 0
                return None if status == 1 else f"service unhealthy (responded with status {status})"
            elif kind in (3, 7) or (kind == 1 and head[4] & 1):
                return "no health service answers there, or it does not know this service"
        return "no answer"
    finally:
        writer.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _health_headers(ip: str, port: int) -> bytes:
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": f"{ip}:{port}",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # HPACK: literal without indexing, new name, no Huffman; all strings are shorter than 127 bytes.
    return b"".join(b"\0" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in headers.items())


def _health_request(service: str) -> bytes:
    name = service.encode()[:127]
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    return b"\0" + len(message).to_bytes(4) + message


def _unchecked_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
