"""Which revisions are ready: what a Deployment carries, by its status or, as soon as all of them are ready, by its pods; what it is leaving, by its pods.

A Deployment's status follows its pods' by way of the ReplicaSet's: 0.05 s on an idle cluster, 0.3 s on a busy one.
A revision that may be at zero and has been ready before is ready whatever its pods do: a request wakes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.api import names
from fairlead.controllers.inferenceservice.multinode import is_worker
from fairlead.controllers.inferenceservice.revisions import Readiness, Revision
from fairlead.kube.conditions import is_true
from fairlead.kube.objects import Object


def carried(deployment: Object) -> str:
    """The name of the revision that the Deployment was last told to carry."""
    return str(deployment["metadata"].get("labels", {}).get(names.LABEL_REVISION, ""))


def readiness(
    deployments: Iterable[Object], pods: Iterable[Object], revisions: Iterable[Revision], rolledout: str
) -> Mapping[str, Readiness]:
    """Of all revisions that pods may be running.

    A Deployment on its way to the next revision, or back from it, still has pods of another: that one is ready as long as any of them is.
    """
    pods = list(pods)
    found: dict[str, Readiness] = {}
    by_workload = {deployment["metadata"]["name"]: deployment for deployment in deployments}
    for deployment in by_workload.values():
        found[carried(deployment)] = _of(deployment, pods)
    for pod in pods:
        labels = pod["metadata"]["labels"]
        if labels.get(names.LABEL_WORKLOAD) in by_workload and is_ready(pod):
            found.setdefault(labels.get(names.LABEL_REVISION, ""), Readiness.READY)
    stable = next((revision for revision in revisions if revision.name == rolledout), None)
    if stable is not None and found.get(rolledout) is not Readiness.READY:
        home = by_workload.get(stable.workload)
        serves = home is not None and _available(home) > 0
        found[rolledout] = Readiness.READY if serves else Readiness.LOST
    return found


def complete(deployment: Object) -> bool:
    """Whether the rollout of what it carries has been completed, now or before: `kubectl rollout status` would say so."""
    spec, status = deployment["spec"], deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return False
    wanted = spec.get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    if updated != status.get("replicas", 0):
        return False
    if updated == wanted and _available(deployment) >= wanted:
        return True
    # Kubernetes keeps this reason when pods are lost or added later.
    return updated > 0 and any(
        condition["type"] == "Progressing" and condition.get("reason") == "NewReplicaSetAvailable"
        for condition in status.get("conditions", ())
    )


def proven(deployment: Object) -> str:
    """The revision of which the Deployment says that its pods have been ready."""
    return str(deployment["metadata"].get("annotations", {}).get(names.PROVEN, ""))


def wakes(deployment: Object) -> bool:
    """Whether requests for what it carries bring it back from zero."""
    return bool(proven(deployment)) and proven(deployment) == carried(deployment)


def asleep(deployment: Object) -> bool:
    """Whether it has no pod that could answer, and a request brings one."""
    return wakes(deployment) and not _available(deployment)


def _of(deployment: Object, pods: Iterable[Object]) -> Readiness:
    if wakes(deployment) or _all_ready(deployment, pods):
        return Readiness.READY
    if not complete(deployment):
        return Readiness.PENDING
    if deployment["metadata"].get("annotations", {}).get(names.MIN_REPLICAS) == "0" and _available(deployment) == 0:
        return Readiness.PENDING  # at zero before it has ever been ready
    asleep = deployment["spec"].get("replicas", 1) == 0
    return Readiness.READY if asleep or _available(deployment) > 0 else Readiness.LOST


def _all_ready(deployment: Object, pods: Iterable[Object]) -> bool:
    """Whether there are as many ready pods as the Deployment should have, and none of another revision."""
    name, revision = deployment["metadata"]["name"], carried(deployment)
    ready = 0
    for pod in pods:
        labels = pod["metadata"]["labels"]
        if labels.get(names.LABEL_WORKLOAD) != name or is_worker(pod) or "deletionTimestamp" in pod["metadata"]:
            continue
        if labels.get(names.LABEL_REVISION) != revision:
            return False
        ready += is_ready(pod)
    wanted: int = deployment["spec"].get("replicas", 1)
    return ready >= max(1, wanted)


def is_ready(pod: Object) -> bool:
    """Whether it takes requests, and is not about to go."""
    return (
        is_true(pod.get("status", {}).get("conditions") or (), "Ready") and "deletionTimestamp" not in pod["metadata"]
    )


def _available(deployment: Object) -> int:
    return int(deployment.get("status", {}).get("availableReplicas", 0) or 0)
