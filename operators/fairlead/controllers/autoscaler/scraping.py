"""The model servers' own metrics, where a service scales by one: a bounded scrape of its ready pods with each tick.

Only services that ask for such a metric cost anything here; all others are scaled by what the gateways count. A pod that does not answer keeps its last value for a
short while; after that its part is unknown, and what is unknown may ask for replicas, so nothing shrinks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import aiohttp

from fairlead.controllers.inferenceservice.readiness import is_ready
from fairlead.kube.objects import Key, Object

log = logging.getLogger(__name__)

BUDGET = 0.8
"""Seconds for all scrapes of a tick together: who is slower is asked again with the next."""
AT_ONCE = 64
LARGEST = 4 << 20
"""Bytes of an answer; more is no answer."""
STALE = 10.0
"""Seconds for which a pod's last value holds."""
GREATEST = 1e18
"""No metric is so large; what says so is no measure of anything."""


@dataclass(frozen=True)
class Scrape:
    """What to read of a workload's pods."""

    metric: str
    port: int
    path: str
    rate: bool = False
    """Of a counter: its increase a second."""


class Total(NamedTuple):
    value: float
    complete: bool
    """Whether every ready pod's part is in it."""


class Unanswered(Exception):
    """A pod did not answer, or not with such a metric."""


class Fetch(Protocol):
    async def __call__(self, url: str) -> str:
        """Raises Unanswered."""


class _Sample(NamedTuple):
    at: float
    raw: float
    value: float | None


class PodMetrics:
    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._samples: dict[tuple[Key, str], _Sample] = {}
        self._limit = asyncio.Semaphore(AT_ONCE)

    async def refresh(self, wanted: Mapping[Key, tuple[Scrape, Iterable[Object]]]) -> None:
        """Asks all ready pods of the workloads once; returns when the budget is spent at the latest."""
        asked = [
            (key, address, scrape) for key, (scrape, pods) in wanted.items() for address in sorted(addresses(pods))
        ]
        now = self._clock()
        self._samples = {
            key: sample for key, sample in self._samples.items() if key[0] in wanted and now - sample.at <= STALE
        }
        if asked:
            await asyncio.wait([asyncio.ensure_future(self._bounded(*one)) for one in asked])

    def total(self, workload: Key, pods: Iterable[Object]) -> Total:
        """The sum over the ready pods, of what is known."""
        samples = [self._samples.get((workload, address)) for address in addresses(pods)]
        known = [sample.value for sample in samples if sample is not None and sample.value is not None]
        return Total(sum(known), len(known) == len(samples))

    async def _bounded(self, workload: Key, address: str, scrape: Scrape) -> None:
        try:
            async with asyncio.timeout(BUDGET), self._limit:
                text = await self._fetch(url(address, scrape.port, scrape.path))
            raw = sum_of(text, scrape.metric)
        except (Unanswered, TimeoutError) as error:
            log.warning("%s: %s of the pod at %s is not known: %s", workload, scrape.metric, address, error or "slow")
            return
        now, before = self._clock(), self._samples.get((workload, address))
        value = _increase(before, now, raw) if scrape.rate else raw
        self._samples[workload, address] = _Sample(now, raw, value)


def addresses(pods: Iterable[Object]) -> set[str]:
    """Of the pods that are ready."""
    return {address for pod in pods if is_ready(pod) and (address := pod.get("status", {}).get("podIP"))}


def url(address: str, port: int, path: str) -> str:
    """Of a pod's address, of either family."""
    return f"http://[{address}]:{port}{path}" if ":" in address else f"http://{address}:{port}{path}"


def sum_of(text: str, metric: str) -> float:
    """The sum of a metric's series in Prometheus' text format. Raises Unanswered if there is none, or none that makes sense."""
    values = [value for name, value in series(text, metric) if name == metric and abs(value) < GREATEST]
    if not values:
        raise Unanswered(f"it exports no {metric}")
    return sum(values)


def series(text: str, prefix: str) -> Iterator[tuple[str, float]]:
    """(name, value) of each line that begins with the prefix; labels and timestamps are left out."""
    for line in text.splitlines():
        if not line.startswith(prefix):
            continue
        name, brace, rest = line.partition("{")
        if brace:
            rest = rest[rest.rfind("}") + 1 :]
        else:
            name, _, rest = line.partition(" ")
        try:
            yield name, float(rest.split()[0])
        except (IndexError, ValueError):
            continue


class HttpFetch:
    """GET, of at most `LARGEST` bytes."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, url: str) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        try:
            async with self._session.get(url) as answer:
                answer.raise_for_status()
                body = await answer.content.read(LARGEST + 1)
                while len(body) <= LARGEST and (more := await answer.content.read(LARGEST + 1 - len(body))):
                    body += more
        except (aiohttp.ClientError, ValueError) as error:
            raise Unanswered(str(error) or type(error).__name__) from error
        if len(body) > LARGEST:
            raise Unanswered(f"its answer is longer than {LARGEST} bytes")
        return body.decode(errors="replace")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _increase(before: _Sample | None, now: float, raw: float) -> float | None:
    """A second; None until there are two values. A counter that is lower than before has begun anew."""
    if before is None or now <= before.at:
        return None
    return (raw - before.raw if raw >= before.raw else raw) / (now - before.at)
