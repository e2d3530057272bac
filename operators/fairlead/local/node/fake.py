"""Pods that only pretend: ready at once, no process, and connections closed as soon as they are made.

For benchmarks of the control plane, never for serving. They do listen: a gateway that found nobody there would look again and again.
"""

from __future__ import annotations

import asyncio
import contextlib

from fairlead.kube.errors import ApiError
from fairlead.kube.objects import Object, timestamp
from fairlead.kube.resources import PODS
from fairlead.local.node import objects
from fairlead.local.node.container import ContainerRunner
from fairlead.local.node.machine import Machine
from fairlead.local.node.pod_status import ContainerRecord, pod_status


class PretendedPod:
    """A PodRunner in all that the node sees of one."""

    def __init__(self, machine: Machine, pod: Object) -> None:
        self._machine = machine
        self._pod = pod
        self._end = asyncio.Event()
        self.containers: list[ContainerRunner] = []

    def update(self, pod: Object) -> None:
        if objects.is_terminating(pod):
            self._end.set()

    def end(self, grace: float, *, hooks: bool = True) -> None:
        self._end.set()

    async def run(self) -> None:
        ip = self._machine.addresses.take()
        listeners: list[asyncio.Server] = []
        try:
            listeners.extend([await _listener(ip, port) for port in self._ports()])
            self.update(self._pod)
            with contextlib.suppress(ApiError):
                await self._machine.client.patch(
                    PODS,
                    objects.name(self._pod),
                    {"status": self._ready(ip)},
                    objects.namespace(self._pod),
                    subresource="status",
                )
            await self._end.wait()
        finally:
            for listener in listeners:
                listener.close()
            self._machine.addresses.give_back(ip)

    def _ports(self) -> list[int]:
        return [
            port["containerPort"]
            for container in self._pod["spec"]["containers"]
            for port in container.get("ports", ())
        ]

    def _ready(self, ip: str) -> Object:
        now = self._machine.now()
        records = [
            ContainerRecord(
                container["name"],
                str(container.get("image", "")),
                {"running": {"startedAt": timestamp(now)}},
                ready=True,
                started=True,
            )
            for container in self._pod["spec"]["containers"]
        ]
        return pod_status(self._pod, [], records, ip=ip, started=now, now=now)


class _Closing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _listener(ip: str, port: int) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(_Closing, ip, port)
