"""What a URL path asks for."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import no_such_path
from .kinds import Kind, Kinds


@dataclass(frozen=True, slots=True)
class Target:
    """A resource, one object of it, or a subresource of one. `namespace` is None for all namespaces."""

    kind: Kind
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def home(self) -> str:
        """The namespace that an object is kept under; cluster-scoped ones have none."""
        return self.namespace or ""


@dataclass(frozen=True, slots=True)
class Review:
    """A question that is answered and not stored: `authorization.k8s.io/v1/selfsubjectaccessreviews`."""

    group: str
    version: str
    plural: str


def resolve(kinds: Kinds, parts: list[str]) -> Target | Review:
    """The path's parts, from `api/v1/…` or `apis/{group}/{version}/…`. Raises StatusError 404."""
    if parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    else:
        group, version, rest = parts[1], parts[2], parts[3:]
    if group == "authorization.k8s.io":
        return Review(group, version, rest[0])
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    kind = kinds.find(group, version, rest[0])
    if kind is None or len(rest) > 3 or (namespace is not None and not kind.namespaced):
        raise no_such_path()
    name, subresource = ([*rest[1:], "", ""])[:2]
    if name and kind.namespaced and namespace is None:
        raise no_such_path()
    return Target(kind, namespace if kind.namespaced else "", name, subresource)
