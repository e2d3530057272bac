"""What `kubectl get` shows of the built-in kinds: the columns and cells of Kubernetes' `pkg/printers/internalversion`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .durations import since
from .kinds import Column
from .pod_columns import pod_cells
from .rows import NONE, Definition, Row


def _define(names: str, cells: Callable[[Row], list[Any]], *, wide: str = "", integers: str = "") -> Definition:
    """Columns by name, separated by `|`; those of `wide` are shown with `-o wide` only."""
    numbers = integers.split("|")
    made = [
        Column(name, "integer" if name in numbers else "string", "", name, "name" if name == "Name" else "", priority)
        for listed, priority in ((names, 0), (wide, 1))
        for name in listed.split("|")
        if name
    ]
    return Definition(tuple(made), cells)


def selector_text(selector: dict[str, Any] | None) -> str:
    """A selector in one line."""
    if not selector:
        return NONE
    plain = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
    terms = [f"{key}={value}" for key, value in plain.items()]
    for term in selector.get("matchExpressions") or ():
        operator, values = term["operator"], ",".join(term.get("values") or ())
        unary = {"Exists": term["key"], "DoesNotExist": f"!{term['key']}"}
        terms.append(unary.get(operator, f"{term['key']} {operator.lower()} ({values})"))
    return ",".join(terms) or NONE


def _containers(row: Row, path: str) -> list[str]:
    containers = row[path] or []
    return [",".join(c.get("name", "") for c in containers), ",".join(c.get("image", "") for c in containers)]


# --- Workloads --------------------------------------------------------------------------------------------------


def _deployment(row: Row) -> list[Any]:
    wanted = row["spec.replicas"]
    return [
        row.name, f"{row['status.readyReplicas'] or 0}/{wanted}", str(row["status.updatedReplicas"] or 0),
        str(row["status.availableReplicas"] or 0), row.age, *_containers(row, "spec.template.spec.containers"),
        selector_text(row["spec.selector"]),
    ]  # fmt: skip


def _replicaset(row: Row) -> list[Any]:
    return [
        row.name, row["spec.replicas"], row["status.replicas"] or 0, row["status.readyReplicas"] or 0, row.age,
        *_containers(row, "spec.template.spec.containers"), selector_text(row["spec.selector"]),
    ]  # fmt: skip


def _revision(row: Row) -> list[Any]:
    owners = [o for o in row["metadata.ownerReferences"] or () if o.get("controller")]
    controller = NONE
    if owners:
        group = owners[0]["apiVersion"].rpartition("/")[0]
        controller = f"{owners[0]['kind'].lower()}{'.' + group if group else ''}/{owners[0]['name']}"
    return [row.name, controller, str(row["revision"]), row.age]


def _autoscaler(row: Row) -> list[Any]:
    reference = row["spec.scaleTargetRef"] or {}
    replicas = row["status.currentReplicas"]
    targets = [_metric(metric, row["status.currentMetrics"] or ()) for metric in row["spec.metrics"] or ()]
    return [
        row.name, f"{reference.get('kind')}/{reference.get('name')}", ", ".join(targets) or NONE,
        str(row["spec.minReplicas"]), str(row["spec.maxReplicas"]), str(replicas or 0), row.age,
    ]  # fmt: skip


def _metric(metric: dict[str, Any], current: Any) -> str:
    if metric.get("type") != "Resource":
        return f"<unknown>/{metric.get('type')}"
    name, target = metric["resource"]["name"], metric["resource"].get("target", {})
    found: dict[str, Any] = next((c["resource"] for c in current if (c.get("resource") or {}).get("name") == name), {})
    used = found.get("current", {}).get("averageUtilization")
    if target.get("averageUtilization") is not None:
        return f"{name}: {f'{used}%' if used is not None else '<unknown>'}/{target['averageUtilization']}%"
    return f"{name}: {found.get('current', {}).get('averageValue', '<unknown>')}/{target.get('averageValue')}"


def _budget(row: Row) -> list[Any]:
    least, most = row["spec.minAvailable"], row["spec.maxUnavailable"]
    shown = ["N/A" if value is None else str(value) for value in (least, most)]
    return [row.name, *shown, row["status.disruptionsAllowed"] or 0, row.age]


# --- The rest ---------------------------------------------------------------------------------------------------


def _service(row: Row) -> list[Any]:
    ports = []
    for port in row["spec.ports"] or ():
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port.get('port')}{node_port}/{port.get('protocol', 'TCP')}")
    external = ",".join(row["spec.externalIPs"] or ()) or row["spec.externalName"] or NONE
    return [
        row.name, row["spec.type"], row["spec.clusterIP"] or NONE, external, ",".join(ports) or NONE, row.age,
        selector_text(row["spec.selector"]),
    ]  # fmt: skip


def _endpoint_slice(row: Row) -> list[Any]:
    ports = [str(port.get("port", "*")) for port in row["ports"] or ()]
    addresses = [address for endpoint in row["endpoints"] or () for address in endpoint.get("addresses") or ()]
    return [row.name, row["addressType"], _few(ports, "<unset>"), _few(addresses, "<unset>"), row.age]


def _endpoints(row: Row) -> list[Any]:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in row["subsets"] or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    return [row.name, _few(found, NONE), row.age]


def _few(items: list[str], none: str) -> str:
    shown = ",".join(items[:3]) + (f" + {len(items) - 3} more..." if len(items) > 3 else "")
    return shown or none


def _event(row: Row) -> list[Any]:
    about = row["involvedObject"] or row["regarding"] or {}
    first = row["firstTimestamp"] or row["deprecatedFirstTimestamp"] or row["eventTime"]
    last = row["series.lastObservedTime"] or row["lastTimestamp"] or row["deprecatedLastTimestamp"] or first
    source = row["source.component"] or row["reportingComponent"] or row["reportingController"] or ""
    count = row["series.count"] or row["count"] or row["deprecatedCount"] or 1
    return [
        since(last, row.now) if last else "<unknown>", row["type"], row["reason"],
        f"{about.get('kind', '').lower()}/{about.get('name', '')}", (row["message"] or row["note"] or "").strip(),
        about.get("fieldPath", ""), source, since(first, row.now) if first else "<unknown>", str(count), row.name,
    ]  # fmt: skip


EVENT = Definition(
    tuple(
        Column(name, "string", "", name, "name" if name == "Name" else "", priority)
        for name, priority in (
            ("Last Seen", 0), ("Type", 0), ("Reason", 0), ("Object", 0), ("Message", 0), ("Subobject", 1), ("Source", 1),
            ("First Seen", 1), ("Count", 1), ("Name", 1),
        )
    ),
    _event,
)  # fmt: skip


def _node(row: Row) -> list[Any]:
    conditions = {c["type"]: c["status"] for c in row["status.conditions"] or ()}
    status = {"True": "Ready", "False": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    if row["spec.unschedulable"]:
        status += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = sorted(label.removeprefix(prefix) for label in row["metadata.labels"] or {} if label.startswith(prefix))
    addresses = {a["type"]: a["address"] for a in row["status.addresses"] or ()}
    about = row["status.nodeInfo"] or {}
    return [
        row.name, status, ",".join(roles) or NONE, row.age, about.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE), addresses.get("ExternalIP", NONE), about.get("osImage", "<unknown>"),
        about.get("kernelVersion", "<unknown>"), about.get("containerRuntimeVersion", "<unknown>"),
    ]  # fmt: skip


def _claim(row: Row) -> list[Any]:
    phase = "Terminating" if row["metadata.deletionTimestamp"] else row["status.phase"]
    modes = ",".join(
        {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX"}.get(m, m)
        for m in row["spec.accessModes"] or ()
    )
    storage_class, attributes = row["spec.storageClassName"] or "", row["spec.volumeAttributesClassName"] or "<unset>"
    capacity = (row["status.capacity"] or {}).get("storage", "")
    return [
        row.name, phase, row["spec.volumeName"] or "", capacity, modes, storage_class, attributes, row.age,
        row["spec.volumeMode"] or "<unset>",
    ]  # fmt: skip


def _namespace(row: Row) -> list[Any]:
    return [row.name, row["status.phase"], row.age]


def _created_at(row: Row) -> list[Any]:
    return [row.name, row["metadata.creationTimestamp"]]


def _binding(row: Row) -> list[Any]:
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in row["subjects"] or ():
        name = f"{subject['namespace']}/{subject['name']}" if subject.get("namespace") else subject.get("name", "")
        by_kind.setdefault(subject.get("kind", ""), []).append(name)
    shown = [", ".join(by_kind[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [row.name, f"{row['roleRef.kind']}/{row['roleRef.name']}", row.age, *shown]


_RBAC = "rbac.authorization.k8s.io"
_WORKLOAD_WIDE = "Containers|Images|Selector"
_BINDING = _define("Name|Role|Age", _binding, wide="Users|Groups|ServiceAccounts")
_CREATED = _define("Name|Created At", _created_at)

BUILTIN: dict[tuple[str, str], Definition] = {
    ("", "namespaces"): _define("Name|Status|Age", _namespace),
    ("", "pods"): _define("Name|Ready|Status|Restarts|Age", pod_cells, wide="IP|Node|Nominated Node|Readiness Gates"),
    ("", "services"): _define("Name|Type|Cluster-IP|External-IP|Port(s)|Age", _service, wide="Selector"),
    ("", "configmaps"): _define(
        "Name|Data|Age", lambda r: [r.name, str(len(r["data"] or ()) + len(r["binaryData"] or ())), r.age]
    ),
    ("", "secrets"): _define("Name|Type|Data|Age", lambda r: [r.name, r["type"], str(len(r["data"] or ())), r.age]),
    ("", "serviceaccounts"): _define("Name|Secrets|Age", lambda r: [r.name, str(len(r["secrets"] or ())), r.age]),
    ("", "events"): EVENT,
    ("events.k8s.io", "events"): EVENT,
    ("", "nodes"): _define(
        "Name|Status|Roles|Age|Version", _node, wide="Internal-IP|External-IP|OS-Image|Kernel-Version|Container-Runtime"
    ),
    ("", "persistentvolumeclaims"): _define(
        "Name|Status|Volume|Capacity|Access Modes|StorageClass|VolumeAttributesClass|Age", _claim, wide="VolumeMode"
    ),
    ("", "endpoints"): _define("Name|Endpoints|Age", _endpoints),
    ("apps", "deployments"): _define("Name|Ready|Up-to-date|Available|Age", _deployment, wide=_WORKLOAD_WIDE),
    ("apps", "replicasets"): _define(
        "Name|Desired|Current|Ready|Age", _replicaset, wide=_WORKLOAD_WIDE, integers="Desired|Current|Ready"
    ),
    ("apps", "controllerrevisions"): _define("Name|Controller|Revision|Age", _revision),
    ("discovery.k8s.io", "endpointslices"): _define("Name|AddressType|Ports|Endpoints|Age", _endpoint_slice),
    ("autoscaling", "horizontalpodautoscalers"): _define(
        "Name|Reference|Targets|MinPods|MaxPods|Replicas|Age", _autoscaler
    ),
    ("coordination.k8s.io", "leases"): _define(
        "Name|Holder|Age", lambda r: [r.name, r["spec.holderIdentity"] or "", r.age]
    ),
    ("policy", "poddisruptionbudgets"): _define(
        "Name|Min Available|Max Unavailable|Allowed Disruptions|Age", _budget, integers="Allowed Disruptions"
    ),
    (_RBAC, "roles"): _CREATED,
    (_RBAC, "clusterroles"): _CREATED,
    (_RBAC, "rolebindings"): _BINDING,
    (_RBAC, "clusterrolebindings"): _BINDING,
    ("apiextensions.k8s.io", "customresourcedefinitions"): _CREATED,
}
