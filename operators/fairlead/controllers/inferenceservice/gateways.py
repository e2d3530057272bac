"""What the gateways do now, asked of each agent, and what that means for IngressReady and for workloads that traffic has left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol

import aiohttp

from fairlead.controllers.inferenceservice.status import Confirmation
from fairlead.controllers.inferenceservice.traffic import Target
from fairlead.kube.objects import Key

TIMEOUT = 2.0
"""Seconds that an agent may take to answer."""


@dataclass(frozen=True)
class Answer:
    """One agent's `GET /v1/routes/{namespace}/{name}`."""

    agent: str
    routes: Mapping[str, Any] | None = None
    """None: it does not know the service."""
    error: str = ""

    def targets(self, component: str) -> list[Mapping[str, Any]]:
        components = (self.routes or {}).get("components") or {}
        return list((components.get(component) or {}).get("targets") or ())


class Gateways(Protocol):
    async def ask(self, key: Key) -> Sequence[Answer]:
        """All agents' answers; none if there are no agents."""


def confirm(
    answers: Sequence[Answer],
    wanted: Mapping[str, Sequence[Target]],
    *,
    was_ready: bool,
    asleep: Set[str] = frozenset(),
) -> Confirmation:
    """IngressReady: every gateway sends requests where the status says, and something there is ready to take them, or wakes up (`asleep`).

    A service that was ready stays so while its split moves, as long as each gateway has a ready endpoint for every component.
    """
    if not all(wanted.values()) or not wanted:
        missing = ", ".join(kind for kind, targets in wanted.items() if not targets) or "predictor"
        return Confirmation("False", "NoTraffic", f"no revision of the {missing} has been ready yet")
    if not answers:
        return Confirmation("True", "NoGateway", "no gateway agent is configured")
    verdicts = [_verdict(answer, wanted, was_ready=was_ready, asleep=asleep) for answer in answers]
    return next((verdict for verdict in verdicts if verdict.status != "True"), verdicts[0])


def in_effect(answers: Sequence[Answer], wanted: Mapping[str, Sequence[Target]]) -> bool:
    """Whether every gateway splits the traffic just so."""
    return all(
        answer.routes is not None and _split(answer.targets(kind)) == _wanted_split(targets)
        for answer in answers
        for kind, targets in wanted.items()
    )


def has_left(answers: Iterable[Answer], workload: str) -> bool:
    """Whether every gateway says that the workload gets no request any more, by weight or by tag."""
    return all(
        not answer.error
        and all(
            target.get("serviceName") != workload
            for kind in (answer.routes or {}).get("components") or {}
            for target in answer.targets(kind)
        )
        for answer in answers
    )


def _verdict(
    answer: Answer, wanted: Mapping[str, Sequence[Target]], *, was_ready: bool, asleep: Set[str]
) -> Confirmation:
    where = f"the gateway at {answer.agent}"
    if answer.error:
        return Confirmation("False", "GatewayUnreachable", f"{where} does not answer: {answer.error}")
    if answer.routes is None:
        return Confirmation("Unknown", "Programming", f"{where} does not know the service yet")
    if answer.routes.get("conflict"):
        return Confirmation("False", "HostConflict", str(answer.routes["conflict"]))
    for kind, targets in wanted.items():
        found = answer.targets(kind)
        if _split(found) != _wanted_split(targets) and not was_ready:
            return Confirmation("Unknown", "Programming", f"{where} does not split the {kind}'s traffic as asked yet")
        able = (
            target.get("readyEndpoints") or target.get("serviceName") in asleep for target in found if target["percent"]
        )
        if not any(able):
            return Confirmation("False", "NoReadyEndpoints", f"{where} has no ready endpoint for the {kind}")
    return Confirmation("True", "Programmed")


def _split(found: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    return {target["serviceName"]: target["percent"] for target in found if target["percent"]}


def _wanted_split(targets: Sequence[Target]) -> dict[str, int]:
    return {target.workload: target.percent for target in targets if target.percent}


class HttpGateways:
    """Agents at `HOST:PORT`; a host with several addresses, such as a headless Service, is several agents."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, key: Key) -> Sequence[Answer]:
        if not self._addresses:
            return ()
        found = await asyncio.gather(*map(resolved, self._addresses))
        return await asyncio.gather(*(self._ask(agent, key) for agents in found for agent in agents))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _ask(self, agent: str, key: Key) -> Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        try:
            async with self._session.get(f"http://{agent}/v1/routes/{key.namespace}/{key.name}") as response:
                if response.status == 404:
                    return Answer(agent)
                response.raise_for_status()
                return Answer(agent, await response.json())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return Answer(agent, error=str(error) or type(error).__name__)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def resolved(address: str) -> list[str]:
    """`HOST:PORT` for each of the host's addresses; the name itself if it has none, so that asking says why."""
    host, _, port = address.rpartition(":")
    if _is_ip(host.strip("[]")):
        return [address]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return [address]
    hosts = sorted({str(info[4][0]) for info in found})
    return [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in hosts]
