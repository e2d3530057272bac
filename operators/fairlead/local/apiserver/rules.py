"""What a real API server demands of built-in objects beyond their types, as far as a wrong manifest would meet it here.

Each rule yields FieldErrors with Kubernetes' own texts. Required fields are read from the schemas; what a server sets by
itself is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .errors import FieldError, duplicate_value, forbidden_field, invalid_value, required_value, unsupported_value
from .validation import validate_name

Object = dict[str, Any]
Rule = Callable[[Object, Object | None], Iterator[FieldError]]


def check_builtin(obj: Object, old: Object | None, kind: str, group: str) -> Iterator[FieldError]:
    """Everything that is wrong with an object of that kind; `old` is what it replaces."""
    rule = _KINDS.get((group, kind))
    if rule is not None:
        yield from rule(obj, old)


def _at_least_zero(spec: Object, name: str) -> Iterator[FieldError]:
    value = spec.get(name)
    if isinstance(value, int) and value < 0:
        yield invalid_value(f"spec.{name}", value, "must be greater than or equal to 0")


def _workload(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    yield from _at_least_zero(spec, "replicas")
    yield from _at_least_zero(spec, "minReadySeconds")
    selector = spec.get("selector")
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector:
        yield required_value("spec.selector")
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield invalid_value("spec.selector", selector, "empty selector is invalid for deployment")
    elif any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        yield invalid_value("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    if old is not None and old["spec"].get("selector") != selector:
        yield invalid_value("spec.selector", selector, "field is immutable")
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec")
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy not in (None, "Always"):
        yield unsupported_value("spec.template.spec.restartPolicy", policy, ["Always"])


def _pod(obj: Object, old: Object | None) -> Iterator[FieldError]:
    yield from _pod_spec(obj["spec"], "spec")
    if old is not None and old["spec"].get("nodeName") not in (None, "", obj["spec"].get("nodeName")):
        yield forbidden_field("spec.nodeName", "a pod that runs on a node cannot move to another")


def _pod_spec(spec: Object, path: str) -> Iterator[FieldError]:
    containers = spec.get("containers")
    if not containers:
        yield required_value(f"{path}.containers")
        return
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for position, container in enumerate(spec.get(field) or ()):
            at = f"{path}.{field}[{position}]"
            yield from _container(container, at, volumes)
            if container.get("name") in seen:
                yield duplicate_value(f"{at}.name", container["name"])
            seen.add(container.get("name", ""))
    if spec.get("restartPolicy") not in (None, "Always", "OnFailure", "Never"):
        yield unsupported_value(f"{path}.restartPolicy", spec["restartPolicy"], ["Always", "OnFailure", "Never"])


def _container(container: Object, at: str, volumes: set[Any]) -> Iterator[FieldError]:
    if not container.get("name"):
        yield required_value(f"{at}.name")
    else:
        yield from validate_name(container["name"], "label", f"{at}.name")
    if not container.get("image"):
        yield required_value(f"{at}.image")
    for position, port in enumerate(container.get("ports") or ()):
        yield from _port(port.get("containerPort"), f"{at}.ports[{position}].containerPort")
    for position, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield required_value(f"{at}.env[{position}].name")
    for position, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            yield FieldError(
                f"{at}.volumeMounts[{position}].name", "FieldValueNotFound", f'Not found: "{mount.get("name", "")}"'
            )


def _port(value: Any, path: str) -> Iterator[FieldError]:
    if value is None:
        yield required_value(path)
    elif not 1 <= value <= 65535:
        yield invalid_value(path, value, "must be between 1 and 65535, inclusive")


def _service(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
    if spec.get("type") not in kinds:
        yield unsupported_value("spec.type", spec.get("type"), kinds)
    ports = spec.get("ports") or []
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield required_value("spec.ports")
    names: set[str] = set()
    for position, port in enumerate(ports):
        at = f"spec.ports[{position}]"
        if len(ports) > 1 and not port.get("name"):
            yield required_value(f"{at}.name")
        elif port.get("name") in names:
            yield duplicate_value(f"{at}.name", port["name"])
        names.add(port.get("name", ""))
        yield from _port(port.get("port"), f"{at}.port")
    if old is not None and old["spec"].get("clusterIP") not in (None, "", spec.get("clusterIP")):
        yield invalid_value("spec.clusterIP", spec.get("clusterIP"), "field is immutable")


def _autoscaler(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    most, least = spec.get("maxReplicas"), spec.get("minReplicas")
    if most is None or most < 1:
        yield invalid_value("spec.maxReplicas", most or 0, "must be greater than 0")
    elif least is not None and least > most:
        yield invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    if not (spec.get("scaleTargetRef") or {}).get("name"):
        yield required_value("spec.scaleTargetRef.name")


def _immutable_data(obj: Object, old: Object | None) -> Iterator[FieldError]:
    if old is not None and old.get("immutable") is True and obj.get("data") != old.get("data"):
        yield forbidden_field("data", "field is immutable when `immutable` is set")


def _revision(obj: Object, old: Object | None) -> Iterator[FieldError]:
    if not isinstance(obj.get("revision"), int):
        yield required_value("revision")
    if old is not None and obj.get("data") != old.get("data"):
        yield invalid_value("data", None, "field is immutable")


def _definition(obj: Object, old: Object | None) -> Iterator[FieldError]:
    spec = obj["spec"]
    names = spec.get("names") or {}
    for name in ("plural", "kind"):
        if not names.get(name):
            yield required_value(f"spec.names.{name}")
    if not spec.get("group"):
        yield required_value("spec.group")
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        yield unsupported_value("spec.scope", spec.get("scope", ""), ["Cluster", "Namespaced"])
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if obj["metadata"].get("name") != wanted:
        yield invalid_value("metadata.name", obj["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group')
    versions = spec.get("versions") or []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield invalid_value(
            "spec.versions",
            [v.get("name") for v in versions],
            "must have exactly one version marked as storage version",
        )
    for position, version in enumerate(versions):
        if not (version.get("schema") or {}).get("openAPIV3Schema"):
            yield required_value(f"spec.versions[{position}].schema.openAPIV3Schema", "schemas are required")


_KINDS: dict[tuple[str, str], Rule] = {
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "ConfigMap"): _immutable_data,
    ("", "Secret"): _immutable_data,
    ("apps", "Deployment"): _workload,
    ("apps", "ReplicaSet"): _workload,
    ("apps", "ControllerRevision"): _revision,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
}
