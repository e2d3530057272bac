"""The node as one task: its informers, control loops and pods, run together and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

from fairlead.kube.client import Client
from fairlead.kube.events import Events
from fairlead.local.node.addresses import Addresses, check_loopback, network_of
from fairlead.local.node.machine import CLUSTER_MARK, Machine, inherited
from fairlead.local.node.node import Node
from fairlead.local.node.workloads import Workloads

COMPONENT = "fairlead-node"


@contextlib.asynccontextmanager
async def running_node(
    client: Client, directory: Path, *, mark: str, environment: dict[str, str], grace: float, fake: bool = False
) -> AsyncIterator[Workloads]:
    """Runs a node until the block is left; then every pod gets up to `grace` seconds to end.

    Raises NoAddress where the system cannot give pods addresses of their own.
    """
    network = network_of(directory)
    check_loopback(network)
    events = Events(client, COMPONENT)
    machine = Machine(
        client,
        directory,
        Addresses(network, random.randrange(network.num_addresses)),  # noqa: S311
        emit=events.emit,
        environment={**inherited(environment), CLUSTER_MARK: mark},
    )
    workloads = Workloads(client, events.emit)
    node = Node(machine, workloads.pods, fake=fake)
    await node.replace_pods_of_former_life(client)
    informers = [workloads.deployments, workloads.replicasets, workloads.pods, workloads.services, workloads.slices]
    parts = [
        *(informer.run() for informer in informers),
        *(controller.run() for controller in workloads.controllers),
        node.run(),
    ]
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        yield workloads
    finally:
        await node.stop(grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await events.close()
