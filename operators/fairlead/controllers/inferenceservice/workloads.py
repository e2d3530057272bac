"""The objects of a workload: a Deployment that carries one revision, its Service, its HPA, and the ControllerRevisions behind them.

A Deployment's `replicas` is never among the fields applied here. Whoever scales owns it: an HPA, `kubectl scale`, or `scaling.replicas`.
"""

from __future__ import annotations

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.controllers.inferenceservice.multinode import head_labels, head_pod, pods_selector
from fairlead.controllers.inferenceservice.pods import annotations_of, labels_of
from fairlead.controllers.inferenceservice.revisions import Revision
from fairlead.controllers.inferenceservice.scaling import HpaTarget, activation_timeout
from fairlead.controllers.inferenceservice.workload import Workload, child_labels, child_metadata
from fairlead.kube.objects import Object

ROLLING: Open = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}
"""No pod leaves before its successor is ready."""


def controller_revision(owner: Object, kind: str, revision: Revision, content: Open) -> Object:
    """The stored revision; `content` has the pod template, and what the status says of its runtime."""
    labels = {
        **child_labels(owner["metadata"]["name"], kind),
        names.LABEL_REVISION: revision.name,
        names.LABEL_WORKLOAD: revision.workload,
        names.LABEL_DIGEST: revision.digest,
    }
    return {"metadata": child_metadata(owner, revision.name, labels, {}), "revision": revision.number, "data": content}


def deployment(workload: Workload) -> Object:
    isvc, fields, template = workload.isvc.metadata, workload.fields, workload.template
    pod = template["metadata"]
    identity = {**workload.labels, **workload.selector, names.LABEL_REVISION: workload.revision.name}
    annotations = {
        **annotations_of(isvc, fields),
        names.MIN_REPLICAS: str(workload.least),
    }
    if workload.scaled_by_keda:
        annotations[names.SCALED_OBJECT] = "true"
    if workload.least == 0 and workload.proven:
        annotations[names.PROVEN] = workload.proven
    return {
        "metadata": workload.metadata({**labels_of(isvc, fields), **identity}, annotations),
        "spec": {
            "selector": {"matchLabels": workload.selector},
            "strategy": fields.deployment_strategy or ROLLING,
            "revisionHistoryLimit": 2,
            "template": {
                "metadata": {
                    "labels": {**pod["labels"], **identity, **head_labels(workload.group)},
                    "annotations": pod["annotations"],
                },
                "spec": head_pod(workload),
            },
        },
    }


def service(workload: Workload) -> Object:
    """The Service by which the gateway finds the workload's pods."""
    annotations = {
        names.TIMEOUT: str(workload.fields.effective_timeout()),
        names.CONTAINER_CONCURRENCY: str(workload.fields.container_concurrency or 0),
    }
    if workload.least == 0:
        annotations[names.ACTIVATION_TIMEOUT] = f"{activation_timeout(workload.isvc):g}"
    if check := readiness_check(workload.template["spec"]):
        annotations[names.READINESS] = check
    return {
        "metadata": workload.metadata(workload.labels, annotations),
        "spec": {"selector": pods_selector(workload), "ports": service_ports(workload.template["spec"])},
    }


def address_service(name: str, workload: Workload) -> Object:
    """The in-cluster address `{isvc}-{component}` once no workload has that name: it leads to the rolled-out one's pods.

    It has no workload label, so it is nothing to the gateway.
    """
    labels = child_labels(workload.isvc.metadata.name, workload.kind)
    return {
        "metadata": child_metadata(workload.owner, name, labels, {}),
        "spec": {"selector": pods_selector(workload), "ports": service_ports(workload.template["spec"])},
    }


def horizontal_pod_autoscaler(workload: Workload, target: HpaTarget) -> Object:
    return {
        "metadata": workload.metadata(workload.labels, {}),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name},
            "minReplicas": target.min_replicas,
            "maxReplicas": target.max_replicas,
            "metrics": list(target.metrics),
            **({"behavior": target.behavior} if target.behavior else {}),
        },
    }


def service_ports(pod: Open) -> list[Open]:
    """The first container port as 80; a gRPC port also, or else, by its own number and marked as HTTP/2."""
    container = _facing_container(pod)
    ports = []
    for position, port in enumerate(container["ports"]):
        number = port["containerPort"]
        given = port.get("name", "")
        name = given or ("http" if position == 0 else f"port-{number}")
        entry: Open = {
            "name": name,
            "port": names.SERVICE_PORT if position == 0 else number,
            "targetPort": number,
            "protocol": port.get("protocol", "TCP"),
        }
        if given.startswith(("h2c", "grpc")):
            entry["appProtocol"] = names.H2C_APP_PROTOCOL
        elif position == 0:
            entry["name"] = "http"
        ports.append(entry)
    return ports


def readiness_check(pod: Open) -> str:
    """What the gateway may ask a pod by itself, as the annotation has it; empty if it cannot."""
    container = _facing_container(pod)
    probe = container.get("readinessProbe", {})
    http, tcp = probe.get("httpGet"), probe.get("tcpSocket")
    if not http and not tcp:
        return ""
    if http and (http.get("scheme", "HTTP") != "HTTP" or http.get("host") or http.get("httpHeaders")):
        return ""
    named = {port.get("name"): port["containerPort"] for port in container["ports"]}
    port = (http or tcp)["port"]
    number = named.get(port, port)
    if not str(number).isdecimal():
        return ""
    return f"{number}/{http.get('path', '/').lstrip('/')}" if http else f"{number}"


def serves_grpc(pod: Open) -> bool:
    return any(port.get("appProtocol") == names.H2C_APP_PROTOCOL for port in service_ports(pod))


def _facing_container(pod: Open) -> Open:
    """The container that requests reach: a transformer beside the model, if it has ports, stands before it."""
    containers: list[Open] = pod["containers"]
    return next((c for c in containers if c["name"] == names.TRANSFORMER_CONTAINER and c.get("ports")), containers[0])
