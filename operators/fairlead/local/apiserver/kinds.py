"""The kinds that are served: a table of the built-in ones, and those that CustomResourceDefinitions add.

A Kind is one version of one resource. Objects are stored by (group, plural), whichever version they are written in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from .schema import Schema, builtin, of_custom

Storage = tuple[str, str]
"""(group, plural)."""


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`: `path` is a JSONPath; priority > 0 is shown with `-o wide` only."""

    name: str
    type: str
    path: str
    description: str = ""
    format: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Scaling:
    """Where the scale subresource finds its numbers."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ".status.selector"


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    """Whether status is a subresource."""
    scale: Scaling | None = None
    generation: bool = False
    """Whether `metadata.generation` counts changes of the spec."""
    name_rule: str = "subdomain"
    definition: str = ""
    """The OpenAPI name of a built-in kind."""
    custom: dict[str, Any] | None = field(default=None, compare=False, hash=False)
    """`openAPIV3Schema` of a custom kind."""
    columns: tuple[Column, ...] = ()
    singular: str = ""
    list_kind: str = ""

    @property
    def storage(self) -> Storage:
        return (self.group, self.plural)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def schema(self) -> Schema:
        return of_custom(self.custom) if self.custom is not None else builtin(self.definition)

    @property
    def openapi_name(self) -> str:
        if self.definition:
            return self.definition
        return ".".join([*reversed(self.group.split(".")), self.version, self.kind])


_CORE: Final = "io.k8s.api.core.v1."
_API: Final = "io.k8s.api."

BUILTIN: Final = (
    Kind("", "v1", "Namespace", "namespaces", False, ("ns",), status=True, name_rule="label"),
    Kind("", "v1", "Pod", "pods", short_names=("po",), categories=("all",), status=True, generation=True),
    Kind("", "v1", "Service", "services", short_names=("svc",), categories=("all",), status=True, name_rule="service"),
    Kind("", "v1", "ConfigMap", "configmaps", short_names=("cm",)),
    Kind("", "v1", "Secret", "secrets"),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",)),
    Kind("", "v1", "Event", "events", short_names=("ev",)),
    Kind("", "v1", "Node", "nodes", False, ("no",), status=True),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",), status=True),
    Kind("", "v1", "Endpoints", "endpoints", short_names=("ep",)),
    Kind("apps", "v1", "Deployment", "deployments", True, ("deploy",), ("all",), True, Scaling(), True),
    Kind("apps", "v1", "ReplicaSet", "replicasets", True, ("rs",), ("all",), True, Scaling(), True),
    Kind("apps", "v1", "ControllerRevision", "controllerrevisions"),
    Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", generation=True),
    Kind("events.k8s.io", "v1", "Event", "events", short_names=("ev",)),
    Kind(
        "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers",
        short_names=("hpa",), categories=("all",), status=True,
    ),
    Kind("coordination.k8s.io", "v1", "Lease", "leases"),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True, ("pdb",), status=True, generation=True),
    Kind("rbac.authorization.k8s.io", "v1", "Role", "roles", name_rule="path"),
    Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", name_rule="path"),
    Kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", False, name_rule="path"),
    Kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", False, name_rule="path"),
    Kind(
        "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False,
        ("crd", "crds"), ("api-extensions",), True, generation=True,
    ),
)  # fmt: skip

_PACKAGES: Final = {
    "": _CORE,
    "rbac.authorization.k8s.io": _API + "rbac.v1.",
    "discovery.k8s.io": _API + "discovery.v1.",
    "events.k8s.io": _API + "events.v1.",
    "coordination.k8s.io": _API + "coordination.v1.",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
}

CRD: Final[Storage] = ("apiextensions.k8s.io", "customresourcedefinitions")
NAMESPACES: Final[Storage] = ("", "namespaces")
PODS: Final[Storage] = ("", "pods")


def _complete(kind: Kind) -> Kind:
    package = _PACKAGES.get(kind.group, f"{_API}{kind.group}.{kind.version}.")
    return replace(kind, definition=package + kind.kind, singular=kind.kind.lower(), list_kind=kind.kind + "List")


class Kinds:
    """All kinds that are served now."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        self._storage: dict[Storage, Kind] = {}
        self.generation = 0
        """Grows with each change, for caches of what is made from the kinds."""
        for kind in BUILTIN:
            self._add([_complete(kind)])

    def _add(self, versions: Iterable[Kind]) -> None:
        for kind in versions:
            self._kinds[kind.group, kind.version, kind.plural] = kind
            self._storage.setdefault(kind.storage, kind)
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._kinds.get((group, version, plural))

    def stored(self, storage: Storage) -> Kind:
        """The kind in the version that objects are kept in."""
        return self._storage[storage]

    def all(self) -> list[Kind]:
        return list(self._kinds.values())

    def define(self, crd: dict[str, Any]) -> None:
        """Serve what a CustomResourceDefinition describes, instead of what one of this name described before."""
        self.forget(crd)
        versions = sorted(custom_kinds(crd), key=lambda pair: not pair[1])
        self._add(kind for kind, _ in versions)

    def forget(self, crd: dict[str, Any]) -> None:
        storage = (crd["spec"]["group"], crd["spec"]["names"]["plural"])
        for key in [key for key, kind in self._kinds.items() if kind.storage == storage]:
            del self._kinds[key]
        self._storage.pop(storage, None)
        self.generation += 1


def custom_kinds(crd: dict[str, Any]) -> list[tuple[Kind, bool]]:
    """The served versions of a CRD, and of each whether it is the storage version."""
    spec, names = crd["spec"], crd["spec"]["names"]
    found = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        subresources = version.get("subresources", {})
        scale = subresources.get("scale")
        kind = Kind(
            spec["group"],
            version["name"],
            names["kind"],
            names["plural"],
            spec.get("scope") == "Namespaced",
            tuple(names.get("shortNames", ())),
            tuple(names.get("categories", ())),
            "status" in subresources,
            Scaling(scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath", ""))
            if scale
            else None,
            True,
            custom=version.get("schema", {}).get("openAPIV3Schema", {}),
            columns=tuple(_column(c) for c in version.get("additionalPrinterColumns", ())),
            singular=names.get("singular") or names["kind"].lower(),
            list_kind=names.get("listKind") or names["kind"] + "List",
        )
        found.append((kind, bool(version.get("storage"))))
    return found


def _column(raw: dict[str, Any]) -> Column:
    return Column(
        raw["name"],
        raw["type"],
        raw["jsonPath"],
        raw.get("description", ""),
        raw.get("format", ""),
        raw.get("priority", 0),
    )
