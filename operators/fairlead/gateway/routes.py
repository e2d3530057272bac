"""What the gateway should serve: InferenceServices' status, Services and EndpointSlices to one routing table. Pure.

`service_routes` reads one InferenceService; `route_table` joins them all and settles who gets a host that two of them claim.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from fairlead.api import names

Object = Mapping[str, Any]

COMPONENTS = ("predictor", "transformer", "explainer")
EXPLAIN = ":explain"
"""How the path of a request for an explanation ends (V1), and the key of the host or path that leads there."""

_MESSAGE_LIMIT = 400
"""Characters of a condition's message that an error repeats."""


class Transport(StrEnum):
    """How a pod's port is spoken to."""

    HTTP = "h1"
    GRPC = "h2"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Check:
    """`GET path` on the port answers 2xx, or without a path: the port can be connected to."""

    port: int
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """One port of a workload: what becomes one backend of HAProxy."""

    namespace: str
    workload: str
    transport: Transport
    timeout: float
    concurrency: int
    ready: frozenset[Endpoint]
    unready: frozenset[Endpoint]
    """Known, and on their way: not ready, and not about to end."""
    hold: float | None = None
    """Seconds that a request waits for a first pod, where one is started for it; 0: no longer, because the start has failed; None: as long as for any other workload."""
    check: Check | None = None
    """How a pod is asked whether it is ready."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.workload}/{self.transport}"


@dataclass(frozen=True, slots=True)
class Target:
    workload: str
    revision: str
    percent: int


@dataclass(frozen=True, slots=True)
class ServiceRoutes:
    """All that one InferenceService wants. A route is named `{namespace}/{name}/{component}[/{tag}]`."""

    namespace: str
    name: str
    created: str
    hosts: Mapping[str, str]
    paths: Mapping[str, str]
    """`{namespace}/{name}[.{component}]`, what follows `/serving/`, to a route."""
    routes: Mapping[str, tuple[Target, ...]]
    components: Mapping[str, tuple[Target, ...]]
    upstreams: Mapping[str, Upstream]
    troubles: Mapping[str, str] = field(default_factory=dict)
    """A component's route to why it cannot serve."""

    def upstream(self, workload: str, transport: Transport) -> Upstream | None:
        """The workload's port for such requests; a workload with only one kind of port gets all requests there."""
        wanted = self.upstreams.get(f"{self.namespace}/{workload}/{transport}")
        other = Transport.HTTP if transport is Transport.GRPC else Transport.GRPC
        return wanted or self.upstreams.get(f"{self.namespace}/{workload}/{other}")


Split = tuple[tuple[str, int], ...]
"""Upstreams' keys with their weights, all above 0."""


@dataclass(slots=True)
class RouteTable:
    hosts: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    splits: dict[Transport, dict[str, Split]] = field(default_factory=lambda: {t: {} for t in Transport})
    """Per kind of request: a route to its split. A route without one has nothing that could serve it."""
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    """A component's route to why it cannot serve, as its status says."""
    conflicts: dict[tuple[str, str], str] = field(default_factory=dict)


def route_table(services: Iterable[ServiceRoutes]) -> RouteTable:
    """The table of all. A host that two services claim goes to the older; the younger gets a conflict that says so."""
    table = RouteTable()
    owners: dict[str, ServiceRoutes] = {}
    for service in sorted(services, key=lambda s: (s.created, s.namespace, s.name)):
        for host, route in service.hosts.items():
            owner = owners.setdefault(host, service)
            if owner is service:
                table.hosts[host] = route
            else:
                table.conflicts[(service.namespace, service.name)] = (
                    f"host {host} already belongs to InferenceService {owner.namespace}/{owner.name}, which is older; rename one of them"
                )
        table.paths.update(service.paths)
        table.upstreams.update(service.upstreams)
        table.troubles.update(service.troubles)
        for transport, splits in table.splits.items():
            for route, targets in service.routes.items():
                if split := _split(service, targets, transport):
                    splits[route] = split
    return table


def _split(service: ServiceRoutes, targets: Iterable[Target], transport: Transport) -> Split:
    """A target whose Service is not known yet is left out, so that its share goes to the others instead of failing."""
    found = ((service.upstream(target.workload, transport), target.percent) for target in targets)
    return tuple((upstream.key, percent) for upstream, percent in found if upstream is not None and percent > 0)


def service_routes(
    isvc: Object, services: Mapping[str, Object], slices: Mapping[str, Iterable[Object]], domain: str
) -> ServiceRoutes:
    """`services` and `slices` are those of the InferenceService's namespace, by the Service's name."""
    meta = isvc["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    local = meta.get("labels", {}).get(names.LABEL_VISIBILITY) == names.CLUSTER_LOCAL
    status = isvc.get("status", {}).get("components", {})
    present = [c for c in COMPONENTS if c == "predictor" or c in isvc.get("spec", {}) or c in status]
    main = "transformer" if "transformer" in present else "predictor"

    hosts: dict[str, str] = {}
    paths: dict[str, str] = {}
    routes: dict[str, tuple[Target, ...]] = {}
    components: dict[str, tuple[Target, ...]] = {}

    def add_hosts(route: str, component: str | None, suffix: str = "") -> None:
        external = [] if local else [names.host(name, namespace, domain, component)]
        hosts.update({host + suffix: route for host in (*_cluster_hosts(name, namespace, component), *external)})
        paths[names.path(name, namespace, component).removeprefix(f"{names.PATH_PREFIX}/") + suffix] = route

    add_hosts(f"{namespace}/{name}/{main}", None)
    if "explainer" in present:
        add_hosts(f"{namespace}/{name}/explainer", None, EXPLAIN)
    for component in present:
        route = f"{namespace}/{name}/{component}"
        # What another controller has written before ours says nothing of Services.
        traffic = [item for item in status.get(component, {}).get("traffic", ()) if "serviceName" in item]
        routes[route] = components[component] = tuple(_target(item, item.get("percent", 0)) for item in traffic)
        add_hosts(route, component)
        for item in traffic:
            if (tag := item.get("tag")) and not local:
                routes[f"{route}/{tag}"] = (_target(item, 100),)
                hosts[names.host(name, namespace, domain, component, tag)] = f"{route}/{tag}"

    workloads = {target.workload for targets in components.values() for target in targets}
    modes = {target.workload: mode for c in present for target, mode in _modes(components[c], status.get(c, {}))}
    upstreams = {
        upstream.key: upstream
        for workload in sorted(workloads & services.keys())
        for upstream in _upstreams(namespace, services[workload], list(slices.get(workload, ())), modes.get(workload))
    }
    created, troubles = meta.get("creationTimestamp", ""), dict(_troubles(isvc, components))
    return ServiceRoutes(namespace, name, created, hosts, paths, routes, components, upstreams, troubles)


def _modes(targets: Iterable[Target], status: Object) -> Iterator[tuple[Target, str]]:
    """What the autoscaler does with each target, where it does something."""
    modes = {item.get("revisionName"): item.get("mode", "") for item in status.get("autoscaling", ())}
    return ((target, modes[target.revision]) for target in targets if target.revision in modes)


def _troubles(isvc: Object, components: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The route of each component that is not ready, and why not."""
    meta = isvc["metadata"]
    for condition in isvc.get("status", {}).get("conditions", ()):
        component = condition["type"].removesuffix("Ready").lower()
        if condition["status"] == "False" and component in components and condition.get("message"):
            yield f"{meta['namespace']}/{meta['name']}/{component}", condition["message"][:_MESSAGE_LIMIT]


def _target(item: Object, percent: int) -> Target:
    return Target(item["serviceName"], item.get("revisionName", ""), percent)


def _cluster_hosts(name: str, namespace: str, component: str | None) -> Iterator[str]:
    first = name if component is None else f"{name}-{component}"
    for suffix in ("", ".svc", ".svc.cluster.local"):
        yield f"{first}.{namespace}{suffix}"


def _upstreams(namespace: str, service: Object, slices: list[Object], mode: str | None) -> Iterator[Upstream]:
    """The first port of each kind. The EndpointSlices carry the pods' own port numbers under the Service port's name."""
    annotations = service["metadata"].get("annotations", {})
    ports: dict[Transport, str] = {}
    for port in service.get("spec", {}).get("ports", []):
        transport = Transport.GRPC if port.get("appProtocol") == names.H2C_APP_PROTOCOL else Transport.HTTP
        ports.setdefault(transport, port.get("name") or "")
    families = {s.get("addressType") for s in slices if s.get("endpoints")}
    family = "IPv4" if "IPv4" in families else "IPv6"  # a dual-stack Service lists each pod twice
    for transport, port_name in ports.items():
        ready: set[Endpoint] = set()
        unready: set[Endpoint] = set()
        for slice_ in slices:
            number = next(
                (p.get("port") for p in slice_.get("ports") or () if (p.get("name") or "") == port_name), None
            )
            if number is None or slice_.get("addressType") != family:
                continue
            for endpoint in slice_.get("endpoints") or ():
                conditions = endpoint.get("conditions") or {}
                is_ready = conditions.get("ready", True)
                if not is_ready and conditions.get("terminating"):
                    continue
                (ready if is_ready else unready).update(Endpoint(address, number) for address in endpoint["addresses"])
        yield Upstream(
            namespace, service["metadata"]["name"], transport,
            timeout=_number(annotations.get(names.TIMEOUT), 60.0),
            concurrency=int(_number(annotations.get(names.CONTAINER_CONCURRENCY), 0.0)),
            ready=frozenset(ready), unready=frozenset(unready - ready),
            hold=_hold(annotations.get(names.ACTIVATION_TIMEOUT), mode),
            check=_check(annotations.get(names.READINESS, "")),
        )  # fmt: skip


def _hold(timeout: str | None, mode: str | None) -> float | None:
    """Of the annotation, and of what the autoscaler does with the workload."""
    seconds = _number(timeout, 0.0)
    if not seconds:
        return None
    match mode:
        case "Paused":
            return 0.0
        case "Activating":
            return max(seconds, names.LONGEST_WAKE_UP)  # the operator says when it has failed, unless it is gone itself
    return seconds


def _check(text: str) -> Check | None:
    """Of the annotation `PORT/PATH` or `PORT`."""
    port, slash, path = text.partition("/")
    return Check(int(port), f"/{path}" if slash else None) if port.isdecimal() and 0 < int(port) < 65536 else None


def _number(text: str | None, default: float) -> float:
    """The operator writes these annotations; a hand-made one that is no number must not stop the others' routes."""
    try:
        value = float(text) if text is not None else default
    except ValueError:
        return default
    return value if 0 <= value < 1e6 else default
