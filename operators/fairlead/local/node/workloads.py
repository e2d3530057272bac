"""The control loops of the node: Deployments to ReplicaSets and Pods, Services to EndpointSlices.

Each reconcile reads everything afresh, asks the pure core, and writes the difference.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from fairlead.kube.client import Client
from fairlead.kube.controller import Controller
from fairlead.kube.errors import AlreadyExists, Conflict, NotFound
from fairlead.kube.informer import Informer
from fairlead.kube.objects import Key, Object, utcnow
from fairlead.kube.resources import DEPLOYMENTS, ENDPOINT_SLICES, PODS, REPLICA_SETS, SERVICES, Resource
from fairlead.local.node import objects
from fairlead.local.node.endpoints import SERVICE_NAME, endpoint_slice, slice_name
from fairlead.local.node.latest import Latest, by_controller
from fairlead.local.node.machine import NODE_NAME, Emit, silent
from fairlead.local.node.rolling_update import REVISION, SAFE_ALPHABET, Plan, plan

_BY_LABEL = "label"
"""Pods by each of their labels, Services by one that they select: with a thousand of both, comparing all would be most of the work."""


class Workloads:
    """Informers and controllers of one node. `informers` and `controllers` are to be run by a Manager."""

    def __init__(self, client: Client, emit: Emit = silent, node: str = NODE_NAME) -> None:
        self._client = client
        self._emit = emit
        self._node = node
        self.deployments = Informer(client, DEPLOYMENTS)
        self.replicasets = Informer(client, REPLICA_SETS, indexers={"controller": by_controller})
        self.pods = Informer(client, PODS, indexers={"controller": by_controller, _BY_LABEL: _labels})
        self.services = Informer(client, SERVICES, indexers={_BY_LABEL: _one_selected_label})
        self.slices = Informer(client, ENDPOINT_SLICES)
        self._latest_replicasets = Latest(self.replicasets)
        self._latest_pods = Latest(self.pods)

        deployments = Controller("deployment", self.reconcile_deployment, workers=8)
        deployments.watch(self.deployments, lambda obj: [_key(obj)])
        deployments.watch(self.replicasets, self._owning_deployment)
        deployments.watch(self.pods, self._deployment_of_pod)
        endpoints = Controller("endpointslice", self.reconcile_service, workers=8)
        endpoints.watch(self.services, lambda obj: [_key(obj)])
        endpoints.watch(self.pods, self._services_of_pod)
        endpoints.watch(self.slices, _service_of_slice)
        self.controllers = [deployments, endpoints]

    async def reconcile_deployment(self, key: Key) -> float | None:
        deployment = self.deployments.store.get(key.namespace, key.name)
        if deployment is None or objects.is_terminating(deployment):
            return None
        replicasets = self._latest_replicasets.owned_by(objects.uid(deployment))
        pods = [pod for replicaset in replicasets for pod in self._latest_pods.owned_by(objects.uid(replicaset))]
        step = plan(deployment, replicasets, pods, utcnow())
        by_name = {objects.name(replicaset): replicaset for replicaset in replicasets}
        await self._write_replicasets(deployment, step, by_name)
        await self._write_pods(step, by_name, {objects.name(pod): pod for pod in pods})
        await self._write_status(deployment, step)
        return step.requeue_after

    async def _write_replicasets(self, deployment: Object, step: Plan, by_name: dict[str, Object]) -> None:
        namespace = objects.namespace(deployment)
        if step.create_replicaset is not None:
            new = step.create_replicaset
            new["spec"]["replicas"] = step.scale.pop(objects.name(new), 0)
            step.replicaset_status.pop(objects.name(new), None)
            by_name[objects.name(new)] = await self._create_replicaset(new)
            self._emit(
                deployment,
                "Normal",
                "ScalingReplicaSet",
                f"Scaled up replica set {objects.name(new)} to {new['spec']['replicas']}",
            )
        for name in sorted(step.scale.keys() | step.annotate.keys()):
            patch: Object = {}
            if name in step.scale:
                patch["spec"] = {"replicas": step.scale[name]}
            if name in step.annotate:
                patch["metadata"] = {"annotations": {REVISION: step.annotate[name]}}
            before = by_name[name]["spec"].get("replicas", 0)
            by_name[name] = await self._client.patch(REPLICA_SETS, name, patch, namespace)
            self._latest_replicasets.wrote(by_name[name])
            if name in step.scale:
                way = "up" if step.scale[name] > before else "down"
                message = f"Scaled {way} replica set {name} to {step.scale[name]} from {before}"
                self._emit(deployment, "Normal", "ScalingReplicaSet", message)
        for name, status in step.replicaset_status.items():
            written = await self._client.patch(
                REPLICA_SETS, name, {"status": _whole(status)}, namespace, subresource="status"
            )
            self._latest_replicasets.wrote(written)
        for name in step.delete_replicasets:
            self._latest_replicasets.deleted(by_name[name])
            await self._gone(REPLICA_SETS, by_name[name])

    async def _create_replicaset(self, new: Object) -> Object:
        """Ours of an earlier attempt, if the name is taken: a name stands for one template of one Deployment."""
        try:
            created = await self._client.create(REPLICA_SETS, new)
        except AlreadyExists:
            created = await self._client.get(REPLICA_SETS, objects.name(new), objects.namespace(new))
        self._latest_replicasets.wrote(created)
        return created

    async def _write_pods(self, step: Plan, by_name: dict[str, Object], pods: dict[str, Object]) -> None:
        for name in step.delete_pods:
            self._latest_pods.deleted(pods[name])
            await self._gone(PODS, pods[name])
        for name, count in step.create_pods.items():
            for _ in range(count):
                self._latest_pods.wrote(await self._create_pod(by_name[name]))

    async def _create_pod(self, replicaset: Object) -> Object:
        while True:
            try:
                return await self._client.create(PODS, new_pod(replicaset, self._node))
            except AlreadyExists:  # one in 14 million
                continue

    async def _write_status(self, deployment: Object, step: Plan) -> None:
        namespace, name = objects.namespace(deployment), objects.name(deployment)
        if step.revision is not None:
            await self._client.patch(
                DEPLOYMENTS, name, {"metadata": {"annotations": {REVISION: step.revision}}}, namespace
            )
        if step.status != (deployment.get("status") or {}):
            await self._client.patch(
                DEPLOYMENTS, name, {"status": _whole(step.status)}, namespace, subresource="status"
            )

    async def _gone(self, resource: Resource, obj: Object) -> None:
        """Deletes that very object; one that is gone already is no error."""
        try:
            await self._client.delete(resource, objects.name(obj), objects.namespace(obj), uid=objects.uid(obj))
        except (NotFound, Conflict):
            return

    async def reconcile_service(self, key: Key) -> float | None:
        service = self.services.store.get(key.namespace, key.name)
        current = self.slices.store.get(key.namespace, slice_name(key.name))
        if service is None or objects.is_terminating(service):
            return None  # the slice goes with its owner
        desired = endpoint_slice(service, self._pods_of(service), self._node)
        if desired is None:
            return None
        if current is None:
            await self._create_slice(desired)
        elif any(current.get(part) != desired[part] for part in ("endpoints", "ports")) or (
            objects.labels(current) != objects.labels(desired)
        ):
            # Without a resourceVersion: nobody else writes it, and the newest pods are what counts.
            await self._client.replace(ENDPOINT_SLICES, desired)
        return None

    async def _create_slice(self, desired: Object) -> None:
        try:
            await self._client.create(ENDPOINT_SLICES, desired)
        except AlreadyExists:  # the informer has not seen our own yet
            await self._client.replace(ENDPOINT_SLICES, desired)

    def _owning_deployment(self, replicaset: Object) -> Iterable[Key]:
        for owner in replicaset["metadata"].get("ownerReferences") or ():
            if owner.get("controller") and owner["kind"] == "Deployment":
                yield Key(objects.namespace(replicaset), owner["name"])

    def _deployment_of_pod(self, pod: Object) -> Iterable[Key]:
        for owner in pod["metadata"].get("ownerReferences") or ():
            if owner.get("controller") and owner["kind"] == "ReplicaSet":
                # Its name is the Deployment's and the template's hash.
                yield Key(objects.namespace(pod), owner["name"].rpartition("-")[0])

    def _services_of_pod(self, pod: Object) -> Iterable[Key]:
        for label in _labels(pod):
            for service in self.services.store.by_index(_BY_LABEL, label):
                if objects.selects(service["spec"].get("selector") or {}, objects.labels(pod)):
                    yield _key(service)

    def _pods_of(self, service: Object) -> Iterable[Object]:
        """The pods that its selector may choose."""
        return (pod for label in _one_selected_label(service) for pod in self.pods.store.by_index(_BY_LABEL, label))


def new_pod(replicaset: Object, node: str) -> Object:
    """A pod of the ReplicaSet, already placed: there is one node."""
    template = replicaset["spec"]["template"]
    metadata = template.get("metadata") or {}
    suffix = "".join(secrets.choice(SAFE_ALPHABET) for _ in range(5))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{objects.name(replicaset)}-{suffix}",
            "namespace": objects.namespace(replicaset),
            "labels": metadata.get("labels") or {},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [objects.owner_reference(replicaset, "apps/v1", "ReplicaSet")],
        },
        "spec": {**template["spec"], "nodeName": node},
    }


def _labels(pod: Object) -> list[str]:
    return [f"{objects.namespace(pod)}/{key}={value}" for key, value in objects.labels(pod).items()]


def _one_selected_label(service: Object) -> list[str]:
    selector = service["spec"].get("selector") or {}
    return [f"{objects.namespace(service)}/{key}={selector[key]}" for key in sorted(selector)[:1]]


def _key(obj: Object) -> Key:
    return Key(objects.namespace(obj), objects.name(obj))


def _service_of_slice(obj: Object) -> Iterable[Key]:
    name = objects.labels(obj).get(SERVICE_NAME)
    return [Key(objects.namespace(obj), name)] if name else []


COUNTS = (
    "replicas",
    "fullyLabeledReplicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
)


def _whole(status: Object) -> Object:
    """The status as a merge patch: counts that it leaves out, because they are 0, are taken away."""
    return {**dict.fromkeys(COUNTS), **status}
