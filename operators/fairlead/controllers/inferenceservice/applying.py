"""The writes of a reconcile: what a component should be made of, applied; what it should no longer have, removed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.controllers.cluster import Cluster, is_controlled
from fairlead.controllers.inferenceservice.desired import Wanted
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec, Leftover
from fairlead.controllers.inferenceservice.multinode import (
    head_name,
    head_service,
    token,
    worker_deployment,
    worker_name,
)
from fairlead.controllers.inferenceservice.observation import Children
from fairlead.controllers.inferenceservice.plan import Plan
from fairlead.controllers.inferenceservice.readiness import carried
from fairlead.controllers.inferenceservice.revisions import expired
from fairlead.controllers.inferenceservice.scaling import hpa_target, replicas
from fairlead.controllers.inferenceservice.status import ComponentReport
from fairlead.controllers.inferenceservice.workload import Workload
from fairlead.controllers.inferenceservice.workloads import (
    address_service,
    controller_revision,
    deployment,
    horizontal_pod_autoscaler,
    service,
)
from fairlead.kube.errors import AlreadyExists
from fairlead.kube.objects import Key, Object, controller_of, key_of
from fairlead.kube.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    SECRETS,
    SERVICES,
    Resource,
)


@dataclass(frozen=True)
class Component:
    """One component between decision and report."""

    want: Wanted
    plan: Plan
    new: Mapping[str, Open]
    """Contents of revisions that are not stored yet."""
    workloads: Sequence[Workload]
    report: ComponentReport

    @property
    def address(self) -> str | None:
        """The name of the in-cluster address, if no workload has it."""
        base = self.want.intent.base
        return base if self.plan.home is not None and base not in self.plan.placed else None


async def apply_component(cluster: Cluster, owner: Object, component: Component, there: Children) -> None:
    """Revisions first, so that nothing runs that is not on record."""
    await _store_revisions(cluster, owner, component, there)
    for workload in component.workloads:
        await _apply_workload(cluster, workload, there.deployment(workload.name))
    # While the workload that had the name is still there, its Service is the gateways' way to it.
    if component.address is not None and there.deployment(component.address) is None:
        home = next(workload for workload in component.workloads if workload.name == component.plan.home)
        await _apply_own(cluster, SERVICES, address_service(component.address, home), owner)


async def remove_workload(cluster: Cluster, workload: Object, there: Children) -> None:
    """The Deployment, its workers' and its HPA; its Service goes when the Deployment is seen to be gone."""
    for autoscaler in there.autoscalers:
        if autoscaler["metadata"]["name"] == workload["metadata"]["name"]:
            await cluster.delete(HORIZONTAL_POD_AUTOSCALERS, autoscaler)
    for workers in there.workers:
        if workers["metadata"]["name"] == worker_name(workload["metadata"]["name"]):
            await cluster.delete(DEPLOYMENTS, workers)
    await cluster.delete(DEPLOYMENTS, workload)


async def remove_undesired(cluster: Cluster, components: Sequence[Component], there: Children) -> None:
    """Services without a workload, workers without a head, HPAs that are not asked for any more, and revisions beyond the history's limit."""
    workloads = [workload for component in components for workload in component.workloads]
    existing = {obj["metadata"]["name"] for obj in there.deployments}
    addressed = {component.address for component in components}
    addressed |= {head_name(workload) for workload in workloads if workload.group}
    scaled = {workload.name for workload in workloads if hpa_target(workload.isvc, workload.fields) is not None}
    placed = {workload.name for workload in workloads}
    for obj in there.services:
        if obj["metadata"]["name"] not in placed | existing | addressed:
            await cluster.delete(SERVICES, obj)
    for obj in there.autoscalers:
        if obj["metadata"]["name"] in placed - scaled:
            await cluster.delete(HORIZONTAL_POD_AUTOSCALERS, obj)
    joined = {worker_name(workload.name) for workload in workloads if workload.group and workload.group["size"] > 1}
    leaving = {worker_name(name) for name in existing - placed}
    for obj in there.workers:
        if obj["metadata"]["name"] not in joined | leaving:
            await cluster.delete(DEPLOYMENTS, obj)
    for component in components:
        forgotten = {revision.name for revision in expired(component.plan.revisions, component.plan.in_use)}
        for obj in there.of(component.want.kind).revisions:
            if obj["metadata"]["name"] in forgotten:
                await cluster.delete(CONTROLLER_REVISIONS, obj)


async def remove_all(cluster: Cluster, owner: Object) -> None:
    """All that runs or leads to it; not the revisions."""
    for resource in (HORIZONTAL_POD_AUTOSCALERS, DEPLOYMENTS, SERVICES):
        for obj in cluster.children(resource, owner):
            await cluster.delete(resource, obj)


async def _store_revisions(cluster: Cluster, owner: Object, component: Component, there: Children) -> None:
    stored = {obj["metadata"]["name"]: obj for obj in there.revisions}
    for revision in component.plan.revisions:
        known = stored.get(revision.name)
        if known is None or known["metadata"]["labels"][names.LABEL_WORKLOAD] != revision.workload:
            content = known["data"] if known is not None else component.new[revision.name]
            desired = controller_revision(owner, component.want.kind, revision, content)
            await _apply_own(cluster, CONTROLLER_REVISIONS, desired, owner)


async def _apply_workload(cluster: Cluster, workload: Workload, existing: Object | None) -> None:
    key = Key(workload.owner["metadata"]["namespace"], workload.name)
    if existing is not None:
        # Before the annotation with the new minimum is applied: else a crash between the two would lose the change.
        await _scale(cluster, workload, key, existing)
    if workload.group is not None:
        is_new = existing is None or carried(existing) != workload.revision.name
        await _apply_group(cluster, workload, workload.group, is_new=is_new)
    await _apply_own(cluster, DEPLOYMENTS, deployment(workload), workload.owner)
    if existing is None:
        await _scale(cluster, workload, key, None)
    await _apply_own(cluster, SERVICES, service(workload), workload.owner)
    target = hpa_target(workload.isvc, workload.fields)
    if target is not None:
        desired = horizontal_pod_autoscaler(workload, target)
        await _apply_own(cluster, HORIZONTAL_POD_AUTOSCALERS, desired, workload.owner)


async def _apply_group(cluster: Cluster, workload: Workload, stored: Open, *, is_new: bool) -> None:
    """What pods of several are told of is there before they are. Secrets are not read, so whether there is a token is found out by making one."""
    if is_new:
        with contextlib.suppress(AlreadyExists):
            await cluster.client.create(SECRETS, token(workload))
    await _apply_own(cluster, SERVICES, head_service(workload), workload.owner)
    if stored["size"] > 1:
        await _apply_own(cluster, DEPLOYMENTS, worker_deployment(workload, stored), workload.owner)


async def _scale(cluster: Cluster, workload: Workload, key: Key, existing: Object | None) -> None:
    now = None if existing is None else existing["spec"].get("replicas", 1)
    annotation = "" if existing is None else existing["metadata"].get("annotations", {}).get(names.MIN_REPLICAS, "")
    scaled_by = int(annotation) if annotation.isdecimal() else None
    wanted = replicas(workload.isvc, workload.fields, least=workload.least, now=now, scaled_by=scaled_by)
    if wanted is not None:
        await cluster.scale(DEPLOYMENTS, key, wanted)


async def _apply_own(cluster: Cluster, resource: Resource, desired: Object, owner: Object) -> None:
    """Applies, unless something of somebody else's has the name."""
    existing = cluster.get(resource, key_of(desired))
    if existing is not None and not is_controlled(existing, owner):
        holder = controller_of(existing) or {}
        if (holder.get("kind"), holder.get("name")) == (owner["kind"], owner["metadata"]["name"]):
            raise Leftover(f"{resource.kind} {existing['metadata']['name']} is still an earlier InferenceService's")
        raise InvalidPredictorSpec(
            f"{resource.kind} {desired['metadata']['name']} exists already and is not this InferenceService's: "
            "delete it, or rename the InferenceService"
        )
    await cluster.apply(resource, desired)
