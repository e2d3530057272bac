"""Whether another gateway takes new connections: a pod that is to go goes on until then, or for as long as it may.

HAProxy's container has no credentials, so the agent tells its preStop hook by a file. A pod that is being deleted is no ready
endpoint of the gateways' Service any more: as long as one is ready, it is another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from fairlead.gateway.essentials import SERVICE_OF_SLICE
from fairlead.kube.informer import Informer, Source
from fairlead.kube.objects import Key, Object
from fairlead.kube.resources import ENDPOINT_SLICES

RELIEVED = "relieved"
"""The file in HAProxy's directory that is there while new connections have somewhere to go."""


class Succession:
    def __init__(self, client: Source, service: Key, directory: Path) -> None:
        """`service`: the one that leads to all gateways."""
        self._file = directory / RELIEVED
        labels = f"{SERVICE_OF_SLICE}={service.name}"
        self._slices = Informer(client, ENDPOINT_SLICES, namespace=service.namespace, labels=labels)

    async def run(self) -> None:
        """Until cancelled. Errors of the API server are waited out; the file says meanwhile what was known last."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._slices.run(), name="successors")
            await self._slices.synced.wait()
            self._slices.on_change(lambda _, __: self._tell())
            self._tell()

    def _tell(self) -> None:
        if relieved(self._slices.store.list()):
            self._file.touch()
        else:
            self._file.unlink(missing_ok=True)


def relieved(slices: Iterable[Object]) -> bool:
    """Whether an endpoint is ready, or there is none because the Service is gone, and with it all who would be sent here."""
    found = list(slices)
    return not found or any(_is_ready(endpoint) for item in found for endpoint in item.get("endpoints") or ())


def _is_ready(endpoint: Object) -> bool:
    return (endpoint.get("conditions") or {}).get("ready") is not False
