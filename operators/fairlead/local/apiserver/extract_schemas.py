"""Make `builtin_schemas.json` from a real API server's OpenAPI v3 documents.

    kubectl get --raw /openapi/v3/api/v1 > specs/core.json      (and so on for each group version of KINDS)
    python -m fairlead.local.apiserver.extract_schemas specs/*.json

Kept: what KINDS need, with types, patch strategies, list keys, and the first sentence of each description. One definition
a line, so that the difference between two Kubernetes versions can be read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("builtin_schemas.json")

KINDS = {
    ("", "v1"): [
        "Namespace", "Pod", "Service", "ConfigMap", "Secret", "ServiceAccount", "Event", "Node", "PersistentVolumeClaim", "Endpoints",
    ],
    ("apps", "v1"): ["Deployment", "ReplicaSet", "ControllerRevision"],
    ("discovery.k8s.io", "v1"): ["EndpointSlice"],
    ("events.k8s.io", "v1"): ["Event"],
    ("autoscaling", "v1"): ["Scale"],
    ("autoscaling", "v2"): ["HorizontalPodAutoscaler"],
    ("coordination.k8s.io", "v1"): ["Lease"],
    ("policy", "v1"): ["PodDisruptionBudget", "Eviction"],
    ("rbac.authorization.k8s.io", "v1"): ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"],
    ("apiextensions.k8s.io", "v1"): ["CustomResourceDefinition"],
    ("authorization.k8s.io", "v1"): ["SelfSubjectAccessReview"],
}  # fmt: skip

PREFIX = "#/components/schemas/"


def compact(node: Any) -> Any:
    """A schema with references unwrapped from `allOf` and descriptions cut to their first sentence."""
    if isinstance(node, list):
        return [compact(item) for item in node]
    if not isinstance(node, dict):
        return node
    small = {key: compact(value) for key, value in node.items()}
    if isinstance(small.get("description"), str):
        small["description"] = small["description"].split("\n")[0].split(". ")[0]
    wrapped = small.pop("allOf", None)
    return (
        {**small, **wrapped[0]}
        if isinstance(wrapped, list)
        else small
        if wrapped is None
        else {**small, "allOf": wrapped}
    )


def references(node: Any) -> Iterator[str]:
    """The names of all definitions that a schema refers to."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(PREFIX)
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def closure(schemas: dict[str, Any], roots: list[str]) -> dict[str, Any]:
    """The roots and everything that they refer to."""
    kept: dict[str, Any] = {}
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name not in kept:
            kept[name] = compact(schemas[name])
            todo.extend(references(kept[name]))
    return dict(sorted(kept.items()))


def main(files: list[str]) -> None:
    schemas: dict[str, Any] = {}
    for file in files:
        schemas.update(json.loads(Path(file).read_text()).get("components", {}).get("schemas", {}))
    by_kind = {}
    for name, schema in schemas.items():
        gvks = schema.get("x-kubernetes-group-version-kind", [])
        if len(gvks) == 1:
            by_kind[gvks[0]["group"], gvks[0]["version"], gvks[0]["kind"]] = name
    roots = [by_kind[group, version, kind] for (group, version), kinds in KINDS.items() for kind in kinds]
    lines = [f"{json.dumps(name)}: {json.dumps(schema)}" for name, schema in closure(schemas, roots).items()]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
