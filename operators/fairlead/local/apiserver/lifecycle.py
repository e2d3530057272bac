"""What decides over an object's life: finalizers, grace, what counts as a change of its content. Pure functions of objects."""

from __future__ import annotations

from .admission import Object
from .kinds import NAMESPACES, PODS, Kind

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
CRD_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def pod_grace(pod: Object, asked: int | None) -> int:
    """Seconds a pod is given to end: none if nothing runs."""
    spec, phase = pod["spec"], pod.get("status", {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    return int(spec.get("terminationGracePeriodSeconds", 30) if asked is None else asked)


def waits_for_node(kind: Kind, obj: Object) -> bool:
    """Whether a deleted object stays until the node has ended what runs, or until its namespace is empty."""
    if kind.storage == NAMESPACES:
        return True
    return kind.storage == PODS and bool(obj["metadata"].get("deletionGracePeriodSeconds"))


def content(obj: Object, kind: Kind) -> Object:
    """What `metadata.generation` counts the changes of."""
    if kind.custom is None:
        return {"spec": obj.get("spec"), "endpoints": obj.get("endpoints"), "ports": obj.get("ports")}
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def only(obj: Object, name: str) -> Object:
    return {name: obj[name]} if name in obj else {}


def drop_nulls(obj: Object) -> None:
    """Null says nothing in what is applied."""
    for key in list(obj):
        if obj[key] is None:
            del obj[key]
        elif isinstance(obj[key], dict):
            drop_nulls(obj[key])


def established(crd: Object, now: str) -> Object:
    """The status of a CRD that is served from now on."""
    conditions = [
        {"type": "NamesAccepted", "status": "True", "lastTransitionTime": now, "reason": "NoConflicts", "message": "no conflicts found"},
        {"type": "Established", "status": "True", "lastTransitionTime": now, "reason": "InitialNamesAccepted", "message": "the initial names have been accepted"},
    ]  # fmt: skip
    stored_versions = [version["name"] for version in crd["spec"]["versions"] if version.get("storage")]
    return {"conditions": conditions, "acceptedNames": crd["spec"]["names"], "storedVersions": stored_versions}
