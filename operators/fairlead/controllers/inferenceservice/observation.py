"""What there is of a service, read from the cluster into plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.controllers.cluster import Cluster
from fairlead.controllers.inferenceservice.failures import Copies, copies
from fairlead.controllers.inferenceservice.multinode import is_worker
from fairlead.controllers.inferenceservice.plan import Observed, Plan
from fairlead.controllers.inferenceservice.readiness import asleep, carried, readiness
from fairlead.controllers.inferenceservice.revisions import Markers, Readiness, Revision
from fairlead.kube.objects import Object, key_of
from fairlead.kube.resources import (
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    PODS,
    SERVICES,
)


@dataclass(frozen=True)
class Children:
    revisions: list[Object]
    deployments: list[Object]
    services: list[Object]
    autoscalers: list[Object]
    pods: list[Object]
    workers: list[Object]
    """Deployments of pods that join others: no workloads of their own."""

    def of(self, kind: str) -> Children:
        """Those of one component."""
        return Children(
            *(
                [obj for obj in objects if obj["metadata"]["labels"].get(names.LABEL_COMPONENT) == kind]
                for objects in (
                    self.revisions,
                    self.deployments,
                    self.services,
                    self.autoscalers,
                    self.pods,
                    self.workers,
                )
            )
        )

    def deployment(self, name: str) -> Object | None:
        return next((obj for obj in self.deployments if obj["metadata"]["name"] == name), None)


def children(cluster: Cluster, owner: Object) -> Children:
    deployments = cluster.children(DEPLOYMENTS, owner)
    return Children(
        cluster.children(CONTROLLER_REVISIONS, owner),
        [obj for obj in deployments if not is_worker(obj)],
        cluster.children(SERVICES, owner),
        cluster.children(HORIZONTAL_POD_AUTOSCALERS, owner),
        cluster.labelled(PODS, key_of(owner)),
        [obj for obj in deployments if is_worker(obj)],
    )


def observed(component: Children, markers: Markers, shares: Mapping[str, int]) -> Observed:
    """`markers`, `shares`: as the status has them."""
    revisions = tuple(sorted(map(_revision, component.revisions), key=lambda revision: revision.number))
    return Observed(
        revisions,
        markers,
        {obj["metadata"]["name"]: carried(obj) for obj in component.deployments},
        readiness(component.deployments, component.pods, revisions, markers.latest_rolledout),
        frozenset(carried(obj) for obj in component.deployments if asleep(obj)),
        shares,
    )


def contents(component: Children) -> dict[str, Open]:
    """What the stored revisions are made of, by name."""
    return {obj["metadata"]["name"]: obj["data"] for obj in component.revisions}


def copies_by_revision(component: Children, plan: Plan, states: Mapping[str, Readiness]) -> dict[str, Copies]:
    """What has become of the pods of each revision that is placed."""
    found = {}
    for workload, revision in plan.placed.items():
        labels = {names.LABEL_WORKLOAD: workload, names.LABEL_REVISION: revision.name}
        pods = [pod for pod in component.pods if labels.items() <= pod["metadata"]["labels"].items()]
        was_ready = states.get(revision.name) in (Readiness.READY, Readiness.LOST)
        found[revision.name] = copies(pods, component.deployment(workload), was_ready=was_ready)
    return found


def _revision(obj: Object) -> Revision:
    metadata = obj["metadata"]
    labels = metadata["labels"]
    return Revision(metadata["name"], obj["revision"], labels[names.LABEL_DIGEST], labels[names.LABEL_WORKLOAD])
