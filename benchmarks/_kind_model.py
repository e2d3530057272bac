"""The model of the benchmarks on kind, plain and as an InferenceService: an HAProxy that answers by itself.

It is ready at once and the fastest server at hand, so that what is measured is the way to it.
"""

from __future__ import annotations

from _kind import PLAIN_PORT, Kind, Object

from fairlead.api import names

NAMESPACE = "default"
BODY = b'{"instances":[[5.1,3.5,1.4,0.2]]}'
PREDICT = "/v1/models/fast:predict"
THROUGH = names.path("fast", NAMESPACE)
"""The prefix by which the gateway serves it."""
PODS = {"plain": "app=plain", "fast": f"{names.LABEL_INFERENCE_SERVICE}=fast"}

_PROGRAM = """
defaults
    mode http
    timeout client 60s
    timeout http-keep-alive 60s
frontend model
    bind :8080
    http-request return status 200 content-type application/json string '{"predictions":[ANSWER]}'
"""


def answer(number: int) -> bytes:
    """What version `number` of the model answers."""
    return b'{"predictions":[%d]}' % number


def versions(namespace: str = NAMESPACE) -> list[Object]:
    """The ConfigMaps that the pods of the versions 1 and 2 mount."""
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"answer-{number}", "namespace": namespace},
            "data": {"haproxy.cfg": _PROGRAM.replace("ANSWER", str(number))},
        }
        for number in (1, 2)
    ]


def pod(kind: Kind, version: int = 1) -> Object:
    container = {
        "name": names.PREDICTOR_CONTAINER,
        "image": kind.images[1],
        "command": ["haproxy", "-f", "/etc/answer/haproxy.cfg"],
        "ports": [{"containerPort": 8080}],
        # On a busy machine an answer may take its time: that is not what is measured.
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10},
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"cpu": "2", "memory": "256Mi"}},
        "volumeMounts": [{"name": "answer", "mountPath": "/etc/answer"}],
    }
    return {"containers": [container], "volumes": [{"name": "answer", "configMap": {"name": f"answer-{version}"}}]}


def plain(kind: Kind, replicas: int = 1) -> list[Object]:
    labels = {"app": "plain"}
    template = {"metadata": {"labels": labels}, "spec": pod(kind)}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    port = {"port": 80, "targetPort": 8080, "nodePort": PLAIN_PORT}
    way = {"type": "NodePort", "selector": labels, "ports": [port]}
    metadata = {"name": "plain", "namespace": NAMESPACE}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": way},
    ]


def fast(kind: Kind, replicas: int = 1, version: int = 1, percent: int | None = None) -> Object:
    canary = {} if percent is None else {"canaryTrafficPercent": percent}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "fast", "namespace": NAMESPACE},
        "spec": {"predictor": {"minReplicas": replicas, **canary, **pod(kind, version)}},
    }
