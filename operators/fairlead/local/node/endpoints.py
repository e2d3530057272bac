"""Which pods a Service's traffic may go to: Service + Pods -> its EndpointSlice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from fairlead.kube.objects import Object
from fairlead.local.node import objects
from fairlead.local.node.rolling_update import SAFE_ALPHABET

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.fairlead.dev"


def endpoint_slice(service: Object, pods: Iterable[Object], node: str) -> Object | None:
    """The slice of a Service with a selector (None without one). One is enough for a laptop; Kubernetes splits at 100 endpoints.

    Pods without an address are left out. A pod on its way out keeps its place, not ready, for as long as it may still be serving.
    A named target port is the first pod's port of that name; a Service whose pods disagree on it needs several slices, which is refused
    nowhere and wanted by no one here.
    """
    selector = service["spec"].get("selector")
    if not selector:
        return None
    chosen = [
        pod
        for pod in pods
        if objects.selects(selector, objects.labels(pod))
        and (pod.get("status") or {}).get("podIP")
        and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]
    chosen.sort(key=objects.name)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(objects.name(service)),
            "namespace": objects.namespace(service),
            "labels": {**objects.labels(service), SERVICE_NAME: objects.name(service), MANAGED_BY: MANAGER},
            "ownerReferences": [objects.owner_reference(service, "v1", "Service")],
        },
        "addressType": "IPv4",
        "endpoints": [_endpoint(service, pod, node) for pod in chosen],
        "ports": _ports(service, chosen),
    }


def slice_name(service: str) -> str:
    number = int.from_bytes(hashlib.sha256(service.encode()).digest()[:4])
    return service + "-" + "".join(SAFE_ALPHABET[(number // 27**digit) % 27] for digit in range(5))


def _endpoint(service: Object, pod: Object, node: str) -> Object:
    serving = objects.is_ready(pod)
    terminating = objects.is_terminating(pod)
    even_unready = bool(service["spec"].get("publishNotReadyAddresses"))
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": even_unready or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "nodeName": node,
        "targetRef": {
            "kind": "Pod",
            "namespace": objects.namespace(pod),
            "name": objects.name(pod),
            "uid": objects.uid(pod),
        },
    }


def _ports(service: Object, pods: list[Object]) -> list[Object]:
    ports = []
    for port in service["spec"].get("ports") or ():
        number = _number(port, pods)
        if number is None:
            continue
        entry = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
        if "appProtocol" in port:
            entry["appProtocol"] = port["appProtocol"]
        ports.append(entry)
    return ports


def _number(port: Object, pods: list[Object]) -> int | None:
    target: Any = port.get("targetPort", port["port"])
    if str(target).isdigit():
        return int(target)
    for pod in pods:
        for container in pod["spec"]["containers"]:
            for container_port in container.get("ports") or ():
                if container_port.get("name") == target:
                    return int(container_port["containerPort"])
    return None
