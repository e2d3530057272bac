"""The terminal of `fairlead up`: a live view, or plain lines where the output is not a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import time
from typing import TextIO

import aiohttp
from rich.console import Console
from rich.live import Live

from fairlead.kube.informer import Informer
from fairlead.kube.resources import EVENTS, INFERENCE_SERVICES
from fairlead.local.supervisor.cluster import LaptopCluster
from fairlead.local.supervisor.view import Picture, Service, happenings, news, render, services

REFRESH = 0.5
RATES_EVERY = 2.0
EXAMPLES_SHOWN = 3
"""At a time, in the live view: a directory of manifests may hold many services."""
EXAMPLE_LIMIT = 400
"""Characters of an example request; a model with more inputs than that gets none."""


class Screen:
    def __init__(self, cluster: LaptopCluster, output: TextIO, seconds: float) -> None:
        self._cluster = cluster
        self._console = Console(file=output, highlight=False)
        self._seconds = seconds
        self._services = Informer(cluster.client, INFERENCE_SERVICES)
        self._events = Informer(cluster.client, EVENTS)
        self._rates: dict[tuple[str, str], float] = {}
        self._examples: dict[tuple[str, str], str] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        for informer in (self._services, self._events, self._cluster.workloads.pods):
            informer.on_change(lambda old, new: self._changed.set())
        for child in self._cluster.children:
            child.changed = self._changed.set
        tasks = [asyncio.create_task(self._services.run()), asyncio.create_task(self._events.run())]
        try:
            self._say_where()
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
                if self._console.is_terminal:
                    tasks.append(asyncio.create_task(self._read_rates(http)))
                    await self._live(http)
                else:
                    await self._plain(http)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _live(self, http: aiohttp.ClientSession) -> None:
        with Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
            while True:
                picture = self._picture()
                live.update(render(picture), refresh=True)
                for example in (await self._find_examples(http, picture))[:EXAMPLES_SHOWN]:
                    self._say(f"  predict  {example}")
                await self._next()

    async def _plain(self, http: aiohttp.ClientSession) -> None:
        before = Picture()
        while True:
            picture = self._picture()
            for line in news(before, picture):
                self._say(line)
            before = picture
            for example in await self._find_examples(http, picture):
                self._say(f"  try: {example}")
            await self._next()

    def _say(self, line: str) -> None:
        """A line that stays, above the live view. The terminal wraps it, so that what is copied from it is one line."""
        self._console.print(line, markup=False, soft_wrap=True)

    async def _next(self) -> None:
        """The next change, and then no sooner than a moment later: what changes together is shown together."""
        await self._changed.wait()
        self._changed.clear()
        await asyncio.sleep(REFRESH if self._console.is_terminal else REFRESH / 5)

    def _picture(self) -> Picture:
        found = services(self._services.store, self._cluster.workloads.pods.store, self._rates, self._cluster.url)
        troubles = tuple(child.trouble for child in self._cluster.children if child.trouble)
        return Picture(found, happenings(self._events.store), troubles)

    def _say_where(self) -> None:
        home = self._cluster.options.home
        self._console.print("[bold]Fairlead is up[/bold]", end="")
        self._say(f" ({self._seconds:.1f} s). Ctrl-C stops it; logs are in {home.directory}.")
        self._say(f"  gateway  {self._cluster.url}")
        self._say(f"  kubectl  export KUBECONFIG={shlex.quote(str(home.kubeconfig))}")

    async def _find_examples(self, http: aiohttp.ClientSession, picture: Picture) -> list[str]:
        """A request to paste, for each service that has come up."""
        new = []
        for service in picture.services:
            key = (service.namespace, service.name)
            if service.ready and service.is_up and key not in self._examples:
                self._examples[key] = await _example(http, service)
                new.append(self._examples[key])
        return new

    async def _read_rates(self, http: aiohttp.ClientSession) -> None:
        """Requests a second from the agent's totals."""
        last: dict[tuple[str, str], tuple[float, float]] = {}
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, KeyError):
                async with http.get(f"http://{self._cluster.agent}/v1/stats") as answer:
                    now, totals = time.monotonic(), request_totals(await answer.json())
                for key, total in totals.items():
                    before = last.get(key)
                    if before is not None and total >= before[1]:
                        self._rates[key] = (total - before[1]) / (now - before[0])
                    last[key] = (now, total)
                self._changed.set()
            await asyncio.sleep(RATES_EVERY)


def request_totals(stats: dict[str, object]) -> dict[tuple[str, str], float]:
    """(namespace, workload) -> requests so far, from an agent's /v1/stats."""
    workloads = stats["workloads"]
    assert isinstance(workloads, list)
    return {(item["namespace"], item["name"]): float(item["requests"]) for item in workloads}


async def _example(http: aiohttp.ClientSession, service: Service) -> str:
    """`curl …` with an input of the right shape, where the model's metadata tells it."""
    url = f"{service.url}/v2/models/{service.name}"
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError, TypeError):
        async with http.get(url) as answer:
            inputs = [_tensor(tensor) for tensor in (await answer.json())["inputs"]]
        body = json.dumps({"inputs": inputs}, separators=(",", ":"))
        if inputs and len(body) <= EXAMPLE_LIMIT:
            return f"curl -s {url}/infer -d {shlex.quote(body)}"
    return f"curl -s {url}"


def _tensor(metadata: dict[str, object]) -> dict[str, object]:
    shape = [1 if int(size) < 0 else int(size) for size in metadata["shape"]]  # type: ignore[attr-defined]
    count = 1
    for size in shape:
        count *= size
    if count > EXAMPLE_LIMIT:
        raise ValueError("too large for an example")
    datatype = str(metadata["datatype"])
    value: object = "text" if datatype == "BYTES" else True if datatype == "BOOL" else 1
    return {"name": metadata["name"], "shape": shape, "datatype": datatype, "data": [value] * count}
