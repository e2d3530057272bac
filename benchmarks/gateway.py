"""The gateway's figures: what it adds to a request, what it carries, how soon a weight is in effect, what a service costs.

    python benchmarks/gateway.py [--json FILE] [--services 1000] [--quick]

Clients, gateways and pods share one core, so that wake-ups across cores do not blur microseconds, and the variants take turns.
The pod is a HAProxy that answers by itself: the fastest server at hand. What a gateway carries is given as requests per second of its
own CPU time: unlike requests per second of the whole, it does not flatter the gateway with the client's and the pod's share.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import select
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _figures import Figures

from fairlead.gateway.agent import Agent
from fairlead.gateway.haproxy import command, find_haproxy, write_files
from fairlead.gateway.plan import initial_state
from fairlead.gateway.settings import Settings
from fairlead.gateway.state import Slot
from fairlead.kube.client import ObjectList
from fairlead.kube.resources import ENDPOINT_SLICES, INFERENCE_SERVICES, SERVICES, Resource
from fairlead.kube.watch import Event

HOST = "iris-ns.example.com"
BODY = b'{"instances":[[5.1,3.5,1.4,0.2]]}'


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# --- Clients: no more than the bytes ---------------------------------------------------------------------------


class Http:
    """HTTP/1.1 with keep-alive; responses are told by their constant length."""

    name = "HTTP"
    REQUEST = (
        f"POST /v1/models/iris:predict HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send()
        first = self.socket.recv(65536)
        if not first.startswith(b"HTTP/1.1 200") or b"\r\nconnection: close" in first.lower():
            raise RuntimeError(f"unexpected answer: {first!r}")
        self._length, self._got = len(first), 0

    def send(self) -> None:
        self.socket.sendall(self.REQUEST)

    def receive(self) -> bool:
        """Reads once; whether the answer is complete."""
        self._got += len(self.socket.recv(65536))
        done = self._got == self._length
        if done:
            self._got = 0
        return done


class Grpc:
    """One stream at a time on an HTTP/2 connection without TLS; its end is all that is looked for."""

    name = "gRPC"
    _HEADERS = b"".join(
        b"\x00" + struct.pack("BB", len(k), 0)[:1] + k + struct.pack("B", len(v)) + v
        for k, v in (
            (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
            (b":authority", HOST.encode()), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
        )
    )  # fmt: skip
    _DATA = b"\x00" + struct.pack(">I", len(BODY)) + BODY

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self._frame(4, 0, 0, b"") + self._frame(4, 1, 0, b""))
        self._stream, self._buffer = -1, b""
        self.send()
        while not self.receive():
            pass

    @staticmethod
    def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def send(self) -> None:
        self._stream += 2
        self.socket.sendall(
            self._frame(1, 4, self._stream, self._HEADERS) + self._frame(0, 1, self._stream, self._DATA)
        )

    def receive(self) -> bool:
        received = self.socket.recv(65536)
        if not received:
            raise RuntimeError("the connection was closed")
        self._buffer += received
        done = False
        while len(self._buffer) >= 9:
            length = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < 9 + length:
                break
            kind, flags = self._buffer[3], self._buffer[4]
            if kind in (3, 7):
                raise RuntimeError(f"the stream or connection was ended: {self._buffer!r}")
            done |= kind in (0, 1) and bool(flags & 1)
            self._buffer = self._buffer[9 + length :]
        return done


Client = Http | Grpc


def latencies(client: Client, count: int) -> list[float]:
    """Microseconds, one request after the other."""
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        client.send()
        while not client.receive():
            pass
        times.append((time.perf_counter_ns() - began) / 1000)
    return times


def requests_in(clients: list[Client], seconds: float) -> tuple[int, float]:
    """How many answers came in how many seconds, each client sending its next request when its last is answered."""
    poll = select.epoll()
    by_number = {client.socket.fileno(): client for client in clients}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    count, waiting = 0, len(clients)
    began = time.perf_counter()
    for client in clients:
        client.send()
    while waiting:
        over = time.perf_counter() - began >= seconds
        for number, _ in poll.poll(1):
            client = by_number[number]
            if client.receive():
                count += 1
                if over:
                    waiting -= 1
                else:
                    client.send()
    return count, time.perf_counter() - began


# --- What is measured ------------------------------------------------------------------------------------------


@contextmanager
def running(arguments: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(arguments, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError as error:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"{arguments[0]} did not start: {log.read_text()}") from error
                time.sleep(0.01)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def small_haproxy(directory: Path, name: str, port: int, rules: str) -> list[str]:
    config = directory / f"{name}.cfg"
    config.write_text(
        "global\n    maxconn 1000\n    nbthread 1\ndefaults\n    mode http\n    timeout connect 1s\n    timeout client 60s\n"
        f"    timeout server 60s\nfrontend f\n    bind 127.0.0.1:{port}\n{rules}"
    )
    return [str(find_haproxy()), "-db", "-f", str(config)]


def worker(process: subprocess.Popen[bytes]) -> int:
    """A master's worker, or the process itself."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else process.pid


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def resident(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def per_request(figures: Figures, directory: Path, make: Callable[[int], Client], rounds: int) -> None:
    kind = make.name  # type: ignore[attr-defined]
    grpc = make is Grpc
    pod, minimal, gateway, split = (free_port() for _ in range(4))
    answer = (
        "    http-request return status 200 content-type application/grpc string x hdr grpc-status 0\n"
        if grpc
        else "    http-request return status 200 content-type application/json string '{\"predictions\":[0]}'\n"
    )
    to_pod = f"    default_backend b\nbackend b\n    server s 127.0.0.1:{pod}{' proto h2' if grpc else ''}\n"
    with (
        running(small_haproxy(directory, f"pod-{kind}", pod, answer), pod, directory / "pod.log"),
        running(
            small_haproxy(directory, f"minimal-{kind}", minimal, to_pod), minimal, directory / "minimal.log"
        ) as plain,
        running(gateway_to(directory / f"one-{kind}", gateway, pod, grpc, 1), gateway, directory / "one.log") as one,
        running(gateway_to(directory / f"two-{kind}", split, pod, grpc, 2), split, directory / "two.log") as two,
    ):
        ports = {"direct": pod, "minimal": minimal, "gateway": gateway, "split": split}
        single = {name: make(port) for name, port in ports.items()}
        times: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(rounds):
            for name, client in single.items():
                times[name] += latencies(client, 200)
        p50 = {name: statistics.median(sample) for name, sample in times.items()}
        figures.add(f"{kind}: added to p50 at 1 connection", p50["gateway"] - p50["direct"], "us", goal=80)
        figures.add(f"{kind}: added by a minimal HAProxy", p50["minimal"] - p50["direct"], "us")
        figures.add(f"{kind}: added to p50, two weighted targets", p50["split"] - p50["direct"], "us")

        many = {name: [make(ports[name]) for _ in range(32)] for name in ("minimal", "gateway", "split")}
        pids = {"minimal": worker(plain), "gateway": worker(one), "split": worker(two)}
        carried: dict[str, list[float]] = {name: [] for name in many}
        rates: dict[str, list[float]] = {name: [] for name in many}
        for _ in range(rounds):
            for name, clients in many.items():
                before = cpu_seconds(pids[name])
                count, seconds = requests_in(clients, 0.25)
                carried[name].append(count / (cpu_seconds(pids[name]) - before))
                rates[name].append(count / seconds)
        best = {name: statistics.median(values) for name, values in carried.items()}
        rate = {name: statistics.median(values) for name, values in rates.items()}
        figures.add(
            f"{kind}: requests/s, against minimal, all on one core",
            rate["gateway"] / rate["minimal"],
            "ratio",
            goal=0.9,
            at_least=True,
        )
        figures.add(f"{kind}: requests/s of its own CPU, against minimal", best["gateway"] / best["minimal"], "ratio")
        figures.add(f"{kind}: the same, two weighted targets", best["split"] / best["minimal"], "ratio")
        figures.add(f"{kind}: requests/s of its own CPU", best["gateway"], "1/s")


def gateway_to(directory: Path, port: int, pod: int, grpc: bool, targets: int) -> list[str]:
    settings = Settings(directory=directory, bind=(f"127.0.0.1:{port}",), threads=1, max_connections=1000)
    state = initial_state(settings.http_backends, settings.grpc_backends, settings.slots)
    route, transport = "ns/iris/predictor", "h2" if grpc else "h1"
    backends = [f"{transport}-{n + 1:04d}" for n in range(targets)]
    for backend in backends:
        state.backends[backend][0] = Slot("127.0.0.1", pod, "ready")
        state.maps["upstreams"][backend] = f"ns/{backend}/{transport}"
        state.maps["timeouts"][backend] = "60000"
    state.maps["hosts"][HOST] = route
    text = backends[0] if targets == 1 else f"100:{backends[0]}=80,{backends[1]}=100"
    state.maps["http"][route] = state.maps["grpc"][route] = text
    write_files(settings, state)
    return command(settings)


# --- Changes ---------------------------------------------------------------------------------------------------


class Objects:
    """The API server's part: lists and watches, from memory."""

    def __init__(self) -> None:
        self._objects: dict[Resource, dict[str, dict[str, Any]]] = {}
        self._watches: dict[Resource, asyncio.Queue[Event]] = {}
        self._version = 0

    async def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> ObjectList:
        return ObjectList(copy.deepcopy(list(self._objects.get(resource, {}).values())), str(self._version))

    async def watch(self, resource: Resource, namespace: str | None = None, **_: Any) -> AsyncIterator[Event]:
        queue = self._watches[resource] = asyncio.Queue()
        while True:
            yield await queue.get()

    def put(self, resource: Resource, name: str, obj: dict[str, Any]) -> None:
        self._version += 1
        obj["metadata"] = {"namespace": "ns", "name": name, "resourceVersion": str(self._version)} | obj.get(
            "metadata", {}
        )
        self._objects.setdefault(resource, {})[name] = obj
        if resource in self._watches:
            self._watches[resource].put_nowait(Event("MODIFIED", copy.deepcopy(obj)))

    def service(self, name: str, weights: dict[str, int], ports: dict[str, int]) -> None:
        for workload, port in ports.items():
            labels = {"serving.kserve.io/inferenceservice": name, "kubernetes.io/service-name": workload}
            self.put(
                SERVICES, workload, {"metadata": {"labels": labels}, "spec": {"ports": [{"name": "http", "port": 80}]}}
            )
            self.put(
                ENDPOINT_SLICES,
                workload,
                {
                    "metadata": {"labels": labels},
                    "addressType": "IPv4",
                    "ports": [{"name": "http", "port": port}],
                    "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
                },
            )
        self.weights(name, weights)

    def weights(self, name: str, weights: dict[str, int]) -> None:
        traffic = [
            {"revisionName": w, "serviceName": w, "percent": p, "latestRevision": True} for w, p in weights.items()
        ]
        self.put(
            INFERENCE_SERVICES,
            name,
            {"spec": {"predictor": {}}, "status": {"components": {"predictor": {"traffic": traffic}}}},
        )


async def changes(figures: Figures, directory: Path, services: int, count: int) -> None:
    pods = {"a": free_port(), "b": free_port()}
    port = free_port()
    settings = Settings(
        directory=directory / f"changes-{services}", bind=(f"127.0.0.1:{port}",), threads=1, max_connections=1000,
        http_backends=services + 16,
    )  # fmt: skip
    objects = Objects()
    objects.service("iris", {"a": 100, "b": 0}, pods)
    for number in range(services - 1):
        objects.service(f"other-{number}", {f"other-{number}": 100}, {f"other-{number}": pods["a"]})
    write_files(settings, initial_state(settings.http_backends, settings.grpc_backends, settings.slots))
    answers = {name: f"    http-request return status 200 content-type text/plain string {name}\n" for name in pods}
    with (
        running(small_haproxy(directory, "a", pods["a"], answers["a"]), pods["a"], directory / "a.log"),
        running(small_haproxy(directory, "b", pods["b"], answers["b"]), pods["b"], directory / "b.log"),
        running(command(settings), port, directory / "gateway.log") as gateway,
    ):
        agent = Agent(settings, objects)  # type: ignore[arg-type]
        began = time.perf_counter()
        task = asyncio.create_task(agent.run())
        while not agent.ready:
            await asyncio.sleep(0.005)
        figures.add(f"{services} services: all programmed after", time.perf_counter() - began, "s")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        times = []
        for number in range(count):
            wanted = b"ab"[(number + 1) % 2 :][:1]
            await asyncio.sleep(0.01)
            changed = time.perf_counter()
            objects.weights("iris", {"a": 100 if wanted == b"a" else 0, "b": 100 if wanted == b"b" else 0})
            while True:
                writer.write(Http.REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"a request failed: {head!r}")
                if await reader.readexactly(1) == wanted:
                    break
                await asyncio.sleep(0.001)
            times.append((time.perf_counter() - changed) * 1000)
        writer.close()
        figures.add(f"{services} services: weight changed to in effect, p50", statistics.median(times), "ms")
        figures.add(f"{services} services: the same, p99", statistics.quantiles(times, n=100)[98], "ms", goal=300)
        figures.add(f"{services} services: reloads", agent.programmer.reloads, "", goal=0)
        figures.add(f"{services} services: HAProxy resident", resident(worker(gateway)), "MiB")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    options = parser.parse_args()
    rounds = 4 if options.quick else 40
    figures = Figures("The gateway")
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        directory = Path(name)
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        for make in (Http, Grpc):
            per_request(figures, directory, make, rounds)
        os.sched_setaffinity(0, cores)
        for services in (1, options.services):
            asyncio.run(changes(figures, directory, services, 20 if options.quick else 200))
    if options.services > 1:
        small, large = (figures.figures[f"{n} services: HAProxy resident"]["value"] for n in (1, options.services))
        figures.add("HAProxy's memory per service", (large - small) * 1024 / (options.services - 1), "KiB")
    figures.finish(options.json)


if __name__ == "__main__":
    main()
