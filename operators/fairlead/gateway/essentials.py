"""What of each object the routes are made of: the rest is not kept in memory, and a change of it is no change here.

With a thousand services, what is left out is most of what the agent would hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api import names
from fairlead.kube.objects import Object

SERVICE_OF_SLICE = "kubernetes.io/service-name"
"""The label by which an EndpointSlice says whose endpoints it has."""

_METADATA = ("name", "namespace", "resourceVersion", "creationTimestamp")
_LABELS = (names.LABEL_VISIBILITY, names.LABEL_INFERENCE_SERVICE, SERVICE_OF_SLICE)
_ANNOTATIONS = (names.TIMEOUT, names.CONTAINER_CONCURRENCY, names.ACTIVATION_TIMEOUT, names.READINESS)


def inference_service(obj: Object) -> Object:
    """Which components there are, where their traffic goes, and why not."""
    status = obj.get("status") or {}
    return {
        "metadata": _metadata(obj),
        "spec": dict.fromkeys(obj.get("spec") or {}),
        "status": {
            "components": {
                kind: {key: component[key] for key in ("traffic", "autoscaling") if component.get(key)}
                for kind, component in (status.get("components") or {}).items()
            },
            "conditions": [condition for condition in status.get("conditions") or () if condition["status"] == "False"],
        },
    }


def service(obj: Object) -> Object:
    return {"metadata": _metadata(obj), "spec": {"ports": (obj.get("spec") or {}).get("ports") or []}}


def endpoint_slice(obj: Object) -> Object:
    """Without the pods' names and nodes."""
    endpoints = [_chosen(endpoint, ("addresses", "conditions")) for endpoint in obj.get("endpoints") or ()]
    return {"metadata": _metadata(obj), **_chosen(obj, ("addressType", "ports")), "endpoints": endpoints}


def same(old: Object | None, new: Object | None) -> bool:
    """Whether two such objects lead to the same routes: they may be of different versions."""
    return old is not None and new is not None and _without_version(old) == _without_version(new)


def _without_version(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    return {**obj, "metadata": metadata}


def _metadata(obj: Object) -> Object:
    metadata: Object = obj["metadata"]
    kept = _chosen(metadata, _METADATA)
    kept["labels"] = _chosen(metadata.get("labels") or {}, _LABELS)
    kept["annotations"] = _chosen(metadata.get("annotations") or {}, _ANNOTATIONS)
    return kept


def _chosen(values: Mapping[str, Any], keys: tuple[str, ...]) -> Object:
    return {key: values[key] for key in keys if key in values}
