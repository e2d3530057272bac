"""What the server says of itself: groups, versions and resources, in the old form and in the aggregated one, and /version."""

from __future__ import annotations

import platform
from typing import Any

from .kinds import Kind, Kinds

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
VERSION = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.0+fairlead",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": f"{platform.system().lower()}/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(platform.machine(), platform.machine()) }",
}
"""The version whose API is spoken; the suffix says who speaks it."""

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
REVIEWS = {
    ("authorization.k8s.io", "v1"): ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
}
"""Resources that are asked and not stored: create only, cluster-scoped."""

Subresource = tuple[str, str, str, str, list[str]]
"""(name, group, version, kind, verbs)."""


def subresources(kind: Kind) -> list[Subresource]:
    found: list[Subresource] = []
    readable = ["get", "patch", "update"]
    if kind.storage == ("", "pods"):
        found.append(("eviction", "policy", "v1", "Eviction", ["create"]))
        found.append(("log", kind.group, kind.version, "Pod", ["get"]))
    if kind.scale is not None:
        found.append(("scale", "autoscaling", "v1", "Scale", readable))
    if kind.status:
        found.append(("status", kind.group, kind.version, kind.kind, readable))
    return found


def _group_versions(kinds: Kinds) -> dict[str, dict[str, list[Kind]]]:
    groups: dict[str, dict[str, list[Kind]]] = {}
    for kind in sorted(kinds.all(), key=lambda k: (k.group, k.plural)):
        groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    for group, version in REVIEWS:
        groups.setdefault(group, {}).setdefault(version, [])
    return groups


def aggregated(kinds: Kinds, core: bool) -> dict[str, Any]:
    """apidiscovery.k8s.io/v2: everything below /api (`core`) or /apis in one answer."""
    items = []
    for group, versions in _group_versions(kinds).items():
        if core is bool(group):
            continue
        listed = [
            {
                "version": version,
                "resources": [_discovered(k) for k in served] + _review(group, version),
                "freshness": "Current",
            }
            for version, served in sorted(versions.items(), key=lambda pair: _priority(pair[0]))
        ]
        items.append({"metadata": {"name": group} if group else {}, "versions": listed})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _discovered(kind: Kind) -> dict[str, Any]:
    return {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": VERBS,
        "shortNames": list(kind.short_names),
        "categories": list(kind.categories),
        "subresources": [
            {"subresource": name, "responseKind": {"group": group, "version": version, "kind": shown}, "verbs": verbs}
            for name, group, version, shown, verbs in subresources(kind)
        ],
    }


def _review(group: str, version: str) -> list[dict[str, Any]]:
    if (group, version) not in REVIEWS:
        return []
    plural, name = REVIEWS[group, version]
    return [
        {
            "resource": plural,
            "responseKind": {"group": group, "version": version, "kind": name},
            "scope": "Cluster",
            "singularResource": name.lower(),
            "verbs": ["create"],
        }
    ]


def versions(address: str) -> dict[str, Any]:
    """/api"""
    return {
        "kind": "APIVersions",
        "apiVersion": "v1",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(kinds: Kinds) -> dict[str, Any]:
    """/apis"""
    found = [_group(name, list(versions)) for name, versions in _group_versions(kinds).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(kinds: Kinds, name: str) -> dict[str, Any] | None:
    """/apis/{group}"""
    versions = _group_versions(kinds).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(versions))} if name and versions else None


def _group(name: str, served: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in sorted(served, key=_priority)]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _priority(version: str) -> tuple[int, str]:
    """Stable versions before beta before alpha, as Kubernetes orders them."""
    return (2 if "alpha" in version else 1 if "beta" in version else 0, version)


def resources(kinds: Kinds, name: str, version: str) -> dict[str, Any] | None:
    """/api/v1 and /apis/{group}/{version}; None if there is no such version."""
    served = _group_versions(kinds).get(name, {}).get(version)
    if served is None:
        return None
    listed: list[dict[str, Any]] = []
    for kind in served:
        entry = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": VERBS,
        }
        if kind.short_names:
            entry["shortNames"] = list(kind.short_names)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        listed.append(entry)
        for sub, sub_group, sub_version, sub_kind, verbs in subresources(kind):
            row = {
                "name": f"{kind.plural}/{sub}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub_kind,
                "verbs": verbs,
            }
            if sub_group != kind.group:
                row.update(group=sub_group, version=sub_version)
            listed.append(row)
    if (name, version) in REVIEWS:
        plural, kind_name = REVIEWS[name, version]
        listed.append(
            {
                "name": plural,
                "singularName": kind_name.lower(),
                "namespaced": False,
                "kind": kind_name,
                "verbs": ["create"],
            }
        )
    group_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}
