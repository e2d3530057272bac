"""A container's environment variables: literals, references, `$(NAME)`, and what the node adds."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.api.quantity import parse_quantity
from fairlead.kube.objects import Object
from fairlead.local.node import objects

REFERENCE = re.compile(r"\$(\$|\(([^)\s]+)\))")
SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
RESOURCE = re.compile(r"(limits|requests)\.(cpu|memory|ephemeral-storage)")


class ContainerConfigError(Exception):
    """The container cannot be started as the manifest has it: a ConfigMap, Secret or key that is missing, a reference to nothing."""


@dataclass(frozen=True)
class Sources:
    """The ConfigMaps and Secrets of the pod's namespace that it refers to, by name; one that does not exist is not in it."""

    config_maps: Mapping[str, Object] = field(default_factory=dict)
    secrets: Mapping[str, Object] = field(default_factory=dict)

    def config_map(self, name: str) -> dict[str, bytes] | None:
        obj = self.config_maps.get(name)
        if obj is None:
            return None
        binary = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
        return {**binary, **{key: value.encode() for key, value in (obj.get("data") or {}).items()}}

    def secret(self, name: str) -> dict[str, bytes] | None:
        obj = self.secrets.get(name)
        if obj is None:
            return None
        plain = {key: value.encode() for key, value in (obj.get("stringData") or {}).items()}
        return {**{key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}, **plain}


def environment(pod: Object, container: Mapping[str, Any], sources: Sources, ip: str, node: str) -> dict[str, str]:
    """The variables that the manifest asks for, in its order; raises ContainerConfigError.

    `HOST` and `PORT` tell a server where to listen: every pod has an address of its own and nothing else may take it.
    """
    values: dict[str, str] = {
        "HOST": ip,
        "POD_IP": ip,
        "POD_NAME": objects.name(pod),
        "POD_NAMESPACE": objects.namespace(pod),
        "HOSTNAME": objects.name(pod),
    }
    ports = container.get("ports") or ()
    if ports:
        values["PORT"] = str(ports[0]["containerPort"])
    for source in container.get("envFrom") or ():
        values.update(_all_of(source, sources, container["name"]))
    for variable in container.get("env") or ():
        if "valueFrom" in variable:
            value = _from(variable, pod, container, sources, ip, node)
            if value is not None:
                values[variable["name"]] = value
        else:
            values[variable["name"]] = expand(str(variable.get("value", "")), values)
    return values


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, `$$` a dollar; a name that is not known stays as it is."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else values.get(match[2], match[0])

    return REFERENCE.sub(replacement, text)


def _all_of(source: Mapping[str, Any], sources: Sources, container: str) -> dict[str, str]:
    reference = source.get("configMapRef") or source.get("secretRef") or {}
    kind = "ConfigMap" if "configMapRef" in source else "Secret"
    found = sources.config_map(reference["name"]) if kind == "ConfigMap" else sources.secret(reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ContainerConfigError(f'{kind} "{reference["name"]}" not found (envFrom of container {container})')
    return {source.get("prefix", "") + key: value.decode(errors="replace") for key, value in found.items()}


def _from(
    variable: Mapping[str, Any], pod: Object, container: Mapping[str, Any], sources: Sources, ip: str, node: str
) -> str | None:
    source = variable["valueFrom"]
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"], ip, node)
    if "resourceFieldRef" in source:
        return resource_value(container, source["resourceFieldRef"])
    for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if key in source:
            reference = source[key]
            found = sources.config_map(reference["name"]) if kind == "ConfigMap" else sources.secret(reference["name"])
            if found is not None and reference["key"] in found:
                return found[reference["key"]].decode(errors="replace")
            if reference.get("optional"):
                return None
            what = f'{kind} "{reference["name"]}" not found'
            if found is not None:
                what = f'{kind} "{reference["name"]}" has no key "{reference["key"]}"'
            raise ContainerConfigError(f"{what} (env {variable['name']} of container {container['name']})")
    raise ContainerConfigError(
        f"env {variable['name']} of container {container['name']}: valueFrom names no known source"
    )


def field_value(pod: Object, path: str, ip: str, node: str) -> str:
    """The downward API's fields of a pod."""
    metadata, spec = pod["metadata"], pod["spec"]
    subscript = SUBSCRIPT.fullmatch(path)
    if subscript:
        return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": objects.namespace(pod),
        "metadata.uid": objects.uid(pod),
        "spec.nodeName": node,
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": ip,
        "status.podIPs": ip,
        "status.hostIP": "127.0.0.1",
        "status.hostIPs": "127.0.0.1",
    }
    if path not in known:
        raise ContainerConfigError(f"fieldRef {path} is not a field that a container can be given")
    return str(known[path])


def resource_value(container: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """A limit or request in units of `divisor`, rounded up; 0 where the container has none."""
    match = RESOURCE.fullmatch(reference["resource"])
    if match is None:
        raise ContainerConfigError(
            f"resourceFieldRef {reference['resource']} is not a resource that a container can be given"
        )
    resources = container.get("resources") or {}
    quantity = (resources.get(match[1]) or {}).get(match[2], "0")
    divisor = parse_quantity(str(reference.get("divisor") or "1"))
    return str(math.ceil(parse_quantity(str(quantity)) / (divisor or 1)))
