"""A soak of the model server: a million requests, good and bad, over all protocols, each answer checked, with memory watched.

    python benchmarks/soak.py [--engine process] [--requests 1000000] [--minutes 120] [--json FILE]

HTTP and gRPC clients draw from the cases of `_soak_cases`; a tenth to a fifth of the requests are wrong, slow, or
abandoned. Each case has TIMEOUT seconds: one that has no answer by then counts as unanswered. The server's memory
(what all its processes have written: other users of the same libraries do not change it) is sampled through the run, its
growth is the slope of a line through the samples after the first fifth.

The exit code is 0 if every request was answered as it must be, memory grew by less than MAX_GROWTH MB, no file stayed open,
and the server ended by itself at SIGTERM. It is no timing figure, may run beside other work (it lowers its
own priority), and takes some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import _process as process
from benchmarks._figures import Figures
from benchmarks._soak_cases import BODY_LIMIT, GRPC_CASES, HTTP_CASES, Rows, make_models, rows
from benchmarks._soak_clients import Grpc, Http

TIMEOUT = 120.0
"""Seconds: long enough for a machine that does much else, short enough that what is never answered is seen."""
HTTP_CLIENTS, GRPC_CLIENTS = 24, 12
WARM_UP = 0.2
"""Of the requests: arenas grow and caches fill; growth counts after them."""
MAX_GROWTH = 10.0
"""MB from the warm-up to the end, from the slope."""
SHOWN = 20


@dataclass
class Tally:
    """What came of the requests."""

    wanted: int
    begun: int = 0
    by_case: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: int = 0
    unanswered: int = 0
    memory: list[tuple[int, float]] = field(default_factory=list)
    """(requests so far, MB)."""
    cut_short: bool = False

    @property
    def done(self) -> int:
        return self.by_case.total()

    def take(self) -> bool:
        """May one more request be sent?"""
        if self.cut_short or self.begun >= self.wanted:
            return False
        self.begun += 1
        return True

    def failed(self, case: str, error: BaseException) -> None:
        if isinstance(error, TimeoutError):
            self.unanswered += 1
        else:
            self.wrong += 1
        if self.wrong + self.unanswered <= SHOWN:
            print(f"  {case}: {type(error).__name__}: {error}", flush=True)


Case = Callable[[Any, Rows], Awaitable[None]]


async def client(
    tally: Tally, kind: str, connection: Any, cases: Mapping[str, tuple[int, Case]], given: list[Rows], seed: int
) -> None:
    draw = random.Random(seed)
    names = list(cases)
    weights = [cases[name][0] for name in names]
    while tally.take():
        (name,) = draw.choices(names, weights)
        try:
            async with asyncio.timeout(TIMEOUT):
                await cases[name][1](connection, draw.choice(given))
        except Exception as error:
            tally.failed(f"{kind}, {name}", error)
            connection.close() if isinstance(connection, Http) else await connection.again()
        tally.by_case[f"{kind}, {name}"] += 1


async def watch(tally: Tally, server: process.Process, minutes: float) -> None:
    """Sample memory and say how far it is; end the run when its time is over or the server has died."""
    started = said = time.monotonic()
    while True:
        await asyncio.sleep(2)
        tally.memory.append((tally.done, await asyncio.to_thread(server.anonymous)))
        now = time.monotonic()
        if now - said > 15:
            said = now
            rate = tally.done / (now - started)
            print(
                f"  {tally.done:>9,} requests, {rate:,.0f}/s, {tally.memory[-1][1]:.1f} MB, "
                f"{tally.wrong} wrong, {tally.unanswered} unanswered",
                flush=True,
            )
        if now - started > 60 * minutes or not server.alive():
            tally.cut_short = True


async def run(
    tally: Tally, server: process.Process, http_port: int, grpc_port: int, given: list[Rows], minutes: float
) -> None:
    watching = asyncio.create_task(watch(tally, server, minutes))
    https = [Http(http_port) for _ in range(HTTP_CLIENTS)]
    grpcs = [Grpc(grpc_port) for _ in range(GRPC_CLIENTS)]
    clients = [client(tally, "HTTP", http, HTTP_CASES, given, i) for i, http in enumerate(https)]
    clients += [client(tally, "gRPC", each, GRPC_CASES, given, 1000 + i) for i, each in enumerate(grpcs)]
    await asyncio.gather(*clients)
    watching.cancel()
    for http in https:
        http.close()
    for each in grpcs:
        await each.close()


def growth(memory: list[tuple[int, float]]) -> float:
    """MB by which a line through the samples after the warm-up rises."""
    kept = [sample for sample in memory if sample[0] >= WARM_UP * memory[-1][0]]
    if len({requests for requests, _ in kept}) < 2:
        return 0.0
    line = statistics.linear_regression([requests for requests, _ in kept], [megabytes for _, megabytes in kept])
    return line.slope * (kept[-1][0] - kept[0][0])


def start_server(engine: str, directory: Path, http_port: int, grpc_port: int) -> process.Process:
    command = [sys.executable, "-m", "fairlead.runtime", "--engine", engine, "--host", "127.0.0.1"]
    command += ["--http_port", str(http_port), "--grpc_port", str(grpc_port), "--max_buffer_size", str(BODY_LIMIT)]
    command += ["--model_repository", str(directory / "models"), "--allow_pickle"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = process.start(command, directory / "server.log", environment=environment, nice=10)
    process.wait_until("the server", server, lambda: _ready(http_port), seconds=600)
    return server


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("process", "ray"), default="process")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=120.0, help="end by then, however many were sent")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    process.end_with_us()
    os.nice(10)
    tally = Tally(options.requests)
    with tempfile.TemporaryDirectory(prefix="fairlead-soak-") as place:
        directory = Path(place)
        make_models(directory / "models")
        given = rows(directory / "models")
        http_port, grpc_port = process.free_port(), process.free_port()
        server = start_server(options.engine, directory, http_port, grpc_port)
        try:
            before = server.open_files()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run(tally, server, http_port, grpc_port, given, options.minutes))
            time.sleep(2)
            after, last = server.open_files(), server.last_lines()
        finally:
            code = server.stop()
    figures = report(tally, options.engine, before, after, code)
    figures.finish(options.json)
    print(json.dumps(dict(sorted(tally.by_case.items())), indent=1))
    met = all(figure["met"] is not False for figure in figures.figures.values())
    if not met:
        print(f"the server's last lines:\n{last}")
    return 0 if met else 1


def report(tally: Tally, engine: str, before: int, after: int, code: int | None) -> Figures:
    figures = Figures(f"Soak of the model server, engine {engine}")
    figures.add("requests", tally.done, "", goal=tally.wanted, at_least=True)
    figures.add("wrong answers", tally.wrong, "", goal=0)
    figures.add("unanswered", tally.unanswered, "", goal=0)
    memory = [megabytes for _, megabytes in tally.memory] or [0.0]
    figures.add("memory after the warm-up", next((m for n, m in tally.memory if n >= WARM_UP * tally.done), 0.0), "MB")
    figures.add("memory at the end", memory[-1], "MB")
    figures.add("growth after the warm-up, by slope", growth(tally.memory), "MB", goal=MAX_GROWTH)
    figures.add("open files, more than before", after - before, "", goal=32)
    figures.add("ended by itself at SIGTERM", float(code == 0), "", goal=1, at_least=True)
    return figures


if __name__ == "__main__":
    sys.exit(main())
