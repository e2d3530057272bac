"""The cluster that a command is for: a kubeconfig as kubectl finds it, else the laptop cluster that is up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fairlead.cli.errors import CliError
from fairlead.kube.client import Client
from fairlead.kube.config import DEFAULT_KUBECONFIG
from fairlead.kube.errors import NotFound
from fairlead.kube.objects import Object
from fairlead.kube.resources import INFERENCE_SERVICES
from fairlead.local.supervisor.home import Home, Running, default_directory

URL_VARIABLE = "FAIRLEAD_URL"
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """What the options said."""

    kubeconfig: str | None = None
    context: str | None = None

    def kubeconfig_path(self) -> str | None:
        """The one to use; None means a pod's service account."""
        given = self.kubeconfig or os.environ.get("KUBECONFIG")
        if given or Path(DEFAULT_KUBECONFIG).expanduser().exists():
            return given
        running = laptop()
        return running.kubeconfig if running else None

    def gateway_url(self, url: str | None) -> str | None:
        """The gateway's address: given, $FAIRLEAD_URL, or the laptop cluster's if that is the cluster; None if it is not known."""
        if found := url or os.environ.get(URL_VARIABLE):
            return found.rstrip("/")
        running, used = laptop(), self.kubeconfig_path()
        if running and used and Path(used).resolve() == Path(running.kubeconfig).resolve():
            return running.url.rstrip("/")
        return None

    def operator_address(self) -> str | None:
        """The operator's own port, if this is the laptop cluster."""
        running, used = laptop(), self.kubeconfig_path()
        if running and used and Path(used).resolve() == Path(running.kubeconfig).resolve():
            return running.operator or None
        return None


def laptop() -> Running | None:
    """The cluster that `fairlead up` runs on this machine."""
    return Home(default_directory()).running()


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Client]:
    """A client of the cluster; raises ConfigError if none is configured."""
    async with await Client.connect(target.kubeconfig_path(), target.context) as client:
        yield client


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def get_service(client: Client, name: str, namespace: str) -> Object:
    """Raises CliError naming the services that there are if this is not one."""
    try:
        return await client.get(INFERENCE_SERVICES, name, namespace)
    except NotFound:
        others = (await client.list(INFERENCE_SERVICES, namespace)).items
        there = ", ".join(sorted(other["metadata"]["name"] for other in others)) or "none"
        raise CliError(f"there is no InferenceService {name!r} in namespace {namespace}; there: {there}") from None


async def service_names(target: Target) -> list[str]:
    async with connected(target) as client:
        found = await client.list(INFERENCE_SERVICES, client.namespace)
        return sorted(service["metadata"]["name"] for service in found.items)
