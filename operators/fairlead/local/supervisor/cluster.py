"""The laptop cluster: its processes started together, each as soon as what it needs is there, and ended in their order.

API server ──► CRDs, runtimes, ConfigMap ──► the user's files
    ├──► node (in this process)
    ├──► operator          } import while the API server starts
    └──► gateway agent     }
HAProxy (at once: its configuration needs nobody)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fairlead.kube.objects import Object
from fairlead.local.node.machine import CLUSTER_MARK
from fairlead.local.node.process import sweep
from fairlead.local.supervisor import manifests
from fairlead.local.supervisor.child import Child
from fairlead.local.supervisor.errors import UpError
from fairlead.local.supervisor.home import Running, free_port
from fairlead.local.supervisor.options import Options

if TYPE_CHECKING:
    from fairlead.kube.client import Client
    from fairlead.local.node.workloads import Workloads


API_SERVER_PATIENCE = 20.0
"""Seconds that the API server may take to start."""
LOOK_EVERY = 0.005
POD_GRACE = 2.0
"""Seconds that pods get to finish their requests when the cluster ends, whatever their manifests grant."""
CHILD_GRACE = 2.0
MODEL_CACHE_LIMIT = "20Gi"
"""Those unused longest go first."""


@dataclass
class LaptopCluster:
    """`async with` starts it; inside the block it runs, and `failed` tells if a part of it cannot."""

    options: Options
    mark: str
    client: Client = field(init=False)
    workloads: Workloads = field(init=False)
    applied: list[Object] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _agent_port: int = field(default_factory=free_port)
    _operator_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.options.port}"

    @property
    def agent(self) -> str:
        return f"127.0.0.1:{self._agent_port}"

    async def start(self) -> None:
        """Raises UpError, or one of the parts' own errors, when the cluster cannot start; call `stop` then, too."""
        home = self.options.home
        documents = manifests.read(self.options.files)
        runtimes = manifests.with_aliases(manifests.read([manifests.shipped("runtimes")]))
        home.api_ready.unlink(missing_ok=True)
        if self.options.ephemeral:
            home.forget()
        self._start_children()
        # Half of this process's own start: it is done while the children start.
        from fairlead.kube.client import Client
        from fairlead.local.node.service import running_node

        await self._api_server()
        self.client = await Client.connect(str(home.kubeconfig))
        self._stack.push_async_callback(self.client.close)
        self.workloads = await self._stack.enter_async_context(
            running_node(
                self.client,
                home.directory,
                mark=self.mark,
                environment=self._environment(),
                grace=POD_GRACE,
                fake=self.options.fake,
            )
        )
        await manifests.apply(self.client, [*runtimes, manifests.inferenceservice_config()])
        self.applied = await manifests.apply(self.client, documents)
        operator = f"127.0.0.1:{self._operator_port}"
        home.remember_running(Running(os.getpid(), self.url, str(home.kubeconfig), self.agent, operator))

    async def failed(self) -> None:
        """Returns never, but raises what ended a part that must not end."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Everything together, but for the API server, to which the others may still have something to say."""
        api_server = [child for child in self.children if child.name == "API server"]
        others = [child for child in self.children if child.name != "API server"]
        await asyncio.gather(self._stack.aclose(), *(child.stop(CHILD_GRACE) for child in others))
        await asyncio.gather(*(child.stop(CHILD_GRACE) for child in api_server))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.kill()
        if self.options.ephemeral:
            self.options.home.forget()

    def kill(self) -> None:
        """Everything, now."""
        sweep(f"{CLUSTER_MARK}={self.mark}")

    def _start_children(self) -> None:
        from fairlead.gateway import haproxy
        from fairlead.gateway.settings import Settings

        home = self.options.home
        bind = f"127.0.0.1:{self.options.port}"
        settings = Settings(directory=home.gateway, bind=(bind,))
        haproxy.ensure_files(settings)
        gateway = haproxy.command(settings)
        python = [sys.executable, "-m"]
        late = [*python, "fairlead.local.supervisor.launch"]
        api_server = [
            *python,
            "fairlead.local.apiserver",
            "--directory",
            str(home.directory),
            "--crds",
            str(manifests.shipped("crds")),
        ]
        kubeconfig = ["--kubeconfig", str(home.kubeconfig)]
        operator = [
            *late,
            "fairlead.controllers",
            str(home.api_ready),
            *kubeconfig,
            "--listen",
            f"127.0.0.1:{self._operator_port}",
        ]
        operator += ["--gateway-agents", self.agent, "--ingress-port", str(self.options.port)]
        operator += ["--gateway-address", bind, "--no-leader-election"]
        operator += ["--model-cache", f"hostPath:{home.models}", "--model-cache-limit", MODEL_CACHE_LIMIT]
        agent = [*late, "fairlead.gateway", str(home.api_ready), *kubeconfig, "--directory", str(home.gateway)]
        agent += ["--listen", self.agent, "--bind", bind]
        self._add("API server", api_server)
        self._add("gateway agent", agent)
        self._add("operator", operator)
        self._add("gateway", gateway)

    def _add(self, name: str, argv: list[str]) -> None:
        child = Child(
            name,
            argv,
            environment=self._environment(),
            log=self.options.home.process_log(name.lower().replace(" ", "-")),
        )
        self.children.append(child)
        self._tasks.append(asyncio.create_task(child.run(), name=name))

    def _environment(self) -> dict[str, str]:
        return {**os.environ, CLUSTER_MARK: self.mark}

    async def _api_server(self) -> None:
        """Waits until it serves; raises what keeps it from that."""
        deadline = time.monotonic() + API_SERVER_PATIENCE
        while not self.options.home.api_ready.exists():
            for task in self._tasks:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                raise UpError(
                    f"the API server did not start within {API_SERVER_PATIENCE:g} s; see {self.children[0].log}"
                )
            await asyncio.sleep(LOOK_EVERY)
