"""Which ReplicaSets and pods a Deployment should have next: Kubernetes' rolling update as one pure function.

`plan(deployment, replicasets, pods, now)` is called on every change of any of them and gives one step towards the desired state. A step never
takes the number of available pods below `replicas - maxUnavailable`, nor the number of pods above `replicas + maxSurge`.

The ReplicaSet controller is folded in: a step names pods to make and to delete, so that one change costs one reconcile.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fairlead.kube.objects import Object, parse_timestamp
from fairlead.local.node import objects
from fairlead.local.node.deployment_status import Replicas, deployment_status

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' alphabet for generated names: no vowels, so no words."""


@dataclass
class Plan:
    """What to do now. Names are of ReplicaSets and pods in the Deployment's namespace."""

    create_replicaset: Object | None = None
    scale: dict[str, int] = field(default_factory=dict)
    """ReplicaSet -> spec.replicas, where it differs."""
    annotate: dict[str, str] = field(default_factory=dict)
    """ReplicaSet -> revision number, where it differs."""
    delete_replicasets: list[str] = field(default_factory=list)
    create_pods: dict[str, int] = field(default_factory=dict)
    """ReplicaSet -> how many more pods."""
    delete_pods: list[str] = field(default_factory=list)
    replicaset_status: dict[str, Object] = field(default_factory=dict)
    revision: str | None = None
    """The Deployment's revision annotation, where it differs."""
    status: Object = field(default_factory=dict)
    requeue_after: float | None = None
    """Seconds until time alone can change the plan (minReadySeconds, progressDeadlineSeconds)."""


@dataclass
class Group:
    """A ReplicaSet, the replicas that it should have, and its pods."""

    replicaset: Object
    replicas: int
    pods: list[Object]
    available: int
    is_new: bool

    @property
    def name(self) -> str:
        return objects.name(self.replicaset)

    @property
    def active(self) -> list[Object]:
        return [pod for pod in self.pods if objects.is_active(pod)]

    @property
    def revision(self) -> int:
        return int((self.replicaset["metadata"].get("annotations") or {}).get(REVISION, 0))


def plan(deployment: Object, replicasets: Sequence[Object], pods: Sequence[Object], now: datetime) -> Plan:
    """One step. `replicasets` and `pods` are the Deployment's own (by controlling owner), in any order."""
    spec = deployment["spec"]
    desired = int(spec.get("replicas", 1))
    surge, unavailable = limits(deployment, desired)
    min_ready = float(spec.get("minReadySeconds", 0))
    template_hash = hash_template(spec["template"])
    result = Plan()

    groups = _groups(replicasets, pods, template_hash, min_ready, now)
    new = next((group for group in groups if group.is_new), None)
    if new is None and not spec.get("paused"):
        revision = max((group.revision for group in groups), default=0) + 1
        created = new_replicaset(deployment, template_hash, revision)
        new = Group(created, 0, [], 0, True)
        groups.append(new)
        result.create_replicaset = created
    old = [group for group in groups if not group.is_new]

    if spec.get("paused"):
        _scale_proportionally(groups, desired)
    elif (spec.get("strategy") or {}).get("type") == "Recreate":
        assert new is not None
        _recreate(new, old, desired)
    else:
        assert new is not None
        _roll(new, old, desired, surge, unavailable)

    _changes(result, groups)
    _bookkeeping(result, deployment, new, old)
    counts = Replicas(
        desired=desired,
        total=sum(len(group.active) for group in groups),
        updated=len(new.active) if new else 0,
        ready=sum(objects.is_ready(pod) for group in groups for pod in group.active),
        available=sum(group.available for group in groups),
        max_unavailable=unavailable,
        new_replicaset=new.name if new else None,
    )
    result.status, deadline = deployment_status(deployment, counts, now)
    waits = [
        seconds for pod in pods if (seconds := objects.available_in(pod, min_ready, now)) is not None and seconds > 0
    ]
    result.requeue_after = min([*waits, *([deadline] if deadline is not None else [])], default=None)
    return result


def limits(deployment: Object, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods: percentages round up and down; both 0 would never move, so one may be unavailable."""
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, desired
    rolling = strategy.get("rollingUpdate") or {}
    surge = math.ceil(_pods(rolling.get("maxSurge", "25%"), desired))
    unavailable = math.floor(_pods(rolling.get("maxUnavailable", "25%"), desired))
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, desired)


def _pods(value: int | str, desired: int) -> float:
    if isinstance(value, str) and value.endswith("%"):
        return int(value[:-1]) * desired / 100
    return int(value)


def hash_template(template: Object) -> str:
    """Ten letters that stand for a pod template; templates that differ only in the order of keys have the same."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":")).encode()
    number = int.from_bytes(hashlib.sha256(canonical).digest()[:8])
    return "".join(SAFE_ALPHABET[(number // 27**digit) % 27] for digit in range(10))


def new_replicaset(deployment: Object, template_hash: str, revision: int) -> Object:
    """The ReplicaSet of the Deployment's present template, with no pods yet."""
    spec = deployment["spec"]
    template = spec["template"]
    template_labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: template_hash}
    selector = spec.get("selector") or {}
    replicaset_spec = {
        "replicas": 0,
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: template_hash}},
        "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": template_labels}},
    }
    if spec.get("minReadySeconds"):
        replicaset_spec["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{objects.name(deployment)}-{template_hash}",
            "namespace": objects.namespace(deployment),
            "labels": template_labels,
            "annotations": {REVISION: str(revision)},
            "ownerReferences": [objects.owner_reference(deployment, "apps/v1", "Deployment")],
        },
        "spec": replicaset_spec,
    }


def _groups(
    replicasets: Iterable[Object], pods: Iterable[Object], template_hash: str, min_ready: float, now: datetime
) -> list[Group]:
    by_owner: dict[str | None, list[Object]] = {}
    for pod in pods:
        by_owner.setdefault(objects.controller_uid(pod), []).append(pod)
    groups = []
    for replicaset in replicasets:
        if objects.is_terminating(replicaset):
            continue
        own = by_owner.get(objects.uid(replicaset), [])
        available = sum(objects.available_in(pod, min_ready, now) == 0 for pod in own)
        is_new = objects.labels(replicaset).get(HASH_LABEL) == template_hash
        groups.append(Group(replicaset, int(replicaset["spec"].get("replicas", 0)), own, available, is_new))
    return sorted(groups, key=lambda group: (group.revision, group.name))


def _recreate(new: Group, old: list[Group], desired: int) -> None:
    """No pod of the new template while one of an old template lives, even one that is on its way out."""
    for group in old:
        group.replicas = 0
    if not any(_lives(pod) for group in old for pod in group.pods):
        new.replicas = desired


def _lives(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _roll(new: Group, old: list[Group], desired: int, surge: int, unavailable: int) -> None:
    total = new.replicas + sum(group.replicas for group in old)
    grown = min(desired, new.replicas + max(0, desired + surge - total))
    total += grown - new.replicas
    new.replicas = grown

    # Old pods that are not available go first, but only if the others would be enough: one that merely restarts is soon back,
    # while the new ones may never become ready.
    floor = desired - unavailable
    removable = total - floor - max(0, new.replicas - new.available)
    for group in old:
        unhealthy = max(0, min(removable, group.replicas - group.available))
        group.replicas -= unhealthy
        removable -= unhealthy

    spare = min(new.available, new.replicas) + sum(min(group.available, group.replicas) for group in old) - floor
    for group in old:
        healthy = max(0, min(spare, group.replicas))
        group.replicas -= healthy
        spare -= healthy


def _scale_proportionally(groups: list[Group], desired: int) -> None:
    """A paused Deployment keeps its mix of templates: the replicas are shared out by what each has now (largest remainders first)."""
    total = sum(group.replicas for group in groups)
    if total == desired or not groups:
        return
    if total == 0:
        groups[-1].replicas = desired
        return
    shares = [group.replicas * desired / total for group in groups]
    for group, share in zip(groups, shares, strict=True):
        group.replicas = math.floor(share)
    missing = desired - sum(group.replicas for group in groups)
    by_remainder = sorted(range(len(groups)), key=lambda i: (math.floor(shares[i]) - shares[i], -i))
    for index in by_remainder[:missing]:
        groups[index].replicas += 1


def _changes(result: Plan, groups: list[Group]) -> None:
    """From the replicas that each ReplicaSet should have to objects to write."""
    for group in groups:
        if group.replicas != int(group.replicaset["spec"].get("replicas", 0)):
            result.scale[group.name] = group.replicas
        missing = group.replicas - len(group.active)
        if missing > 0:
            result.create_pods[group.name] = missing
        elif missing < 0:
            result.delete_pods += [objects.name(pod) for pod in sorted(group.active, key=_cost_of_losing)[:-missing]]
        # Pods at their end are of no use to a ReplicaSet: what they have to tell is in their successors' restarts and in events.
        result.delete_pods += [
            objects.name(p) for p in group.pods if not objects.is_active(p) and not objects.is_terminating(p)
        ]
        status = _replicaset_status(group)
        if status != (group.replicaset.get("status") or {}):
            result.replicaset_status[group.name] = status


def _cost_of_losing(pod: Object) -> tuple[bool, bool, float]:
    """The cheapest first: not running, not ready, youngest."""
    running = (pod.get("status") or {}).get("phase") == "Running"
    created = parse_timestamp(pod["metadata"].get("creationTimestamp", "1970-01-01T00:00:00Z"))
    return running, objects.is_ready(pod), -(created.timestamp())


def _replicaset_status(group: Group) -> Object:
    status = {
        "replicas": len(group.active),
        "fullyLabeledReplicas": len(group.active),
        "readyReplicas": sum(objects.is_ready(pod) for pod in group.active),
        "availableReplicas": group.available,
        "observedGeneration": group.replicaset["metadata"].get("generation", 1),
    }
    return {key: value for key, value in status.items() if value or key in ("replicas", "observedGeneration")}


def _bookkeeping(result: Plan, deployment: Object, new: Group | None, old: list[Group]) -> None:
    """Revision numbers (`kubectl rollout history`) and the ReplicaSets that history no longer needs."""
    if new is not None:
        newest = max((group.revision for group in old), default=0)
        revision = new.revision if new.revision > newest else newest + 1
        if revision != new.revision:
            result.annotate[new.name] = str(revision)
        if (deployment["metadata"].get("annotations") or {}).get(REVISION) != str(revision):
            result.revision = str(revision)
    idle = [group for group in old if group.replicas == 0 and not group.pods]
    keep = int(deployment["spec"].get("revisionHistoryLimit", 10))
    result.delete_replicasets = [group.name for group in idle[: max(0, len(idle) - keep)]]
