"""The tiny server (tiny/server.py) as pods: plain, behind a NodePort Service, and as an InferenceService."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

IMAGE = "fairlead/tiny:bench"
HTTP_PATH = "/v1/models/tiny:predict"
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
BODY = b'{"instances":[[5.1,3.5,1.4,0.2]]}'


def pod(load_seconds: float = 0, work_seconds: float = 0) -> Object:
    container: Object = {
        "name": "kserve-container",
        "image": IMAGE,
        "env": [
            {"name": "LOAD_SECONDS", "value": f"{load_seconds:g}"},
            {"name": "WORK_SECONDS", "value": f"{work_seconds:g}"},
        ],
        "ports": [{"containerPort": 8080}, {"name": "h2c", "containerPort": 8081}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "2", "memory": "256Mi"}},
    }
    return {"containers": [container]}


def ends_at_once(spec: Object) -> Object:
    """The pod without the seconds in which it would still take requests: a benchmark need not wait long for zero."""
    [container] = spec["containers"]
    lifecycle = {"preStop": {"sleep": {"seconds": 1}}}
    return {**spec, "containers": [{**container, "lifecycle": lifecycle}], "terminationGracePeriodSeconds": 2}


def inference_service(
    name: str,
    *,
    load_seconds: float = 0,
    work_seconds: float = 0,
    annotations: dict[str, str] | None = None,
    brief: bool = False,
    **predictor: Any,
) -> Object:
    """`brief`: its pods end at once."""
    spec = pod(load_seconds, work_seconds)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"predictor": {**(ends_at_once(spec) if brief else spec), **predictor}},
    }


def plain(node_port: int, deployments: dict[str, float]) -> list[Object]:
    """Deployments at zero, by name with the seconds that each loads, and one Service for whichever is up; written as one would by hand."""
    common = {"plain": "yes"}
    found: list[Object] = []
    for name, load_seconds in deployments.items():
        labels = {**common, "app": name}
        template = {"metadata": {"labels": labels}, "spec": ends_at_once(pod(load_seconds))}
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        metadata = {"name": name, "labels": labels}
        found.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    port = {"port": 80, "targetPort": 8080, "nodePort": node_port}
    spec = {"type": "NodePort", "selector": common, "ports": [port]}
    metadata = {"name": "plain", "labels": common}
    return [*found, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}]
