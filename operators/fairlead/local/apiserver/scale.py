"""The scale subresource: replicas of any kind that has some, as an autoscaling/v1 Scale."""

from __future__ import annotations

from typing import Any

from . import errors
from .builtin_columns import selector_text
from .jsonpath import compile_path
from .kinds import Kind

Object = dict[str, Any]


def to_scale(kind: Kind, obj: Object) -> Object:
    """What GET …/scale answers."""
    if kind.scale is None:
        raise errors.no_such_path()
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _first(kind.scale.status_replicas, obj) or 0}
    selector = _first(kind.scale.selector, obj) if kind.custom is not None and kind.scale.selector else None
    if kind.custom is None:
        selector = selector_text(obj["spec"].get("selector"))
    if selector:
        status["selector"] = selector
    replicas = _first(kind.scale.spec_replicas, obj)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {} if replicas is None else {"replicas": replicas},
        "status": status,
    }


def _first(path: str, obj: Object) -> Any:
    values = compile_path(path)(obj)
    return values[0] if values else None


def scale_patch(kind: Kind, scale: Any) -> Object:
    """The merge patch that gives an object the replicas of a Scale."""
    if kind.scale is None:
        raise errors.no_such_path()
    spec = scale.get("spec") if isinstance(scale, dict) else None
    replicas = spec.get("replicas", 0) if isinstance(spec, dict) else None
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        fault = errors.invalid_value("spec.replicas", replicas, "must be an integer greater than or equal to 0")
        raise errors.invalid("Scale", "autoscaling", "", [fault])
    patch: Any = replicas
    for name in reversed(kind.scale.spec_replicas.strip(".").split(".")):
        patch = {name: patch}
    version = scale.get("metadata", {}).get("resourceVersion")
    if version:
        patch["metadata"] = {"resourceVersion": version}
    result: Object = patch
    return result
