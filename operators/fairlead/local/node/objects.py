"""What the node asks of Deployments, pods and Services: owners, readiness, availability, label selectors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from fairlead.kube.objects import Object, parse_timestamp


def name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", "default"))


def uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def is_terminating(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def controller_uid(obj: Object) -> str | None:
    """The uid of the object's controlling owner."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return None


def owner_reference(owner: Object, api_version: str, kind: str) -> Object:
    """What makes `owner` the controller of an object, and its deletion that object's."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name(owner),
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(obj: Object, kind: str) -> Object | None:
    for item in (obj.get("status") or {}).get("conditions") or ():
        if item["type"] == kind:
            return dict(item)
    return None


def is_active(pod: Object) -> bool:
    """Counts towards its ReplicaSet: neither on its way out nor at its end."""
    return not is_terminating(pod) and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def is_ready(pod: Object) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready["status"] == "True"


def available_in(pod: Object, min_ready_seconds: float, now: datetime) -> float | None:
    """Seconds until an active pod counts as available: 0 if it does, None if it is not even ready."""
    ready = condition(pod, "Ready")
    if not is_active(pod) or ready is None or ready["status"] != "True":
        return None
    since = ready.get("lastTransitionTime")
    if min_ready_seconds <= 0 or since is None:
        return 0.0
    return max(0.0, min_ready_seconds - (now - parse_timestamp(since)).total_seconds())


def selects(selector: Mapping[str, str], target: Mapping[str, str]) -> bool:
    """A Service's selector: all its labels, and never everything."""
    return bool(selector) and all(target.get(key) == value for key, value in selector.items())
