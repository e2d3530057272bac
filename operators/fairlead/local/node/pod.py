"""One pod's life on the node: volumes and an address, init containers in their order, the containers together, and the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from fairlead.kube.client import Client
from fairlead.kube.errors import ApiError, NotFound
from fairlead.kube.objects import Object
from fairlead.kube.resources import CONFIG_MAPS, PODS, SECRETS, Resource
from fairlead.local.node import objects
from fairlead.local.node.container import DEFAULT_GRACE, ContainerRunner, Ending
from fairlead.local.node.environment import ContainerConfigError, Sources, environment
from fairlead.local.node.machine import Machine
from fairlead.local.node.pod_process import Command, NeedsCluster, command
from fairlead.local.node.pod_status import ContainerRecord, pod_status
from fairlead.local.node.restarts import RestartPolicy
from fairlead.local.node.volumes import Volume, mounts, volumes

RETRY = 1.0
"""Seconds until a missing ConfigMap or Secret is looked for again."""

logger = logging.getLogger(__name__)


class PodRunner:
    """Runs one pod: `run()` from its first process to its last. `update()` tells it of a newer object."""

    def __init__(self, machine: Machine, pod: Object) -> None:
        self._machine = machine
        self._pod = pod
        self._ip = machine.addresses.take()
        self._ending = Ending()
        self._started = machine.now()
        self._refused: tuple[str, str] | None = None
        self._written: Object = {}
        self._changed = asyncio.Event()
        spec = pod["spec"]
        self._init = [_record(container) for container in spec.get("initContainers") or ()]
        self._main = [_record(container) for container in spec["containers"]]
        self.containers: list[ContainerRunner] = []

    @property
    def uid(self) -> str:
        return objects.uid(self._pod)

    def update(self, pod: Object) -> None:
        """Deletion of the pod begins its end; all else in a pod's spec is immutable."""
        self._pod = pod
        if objects.is_terminating(pod) and not self._ending.ordered():
            grace = pod["metadata"].get("deletionGracePeriodSeconds")
            self.end(DEFAULT_GRACE if grace is None else float(grace))

    def end(self, grace: float, *, hooks: bool = True) -> None:
        self._ending.begin(grace, hooks=hooks)
        self._changed.set()

    async def run(self) -> None:
        """Returns when the pod was told to end, and nothing of it is left."""
        writer = asyncio.ensure_future(self._write_status())
        try:
            self.update(self._pod)
            await self._live()
            await self._ending.wait()
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            self._machine.addresses.give_back(self._ip)
            self._clear()

    async def _live(self) -> None:
        self._changed.set()
        policy: RestartPolicy = self._pod["spec"].get("restartPolicy", "Always")
        init_policy: RestartPolicy = "Never" if policy == "Never" else "OnFailure"
        for spec, record in zip(self._pod["spec"].get("initContainers") or (), self._init, strict=True):
            if spec.get("restartPolicy") == "Always":
                self._refuse(
                    NeedsCluster(
                        f"init container {record.name} is a sidecar (restartPolicy: Always), which needs a real cluster"
                    )
                )
                return
            await self._run(spec, record, init_policy)
            if record.exit_code != 0:
                return
        await asyncio.gather(
            *(
                self._run(spec, record, policy)
                for spec, record in zip(self._pod["spec"]["containers"], self._main, strict=True)
            )
        )

    async def _run(self, spec: Object, record: ContainerRecord, policy: RestartPolicy) -> None:
        runner = ContainerRunner(self._machine, self._pod, spec, record, self._ip, self._ending, self._changed.set)
        self.containers.append(runner)
        await runner.run(lambda: self._prepare(spec, record), policy)

    async def _prepare(self, spec: Object, record: ContainerRecord) -> Command | None:
        """The container's command, once all that it refers to is there; None if the pod is to end before."""
        while not self._ending.ordered():
            try:
                return await self._command(spec)
            except NeedsCluster as error:
                record.state = {"waiting": {"reason": "NeedsCluster", "message": str(error)}}
                self._refuse(error)
                await self._ending.wait()
            except (ContainerConfigError, ApiError, OSError) as error:
                reason = (
                    "CreateContainerConfigError" if isinstance(error, ContainerConfigError) else "CreateContainerError"
                )
                waiting = {"waiting": {"reason": reason, "message": str(error)}}
                if record.state != waiting:
                    record.state = waiting
                    self._changed.set()
                    self._machine.emit(self._pod, "Warning", "Failed", str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), RETRY)
        return None

    async def _command(self, spec: Object) -> Command:
        machine, directory = self._machine, self._machine.pod_directory(self.uid)
        sources = await _sources(machine.client, self._pod, spec)
        planned = volumes(self._pod, directory, machine.claims, sources)
        mounted = mounts(spec, planned, directory)
        values = environment(self._pod, spec, sources, self._ip, machine.name)
        built = command(spec, values, mounted, directory, machine.python)
        _make(planned.values(), mounted)
        return built

    def _refuse(self, error: NeedsCluster) -> None:
        self._refused = ("NeedsCluster", str(error))
        self._machine.emit(self._pod, "Warning", "NeedsCluster", str(error))
        self._changed.set()

    async def _write_status(self) -> None:
        """Whenever something changed, the whole status; changes that come while one is being written are written together."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            seen = {**self._pod, "status": self._written}
            status = pod_status(
                seen,
                self._init,
                self._main,
                ip=self._ip,
                started=self._started,
                now=self._machine.now(),
                refused=self._refused,
            )
            if status == self._written:
                continue
            try:
                namespace = objects.namespace(self._pod)
                await self._machine.client.patch(
                    PODS, objects.name(self._pod), {"status": status}, namespace, subresource="status"
                )
                self._written = status
            except NotFound:
                return
            except ApiError as error:
                logger.warning("%s; trying again", error)
                await asyncio.sleep(RETRY / 4)
                self._changed.set()

    def _clear(self) -> None:
        shutil.rmtree(self._machine.pod_directory(self.uid), ignore_errors=True)
        log_directory = self._machine.directory / "logs" / objects.namespace(self._pod) / objects.name(self._pod)
        shutil.rmtree(log_directory, ignore_errors=True)


def _record(container: Object) -> ContainerRecord:
    return ContainerRecord(container["name"], str(container.get("image", "")))


def _make(planned: Iterable[Volume], mounted: Mapping[str, Path]) -> None:
    """The directories of volumes and mounts, and the files of ConfigMaps and Secrets in them."""
    for volume in planned:
        for relative, content in volume.files.items():
            target = volume.path / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(volume.mode)
        if not volume.path.exists():
            volume.path.mkdir(parents=True, exist_ok=True)  # pods that share it may start at once
    for path in mounted.values():
        if not path.exists():
            path.mkdir(parents=True, exist_ok=True)


async def _sources(client: Client, pod: Object, container: Object) -> Sources:
    """The ConfigMaps and Secrets that the container and the pod's volumes refer to, as they are now."""
    maps: set[str] = set()
    secrets: set[str] = set()
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        maps |= {source["configMapKeyRef"]["name"]} if "configMapKeyRef" in source else set()
        secrets |= {source["secretKeyRef"]["name"]} if "secretKeyRef" in source else set()
    for source in container.get("envFrom") or ():
        maps |= {source["configMapRef"]["name"]} if "configMapRef" in source else set()
        secrets |= {source["secretRef"]["name"]} if "secretRef" in source else set()
    for volume in pod["spec"].get("volumes") or ():
        for source in [volume, *((volume.get("projected") or {}).get("sources") or ())]:
            maps |= {source["configMap"]["name"]} if "configMap" in source else set()
            if "secret" in source:
                secrets.add(source["secret"].get("secretName") or source["secret"]["name"])
    namespace = objects.namespace(pod)
    return Sources(
        await _fetch(client, CONFIG_MAPS, maps, namespace),
        await _fetch(client, SECRETS, secrets, namespace),
    )


async def _fetch(client: Client, resource: Resource, names: set[str], namespace: str) -> dict[str, Object]:
    found = {}
    for name in sorted(names):
        with contextlib.suppress(NotFound):
            found[name] = await client.get(resource, name, namespace)
    return found
