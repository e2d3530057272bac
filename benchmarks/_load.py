"""Load for benchmarks, from one thread, cheap enough not to be what is measured: HTTP/1.1 and unary gRPC over raw sockets.

Closed loop: each connection (HTTP) or stream (gRPC) sends its next request when its answer has come.
"""

from __future__ import annotations

import selectors
import socket
import statistics
import struct
import time
from dataclasses import dataclass

TIMEOUT = 20.0
"""Seconds within which a server must take and answer a request."""


@dataclass
class Result:
    """Latencies in seconds of one measurement that took `seconds`."""

    latencies: list[float]
    seconds: float
    server_cpu: float = 0.0
    """Seconds of CPU time that the server had meanwhile."""

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, q: float) -> float:
        return statistics.quantiles(self.latencies, n=1000)[round(q * 10) - 1] if len(self.latencies) > 1 else 0.0


def http_request(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    fields = {"Host": "bench", "Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class _HttpConnection:
    def __init__(self, port: int, request: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request
        self.received = b""
        self.missing = -1
        self.started = 0.0

    def send(self) -> None:
        self.started = time.perf_counter()
        self.sock.sendall(self.request)

    def read(self) -> bool:
        """Take what is there; True when the answer is whole. Raises if it is not a 200."""
        chunk = self.sock.recv(1 << 20)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        if self.missing < 0:
            self.received += chunk
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = self.received[:end].lower()
            if b" 200 " not in head[:16]:
                raise RuntimeError(self.received[:500].decode("latin-1"))
            at = head.find(b"content-length:")
            if at < 0:  # in chunks: none of the answers here has the last one's mark within
                whole = self.received.endswith(b"0\r\n\r\n")
                self.received = b"" if whole else self.received
                return whole
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            self.missing = length - (len(self.received) - end - 4)
        else:
            self.missing -= len(chunk)
        if self.missing > 0:
            return False
        self.received, self.missing = b"", -1
        return True


def http_load(port: int, request: bytes, connections: int, seconds: float) -> Result:
    with selectors.DefaultSelector() as selector:
        clients = [_HttpConnection(port, request) for _ in range(connections)]
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
            client.send()
        result = _loop(selector, seconds)
        for client in clients:
            client.sock.close()
        return result


def _loop(selector: selectors.BaseSelector, seconds: float) -> Result:
    latencies: list[float] = []
    start = time.perf_counter()
    end = start + seconds
    while (now := time.perf_counter()) < end:
        for key, _ in selector.select(end - now):
            client = key.data
            if client.read():
                latencies.append(time.perf_counter() - client.started)
                client.send()
    return Result(latencies, time.perf_counter() - start)


# --- gRPC -------------------------------------------------------------------------------------------------------

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW = 2**31 - 1
_FRAME = struct.Struct(">IBI")  # length and type share the first four bytes
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) << 8 | kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """HPACK: a literal header that is not indexed."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


class _GrpcConnection:
    """One HTTP/2 connection with `streams` calls in flight. A grown window is assumed for small messages, kept for large."""

    def __init__(self, port: int, path: str, message: bytes, streams: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"bench")]
        fields += [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
        self.headers = b"".join(_literal(*field) for field in fields)
        self.body = b"\x00" + struct.pack(">I", len(message)) + message
        settings = struct.pack(">HIHI", 4, _WINDOW, 5, 1 << 20)
        self.sock.sendall(
            _PREFACE
            + _frame(SETTINGS, 0, 0, settings)
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - 65535))
        )
        self.buffer = bytearray()
        self.next_stream = 1
        self.window = 65535
        self.initial_window = 65535
        self.frame_size = 16384
        self.started: dict[int, float] = {}
        self.unsent: dict[int, tuple[int, int]] = {}  # stream -> (offset into body, stream window)
        self.streams = streams
        self.answered: set[int] = set()

    def call(self) -> None:
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        self.started[stream] = time.perf_counter()
        self.sock.sendall(_frame(HEADERS, 4, stream, self.headers))
        self.unsent[stream] = (0, self.initial_window)
        self._send(stream)

    def _send(self, stream: int) -> None:
        offset, window = self.unsent[stream]
        parts = []
        while offset < len(self.body):
            size = min(self.frame_size, len(self.body) - offset, window, self.window)
            if size <= 0:
                break
            end = offset + size
            parts.append(_frame(DATA, int(end == len(self.body)), stream, self.body[offset:end]))
            offset, window, self.window = end, window - size, self.window - size
        if parts:
            self.sock.sendall(b"".join(parts))
        if offset == len(self.body):
            del self.unsent[stream]
        else:
            self.unsent[stream] = (offset, window)

    def read(self) -> list[float]:
        """Take what is there; the latencies of the calls that it completed."""
        chunk = self.sock.recv(1 << 20)
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self.buffer += chunk
        done = []
        at = 0
        while len(self.buffer) - at >= 9:
            head, flags, stream = _FRAME.unpack_from(self.buffer, at)
            length, kind = head >> 8, head & 255
            if len(self.buffer) - at - 9 < length:
                break
            payload = bytes(self.buffer[at + 9 : at + 9 + length])
            at += 9 + length
            if (latency := self._take(kind, flags, stream, payload)) is not None:
                done.append(latency)
        del self.buffer[:at]
        return done

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> float | None:
        if kind == HEADERS and flags & 1:
            if stream not in self.answered:
                raise RuntimeError(f"a call failed: {payload!r}")
            self.answered.discard(stream)
            return time.perf_counter() - self.started.pop(stream)
        if kind == SETTINGS and not flags & 1:
            for number, value in struct.iter_unpack(">HI", payload):
                if number == 4:
                    grown, self.initial_window = value - self.initial_window, value
                    self.unsent = {key: (offset, window + grown) for key, (offset, window) in self.unsent.items()}
                elif number == 5:
                    self.frame_size = value
            self.sock.sendall(_frame(SETTINGS, 1, 0, b""))
            for waiting in list(self.unsent):
                self._send(waiting)
        elif kind == PING and not flags & 1:
            self.sock.sendall(_frame(PING, 1, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._grow(stream, struct.unpack(">I", payload)[0])
        elif kind in (RST, GOAWAY):
            raise ConnectionError(f"the server ended it: {payload!r}")
        elif kind == DATA:
            self.answered.add(stream)  # a call that fails has trailers alone
        return None

    def _grow(self, stream: int, amount: int) -> None:
        if stream == 0:
            self.window += amount
        elif stream in self.unsent:
            offset, window = self.unsent[stream]
            self.unsent[stream] = (offset, window + amount)
        for waiting in list(self.unsent):
            self._send(waiting)


def grpc_load(port: int, path: str, message: bytes, in_flight: int, seconds: float, connections: int = 1) -> Result:
    latencies: list[float] = []
    with selectors.DefaultSelector() as selector:
        clients = [_GrpcConnection(port, path, message, in_flight // connections) for _ in range(connections)]
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
            for _ in range(client.streams):
                client.call()
        start = time.perf_counter()
        end = start + seconds
        while (now := time.perf_counter()) < end:
            for key, _ in selector.select(end - now):
                for latency in key.data.read():
                    latencies.append(latency)
                    key.data.call()
        result = Result(latencies, time.perf_counter() - start)
        for client in clients:
            client.sock.close()
        return result
