"""The gateways' agents as autoscaling needs them: what they count, and at once when requests begin to wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import aiohttp

from fairlead.controllers.autoscaler.readings import Reading, reading
from fairlead.controllers.inferenceservice.gateways import resolved
from fairlead.kube.objects import Key

RESOLVE_TIMEOUT = 0.5
"""Seconds that a tick waits for DNS; after that the agents are those that they were."""
STATS_TIMEOUT = 1.0
DEMAND_TIMEOUT = 30.0
"""Longer than an agent holds the question back."""


class AgentSilent(Exception):
    """An agent did not answer, or not sensibly."""


class Demand(NamedTuple):
    """One agent's `GET /v1/demand`: the workloads for which requests are held."""

    version: int
    held: dict[Key, int]


class Agents(Protocol):
    async def addresses(self) -> Sequence[str]: ...
    async def stats(self, agent: str) -> Reading:
        """Raises AgentSilent."""

    async def demand(self, agent: str, after: int) -> Demand:
        """Returns when requests are held for a workload for which none were at version `after`, or after a while.

        Raises AgentSilent."""


class HttpAgents:
    """Agents at `HOST:PORT`; a host with several addresses is several agents."""

    def __init__(self, addresses: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._addresses = addresses
        self._known: Sequence[str] = ()
        self._resolving: asyncio.Task[Sequence[str]] | None = None
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def addresses(self) -> Sequence[str]:
        if self._resolving is None:
            self._resolving = asyncio.create_task(self._resolved())
        done, _ = await asyncio.wait({self._resolving}, timeout=RESOLVE_TIMEOUT)
        if done:
            self._known, self._resolving = self._resolving.result(), None
        return self._known

    async def stats(self, agent: str) -> Reading:
        answer = await self._get(agent, "/v1/stats", STATS_TIMEOUT)
        try:
            return reading(self._clock(), answer)
        except (KeyError, TypeError) as error:
            raise AgentSilent(f"the gateway at {agent} answers /v1/stats without {error}") from error

    async def demand(self, agent: str, after: int) -> Demand:
        answer = await self._get(agent, f"/v1/demand?after={after}", DEMAND_TIMEOUT)
        try:
            held = {Key(entry["namespace"], entry["name"]): int(entry["held"]) for entry in answer["workloads"]}
            return Demand(int(answer["version"]), held)
        except (KeyError, TypeError, ValueError) as error:
            raise AgentSilent(f"the gateway at {agent} answers /v1/demand without {error}") from error

    async def close(self) -> None:
        if self._resolving is not None:
            self._resolving.cancel()
        if self._session is not None:
            await self._session.close()

    async def _resolved(self) -> Sequence[str]:
        found = await asyncio.gather(*map(resolved, self._addresses))
        return [agent for agents in found for agent in agents]

    async def _get(self, agent: str, path: str, timeout: float) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with self._session.get(
                f"http://{agent}{path}", timeout=aiohttp.ClientTimeout(total=timeout)
            ) as answer:
                answer.raise_for_status()
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AgentSilent(f"the gateway at {agent}: {error or type(error).__name__}") from error
