"""A model server in one file of the standard library: HTTP/1.1 on 8080, gRPC (h2c) on 8081, ready as soon as Python is.

Each answer says when the process began, since when the readiness path could answer, and when the request came, in seconds of the machine's
clock. LOAD_SECONDS: how long it loads before it listens. WORK_SECONDS: how long an answer takes. SIGTERM: it goes on for a second, finishes and ends.
"""

import time

BEGAN = time.time()

import asyncio  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import struct  # noqa: E402

LOAD_SECONDS = float(os.environ.get("LOAD_SECONDS", "0"))
WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "0"))
HOST = os.environ.get("HOST")
"""The address to listen on; all if not set. A pod of the embedded cluster has one of its own."""
DRAIN_SECONDS = 1.0

DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, END_HEADERS, ACK, PADDED = 1, 4, 1, 8


class Server:
    """What both protocols share."""

    def __init__(self) -> None:
        self.ready = 0.0
        self.in_flight = 0
        self.first_probe = 0.0

    def answer(self, received: float) -> bytes:
        times = {"began": BEGAN, "ready": self.ready, "probed": self.first_probe, "received": received}
        return json.dumps({"predictions": [1], "pod": os.uname().nodename, **times}).encode()


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def later(self, respond, *arguments) -> None:  # type: ignore[no-untyped-def]
        """Answer after the work; at once where there is none."""
        if not WORK_SECONDS:
            respond(*arguments)
            return
        self.server.in_flight += 1

        def done() -> None:
            self.server.in_flight -= 1
            if not self.transport.is_closing():
                respond(*arguments)

        asyncio.get_running_loop().call_later(WORK_SECONDS, done)


class Http(Connection):
    """One request at a time: HAProxy and the benchmarks' clients do not pipeline."""

    def data_received(self, chunk: bytes) -> None:
        self.buffer += chunk
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        if head.startswith(b"GET"):
            self.server.first_probe = self.server.first_probe or time.time()
            self.respond(b"ok")
        else:
            self.later(self.respond, self.server.answer(time.time()))

    def respond(self, body: bytes) -> None:
        fields = b"content-type: application/json\r\ncontent-length: %d" % len(body)
        self.transport.write(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (fields, body))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """HPACK: a header that is in no table."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


RESPONSE = b"\x88" + literal(b"content-type", b"application/grpc")  # 0x88: `:status 200` of the static table
TRAILERS = literal(b"grpc-status", b"0")


class Grpc(Connection):
    """Every call is answered when its message has come; headers and messages are not looked at."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.preface = True
        wide = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1 - 65535))
        self.transport.write(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)) + wide)

    def data_received(self, chunk: bytes) -> None:
        self.buffer += chunk
        if self.preface:
            if len(self.buffer) < 24:
                return
            self.preface, self.buffer = False, self.buffer[24:]
        at = 0
        while len(self.buffer) - at >= 9:
            head, flags, stream = struct.unpack_from(">IBI", self.buffer, at)
            length, kind = head >> 8, head & 255
            if len(self.buffer) - at - 9 < length:
                break
            self.take(kind, flags, stream, self.buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self.buffer = self.buffer[at:]

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.transport.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.transport.write(frame(PING, ACK, 0, payload))
        elif kind in (DATA, HEADERS) and flags & END_STREAM:
            self.later(self.respond, stream, self.server.answer(time.time()))

    def respond(self, stream: int, message: bytes) -> None:
        body = b"\x00" + struct.pack(">I", len(message)) + message
        answer = frame(HEADERS, END_HEADERS, stream, RESPONSE) + frame(DATA, 0, stream, body)
        self.transport.write(answer + frame(HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS))


def tell(event: str) -> None:
    print(json.dumps({"event": event, "time": time.time()}), flush=True)


async def main() -> None:
    server, loop = Server(), asyncio.get_running_loop()
    asked_to_end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, asked_to_end.set)
    await asyncio.sleep(LOAD_SECONDS)
    listeners = [
        await loop.create_server(lambda: Grpc(server), HOST, 8081, backlog=1024),
        await loop.create_server(lambda: Http(server), HOST, 8080, backlog=1024),
    ]
    server.ready = time.time()
    tell("ready")
    await asked_to_end.wait()
    tell("told to end")
    await asyncio.sleep(DRAIN_SECONDS)
    for listener in listeners:
        listener.close()
    while server.in_flight:
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main())
