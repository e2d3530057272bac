"""The node: runs every pod that is placed on it, and says what it has.

pods placed here ──► PodRunner (processes, or none for a node that only pretends) ──► pod status
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
from pathlib import Path

from fairlead.kube.client import Client
from fairlead.kube.errors import AlreadyExists, ApiError, NotFound
from fairlead.kube.informer import Informer
from fairlead.kube.objects import Object, timestamp
from fairlead.kube.resources import NODES, PODS
from fairlead.local.node import logs, objects
from fairlead.local.node.fake import PretendedPod
from fairlead.local.node.machine import Machine
from fairlead.local.node.pod import PodRunner
from fairlead.local.node.process import resident_memory

MEMORY_EVERY = 1.0
"""Seconds between looks at what containers hold in memory: the limit is kept by the node, not by the kernel, because cgroups are not the
user's to write on most laptops, and an address-space limit (RLIMIT_AS, RLIMIT_DATA) kills what numpy and threads merely reserve."""
LOGS_EVERY = 10
"""Looks at memory for one look at the sizes of logs."""

logger = logging.getLogger(__name__)

Runner = PodRunner | PretendedPod


class Node:
    """`fake`: pods are ready at once and have no processes, to measure the control plane alone."""

    def __init__(self, machine: Machine, pods: Informer, *, fake: bool = False) -> None:
        self._machine = machine
        self._pods = pods
        self._fake = fake
        self._runners: dict[str, Runner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        pods.on_change(self._changed)

    async def run(self) -> None:
        """Until cancelled; `stop()` first for an orderly end."""
        await self._register()
        await self._pods.synced.wait()
        while True:
            for look in range(LOGS_EVERY):
                await asyncio.sleep(MEMORY_EVERY)
                self._watch_containers(look == 0)

    async def stop(self, grace: float) -> None:
        """Ends every pod's processes within `grace` seconds, without preStop hooks. The Pod objects stay: the next life replaces them."""
        self._stopping = True
        for runner in self._runners.values():
            runner.end(grace, hooks=False)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace + 2)

    async def replace_pods_of_former_life(self, client: Client) -> int:
        """Deletes the Pods that an earlier life of this node left in the API: their processes died with it."""
        former = [pod for pod in (await client.list(PODS)).items if self._ours(pod)]
        await asyncio.gather(*(self._forget(pod) for pod in former))
        return len(former)

    def _ours(self, pod: Object) -> bool:
        return str(pod["spec"].get("nodeName", self._machine.name)) == self._machine.name

    def _changed(self, old: Object | None, new: Object | None) -> None:
        """A pod came, changed or went."""
        pod = new or old
        if pod is None or not self._ours(pod):
            return
        uid = objects.uid(pod)
        runner = self._runners.get(uid)
        if new is None:
            if runner is not None:  # deleted by force: its processes go at once
                runner.end(0)
        elif runner is not None:
            runner.update(new)
        elif not self._stopping:
            self._begin(new)

    def _begin(self, pod: Object) -> None:
        uid = objects.uid(pod)
        runner: Runner = PretendedPod(self._machine, pod) if self._fake else PodRunner(self._machine, pod)
        self._runners[uid] = runner
        task = asyncio.get_running_loop().create_task(self._run(runner, pod), name=f"pod {objects.name(pod)}")
        self._tasks[uid] = task
        task.add_done_callback(lambda _: self._tasks.pop(uid, None))

    async def _run(self, runner: Runner, pod: Object) -> None:
        try:
            if "nodeName" not in pod["spec"]:  # made by a user's own hand
                await self._machine.client.patch(
                    PODS, objects.name(pod), {"spec": {"nodeName": self._machine.name}}, objects.namespace(pod)
                )
            await runner.run()
        except NotFound:
            pass
        except Exception:
            logger.exception("pod %s/%s", objects.namespace(pod), objects.name(pod))
        finally:
            self._runners.pop(objects.uid(pod), None)
        if not self._stopping:
            await self._forget(pod)

    async def _forget(self, pod: Object) -> None:
        """The node's word that nothing of the pod is left."""
        for _ in range(10):
            with contextlib.suppress(NotFound):
                try:
                    await self._machine.client.delete(
                        PODS, objects.name(pod), objects.namespace(pod), uid=objects.uid(pod), grace_seconds=0
                    )
                except ApiError as error:
                    if isinstance(error, NotFound):
                        raise
                    logger.warning("%s; trying again", error)
                    await asyncio.sleep(0.5)
                    continue
            return

    def _watch_containers(self, look_at_logs: bool) -> None:
        for runner in list(self._runners.values()):
            for container in runner.containers:
                if container.pid is None:
                    continue
                if (
                    container.memory_limit is not None
                    and (resident := resident_memory(container.pid)) > container.memory_limit
                ):
                    container.kill_for_memory(resident)
                if look_at_logs:
                    logs.trim(container.log)

    async def _register(self) -> None:
        node = node_object(self._machine)
        status = node.pop("status")
        with contextlib.suppress(AlreadyExists):
            await self._machine.client.create(NODES, node)
        await self._machine.client.patch(NODES, self._machine.name, {"status": status}, subresource="status")


def node_object(machine: Machine) -> Object:
    """The Node: what this computer has."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    resources = {"cpu": str(os.cpu_count() or 1), "memory": f"{pages * page // 1024}Ki", "pods": "1000"}
    now = timestamp(machine.now())
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    healthy = ("MemoryPressure", "DiskPressure", "PIDPressure")
    conditions = [
        {
            "type": kind,
            "status": "False",
            "reason": "NodeIsWell",
            "message": "",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        for kind in healthy
    ]
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "NodeReady",
        "message": "pods run as processes of this machine",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": machine.name,
            "labels": {
                "kubernetes.io/hostname": machine.name,
                "kubernetes.io/os": platform.system().lower(),
                "kubernetes.io/arch": architecture,
            },
        },
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [*conditions, {**ready, "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": platform.node()},
            ],
            "nodeInfo": {
                "kubeletVersion": "fairlead",
                "containerRuntimeVersion": "process://1",
                "kernelVersion": platform.release(),
                "osImage": _os_name(),
                "operatingSystem": platform.system().lower(),
                "architecture": architecture,
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kubeProxyVersion": "",
            },
        },
    }


def _os_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/etc/os-release").read_text().splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip('"')
    return platform.platform()
