"""What a request to the API server is made of: its path, its query, and the words by which an error names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.kube.resources import Resource


def selection(labels: str | None, fields: str | None) -> dict[str, str]:
    given = {"labelSelector": labels, "fieldSelector": fields}
    return {key: value for key, value in given.items() if value}


def log_query(container: str | None, tail: int | None, previous: bool, *, follow: bool) -> dict[str, str]:
    query = {"container": container, "tailLines": None if tail is None else str(tail)}
    flags = {"previous": previous, "follow": follow}
    return {key: value for key, value in query.items() if value} | {key: "true" for key, on in flags.items() if on}


def place(resource: Resource, obj: Mapping[str, Any]) -> tuple[str | None, str]:
    metadata = obj.get("metadata") or {}
    namespace, name = metadata.get("namespace"), metadata.get("name") or metadata.get("generateName")
    if not name or (resource.namespaced and not namespace):
        missing = "name" if not name else "namespace"
        raise ValueError(f"this {resource.kind} ({name or 'no name'}) has no metadata.{missing}")
    return namespace if resource.namespaced else None, name


def object_path(resource: Resource, namespace: str | None, name: str, subresource: str | None = None) -> str:
    if resource.namespaced and not namespace:
        raise ValueError(f"{resource} {name}: a namespaced kind needs a namespace")
    return resource.path(namespace, name, subresource)


def where(verb: str, resource: Resource, namespace: str | None, name: str = "", subresource: str | None = None) -> str:
    """`patch deployments.apps/scale team-a/iris`, `list pods in all namespaces`."""
    what = f"{resource}/{subresource}" if subresource else str(resource)
    scope = namespace if resource.namespaced else None
    if name:
        return f"{verb} {what} {scope}/{name}" if scope else f"{verb} {what} {name}"
    if not resource.namespaced:
        return f"{verb} {what}"
    return f"{verb} {what} in {scope}" if scope else f"{verb} {what} in all namespaces"
