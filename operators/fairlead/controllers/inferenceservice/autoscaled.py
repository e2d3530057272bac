"""What the controller tells the autoscaler of its workloads, and what it hears from it; pure but for reading the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import lru_cache

from fairlead.api.base import Open
from fairlead.api.inferenceservice import InferenceService
from fairlead.autoscaling import Policy
from fairlead.controllers.autoscaler.board import Board, Scaled
from fairlead.controllers.autoscaler.scraping import Scrape
from fairlead.controllers.inferenceservice.metrics import pod_metric
from fairlead.controllers.inferenceservice.observation import Children
from fairlead.controllers.inferenceservice.readiness import asleep as is_asleep
from fairlead.controllers.inferenceservice.readiness import proven
from fairlead.controllers.inferenceservice.revisions import Readiness
from fairlead.controllers.inferenceservice.scaling import policy
from fairlead.controllers.inferenceservice.workload import Workload
from fairlead.controllers.inferenceservice.workloads import service_ports
from fairlead.kube.objects import Key, Object

PORTS = ("prometheus.kserve.io/port", "prometheus.io/port")
PATHS = ("prometheus.kserve.io/path", "prometheus.io/path")


def with_proof(workload: Workload, there: Children, readiness: Mapping[str, Readiness]) -> Workload:
    """Ready once is proof for good: what the Deployment says already, or what its pods have just shown."""
    deployment = there.deployment(workload.name)
    if readiness.get(workload.revision.name) is Readiness.READY:
        return replace(workload, proven=workload.revision.name)
    return replace(workload, proven=proven(deployment) if deployment is not None else "")


def asleep(there: Children) -> frozenset[str]:
    """The workloads without a pod that a request brings back."""
    return frozenset(obj["metadata"]["name"] for obj in there.deployments if is_asleep(obj))


def autoscaling(
    board: Board, namespace: str, workloads: Sequence[Workload], there: Children, before: Open
) -> list[Open]:
    """What was decided of each, and how many pods are ready; what the status says already, where nothing has been decided since this operator started."""
    told = {item.get("revisionName"): item for item in before.get("autoscaling", ())}
    found = []
    for workload in workloads:
        outcome = board.outcome(Key(namespace, workload.name))
        decided = outcome.status() if outcome is not None else told.get(workload.revision.name)
        if decided is not None:
            deployment = there.deployment(workload.name) or {}
            ready = deployment.get("status", {}).get("readyReplicas", 0)
            found.append({"revisionName": workload.revision.name, **decided, "ready": ready})
    return found


def starts(board: Board, service: Key, workloads: Sequence[Workload], before: Open) -> list[Open]:
    """What the last start of each revision was made of; what the status says already, where none has been measured since this operator started."""
    told = {item.get("revisionName"): item for item in before.get("starts", ())}
    measured = board.starts(service)
    revisions = [workload.revision.name for workload in workloads]
    found = {name: {"revisionName": name, **measured[name].status()} for name in revisions if name in measured}
    return [entry for name in revisions if (entry := found.get(name, told.get(name))) is not None]


def scaled(
    isvc: InferenceService, owner: Object, workloads: Sequence[Workload], warming: Set[str] = frozenset()
) -> dict[str, Scaled]:
    """`warming`: revisions that are to have a pod before they get traffic."""
    found = {}
    for workload in workloads:
        ready = workload.proven == workload.revision.name and workload.revision.name not in warming
        by = policy(isvc, workload.fields, least=workload.least, proven=ready)
        if by is not None:
            found[workload.name] = Scaled(_named(owner), workload.revision.name, _shared(by), _scrape(workload))
    return found


@lru_cache(maxsize=256)
def _shared(policy: Policy) -> Policy:
    """The first that was equal: most services have the same few."""
    return policy


def _named(owner: Object) -> Object:
    """What Events and the work queue need of it: this is kept in memory."""
    metadata = {key: owner["metadata"][key] for key in ("name", "namespace", "uid") if key in owner["metadata"]}
    return {**{key: owner[key] for key in ("apiVersion", "kind") if key in owner}, "metadata": metadata}


def _scrape(workload: Workload) -> Scrape | None:
    """Where the pods export the metric that the workload scales by: as they are annotated for Prometheus, else `/metrics` at their first port."""
    metric = pod_metric(workload.fields)
    if metric is None:
        return None
    annotations = workload.template["metadata"].get("annotations", {})
    port, path = (next((annotations[key] for key in keys if key in annotations), "") for keys in (PORTS, PATHS))
    first = service_ports(workload.template["spec"])[0]["targetPort"]
    return Scrape(
        metric.name, int(port) if port.isdecimal() else first, f"/{(path or 'metrics').lstrip('/')}", metric.rate
    )
