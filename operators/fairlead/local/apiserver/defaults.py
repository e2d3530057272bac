"""What a real API server fills in for the built-in kinds.

Only absent fields are set, in place. The values are those of Kubernetes' `pkg/apis/*/v1/defaults.go`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from .errors import bad_request

Object = dict[str, Any]


def apply_defaults(obj: Object, kind: str, group: str) -> None:
    """Fill in a built-in object of that kind."""
    fill = _KINDS.get((group, kind))
    if fill is not None:
        fill(obj)


def _set(target: Object, **values: Any) -> None:
    for name, value in values.items():
        if target.get(name) is None:
            target[name] = value


def _spec(obj: Object) -> Object:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        spec = obj["spec"] = {}
    return spec


def pod_spec(spec: Object) -> None:
    _set(
        spec, dnsPolicy="ClusterFirst", restartPolicy="Always", schedulerName="default-scheduler",
        securityContext={}, terminationGracePeriodSeconds=30,
    )  # fmt: skip
    for name in ("containers", "initContainers"):
        for container in spec.get(name) or ():
            _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _container(container: Object) -> None:
    image = container.get("image", "")
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    latest = "@" not in image and tag in ("", "latest")
    _set(
        container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File",
        imagePullPolicy="Always" if latest else "IfNotPresent", resources={},
    )  # fmt: skip
    resources = container["resources"]
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    for port in container.get("ports") or ():
        _set(port, protocol="TCP")
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference:
            _set(reference, apiVersion="v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name):
            _probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and hook.get("httpGet"):
            _set(hook["httpGet"], path="/", scheme="HTTP")


def _probe(probe: Object) -> None:
    _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if probe.get("httpGet"):
        _set(probe["httpGet"], path="/", scheme="HTTP")
    if probe.get("grpc"):
        _set(probe["grpc"], service="")


def _volume(volume: Object) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for source in ("secret", "configMap", "downwardAPI", "projected"):
        if volume.get(source) is not None:
            _set(volume[source], defaultMode=0o644)
    if volume.get("hostPath"):
        _set(volume["hostPath"], type="")


def _pod(pod: Object) -> None:
    pod_spec(_spec(pod))
    _set(pod["spec"], enableServiceLinks=True)
    _set(pod, status={})
    _set(pod["status"], phase="Pending", qosClass=_quality(pod["spec"]))


def _quality(spec: Object) -> str:
    """The quality-of-service class: Guaranteed if all limits are set and equal the requests."""
    every = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    resources = [c.get("resources") or {} for c in every]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    wanted = {"cpu", "memory"}
    exact = all(wanted <= set(r.get("limits") or {}) and r.get("requests") == r["limits"] for r in resources)
    return "Guaranteed" if exact else "Burstable"


def _template(spec: Object) -> None:
    template = spec.get("template")
    if isinstance(template, dict):
        _set(template, metadata={})
        pod_spec(_spec(template))


def _deployment(deployment: Object) -> None:
    spec = _spec(deployment)
    _set(spec, replicas=1, progressDeadlineSeconds=600, revisionHistoryLimit=10, strategy={})
    strategy = spec["strategy"]
    _set(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _set(strategy, rollingUpdate={})
        _set(strategy["rollingUpdate"], maxSurge="25%", maxUnavailable="25%")
    _template(spec)
    _set(deployment, status={})


def _replicaset(replicaset: Object) -> None:
    _set(_spec(replicaset), replicas=1)
    _template(replicaset["spec"])
    _set(replicaset, status={})
    _set(replicaset["status"], replicas=0)


def _service(service: Object) -> None:
    spec = _spec(service)
    _set(spec, type="ClusterIP", sessionAffinity="None")
    for port in spec.get("ports") or ():
        _set(port, protocol="TCP", targetPort=port.get("port"))
    if spec["type"] != "ExternalName":
        _set(spec, internalTrafficPolicy="Cluster", ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    if spec.get("clusterIP"):
        _set(spec, clusterIPs=[spec["clusterIP"]])
    _set(service, status={})
    _set(service["status"], loadBalancer={})


def _secret(secret: Object) -> None:
    _set(secret, type="Opaque")
    plain = secret.pop("stringData", None) or {}
    if plain:
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}
    for name, value in (secret.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            raise bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in field "data.{name}"; '
                "plain text belongs into stringData"
            ) from None


def _namespace(namespace: Object) -> None:
    _set(_spec(namespace), finalizers=["kubernetes"])
    _set(namespace, status={})
    _set(namespace["status"], phase="Active")
    labels = namespace["metadata"].setdefault("labels", {})
    _set(labels, **{"kubernetes.io/metadata.name": namespace["metadata"]["name"]})


def _autoscaler(hpa: Object) -> None:
    spec = _spec(hpa)
    _set(spec, minReplicas=1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def _claim(claim: Object) -> None:
    _set(_spec(claim), volumeMode="Filesystem")
    _set(claim, status={})
    _set(claim["status"], phase="Pending")


def _endpoint_slice(slice_: Object) -> None:
    for port in slice_.get("ports") or ():
        _set(port, name="", protocol="TCP")
    _set(slice_, endpoints=[], ports=[])


def _role_reference(binding: Object) -> None:
    for subject in binding.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            _set(subject, apiGroup="rbac.authorization.k8s.io")


def _definition(crd: Object) -> None:
    spec = _spec(crd)
    names = spec.get("names") or {}
    if isinstance(names.get("kind"), str):
        _set(names, singular=names["kind"].lower(), listKind=names["kind"] + "List")
    _set(spec, conversion={"strategy": "None"})


_KINDS: dict[tuple[str, str], Callable[[Object], None]] = {
    ("", "Namespace"): _namespace,
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "Secret"): _secret,
    ("", "PersistentVolumeClaim"): _claim,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replicaset,
    ("discovery.k8s.io", "EndpointSlice"): _endpoint_slice,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("rbac.authorization.k8s.io", "RoleBinding"): _role_reference,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _role_reference,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
}
