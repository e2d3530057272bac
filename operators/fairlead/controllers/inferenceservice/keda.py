"""`autoscalerClass: keda`: a ScaledObject with the workload's name, as KServe writes it, where KEDA is installed.

KEDA is not one of Fairlead's parts and its kind may not exist, so no informer watches it. A Deployment that has a ScaledObject says so by an annotation: that is
how one is found that is not wanted any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.inferenceservice import InferenceService
from fairlead.controllers.cluster import holds, is_controlled
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec
from fairlead.controllers.inferenceservice.metrics import DEFAULT_CPU_UTILIZATION, of_type
from fairlead.controllers.inferenceservice.scaling import has_class
from fairlead.controllers.inferenceservice.workload import Workload
from fairlead.kube.errors import Conflict, Forbidden, NotFound
from fairlead.kube.objects import Object
from fairlead.kube.resources import Resource

SCALED_OBJECTS = Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")
ASK_AGAIN = 60.0
"""Seconds for which an answer holds to whether KEDA is there."""
NOT_INSTALLED = (
    f"metadata.annotations[{names.AUTOSCALER_CLASS}]: KEDA is not installed: nothing scales until it is; "
    "without this annotation Fairlead scales by itself"
)
NOT_ALLOWED = (
    f"metadata.annotations[{names.AUTOSCALER_CLASS}]: the operator may not write ScaledObjects: its chart grants that where KEDA is "
    "there when it is installed; run helm upgrade"
)


class Client(Protocol):
    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object: ...
    async def apply(self, resource: Resource, obj: Mapping[str, Any], *, field_manager: str) -> Object: ...
    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, *, uid: str | None = None
    ) -> None: ...
    async def raw(self, path: str) -> Object: ...


class Keda:
    def __init__(self, client: Client, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._installed = False
        self._asked: float | None = None
        self._allowed = True

    async def notes(self, isvc: InferenceService) -> list[str]:
        """What is to be said where KEDA is asked for and cannot be had."""
        if not has_class(isvc, "keda"):
            return []
        if not await self.installed():
            return [NOT_INSTALLED]
        return [] if self._allowed else [NOT_ALLOWED]

    async def installed(self) -> bool:
        if self._asked is None or self._clock() - self._asked >= ASK_AGAIN:
            try:
                await self._client.raw(f"/apis/{SCALED_OBJECTS.group}/{SCALED_OBJECTS.version}")
                self._installed = True
            except NotFound:
                self._installed = False
            self._asked = self._clock()
        return self._installed

    async def apply(self, workloads: Iterable[Workload]) -> None:
        for workload in workloads:
            if workload.scaled_by_keda and await self.installed():
                try:
                    await self._apply(workload)
                    self._allowed = True
                except Forbidden:
                    self._allowed = False

    async def remove(self, owner: Object, deployments: Iterable[Object], wanted: Iterable[Workload]) -> None:
        """Those of Deployments that say they have one and are not to have it any more. Before the Deployments are applied: they forget it then."""
        kept = {workload.name for workload in wanted if workload.scaled_by_keda}
        for deployment in deployments:
            metadata = deployment["metadata"]
            if names.SCALED_OBJECT not in metadata.get("annotations", {}) or metadata["name"] in kept:
                continue
            found = await self._get(metadata["name"], metadata["namespace"])
            if found is None or not is_controlled(found, owner):
                continue
            try:
                uid = found["metadata"]["uid"]
                await self._client.delete(SCALED_OBJECTS, metadata["name"], metadata["namespace"], uid=uid)
            except (NotFound, Conflict):
                continue

    async def _apply(self, workload: Workload) -> None:
        desired = scaled_object(workload)
        current = await self._get(workload.name, desired["metadata"]["namespace"])
        if current is not None and not is_controlled(current, workload.owner):
            raise InvalidPredictorSpec(
                f"ScaledObject {workload.name} exists already and is not this InferenceService's: delete it"
            )
        if current is None or not holds(current, desired):
            await self._client.apply(SCALED_OBJECTS, desired, field_manager=names.OPERATOR)

    async def _get(self, name: str, namespace: str) -> Object | None:
        try:
            return await self._client.get(SCALED_OBJECTS, name, namespace)
        except NotFound:
            return None


def scaled_object(workload: Workload) -> Object:
    """minReplicas may be 0: then it is KEDA's triggers that wake the model, not requests that wait for it."""
    fields = workload.fields
    least = fields.effective_min_replicas()
    own = (fields.auto_scaling.keda if fields.auto_scaling else None) or {}
    spec: Open = {
        **own,  # pollingInterval, cooldownPeriod, fallback, …
        "scaleTargetRef": {"name": workload.name},
        "minReplicaCount": least,
        "maxReplicaCount": max(least, 1, fields.max_replicas or 0),
        "triggers": triggers(workload),
    }
    behavior = fields.auto_scaling.behavior if fields.auto_scaling else None
    if behavior:
        spec["advanced"] = {"horizontalPodAutoscalerConfig": {"behavior": behavior}}
    return {
        "apiVersion": SCALED_OBJECTS.api_version,
        "kind": SCALED_OBJECTS.kind,
        "metadata": workload.metadata(workload.labels, {}),
        "spec": spec,
    }


def triggers(workload: Workload) -> list[Open]:
    """One for each metric; without any, cpu at 80 % of its request."""
    fields = workload.fields
    found = [_resource(metric["resource"]) for metric in of_type(fields, "Resource") if metric.get("resource")]
    found += [_external(metric["external"]) for metric in of_type(fields, "External") if metric.get("external")]
    found += [_pod(metric["podmetric"], workload) for metric in of_type(fields, "PodMetric") if metric.get("podmetric")]
    return found or [_resource({"name": fields.scale_metric or "cpu", "target": {}}, fields.scale_target)]


def _resource(resource: Mapping[str, Any], utilization: int | None = None) -> Open:
    target = resource.get("target") or {}
    kind = target.get("type", "Utilization")
    default = utilization or DEFAULT_CPU_UTILIZATION
    value = target.get("averageUtilization", default) if kind == "Utilization" else target.get("averageValue")
    return {"type": resource.get("name", "cpu"), "metricType": kind, "metadata": {"value": str(value)}}


def _external(external: Mapping[str, Any]) -> Open:
    metric, target = external.get("metric") or {}, external.get("target") or {}
    metadata = {
        "serverAddress": metric.get("serverAddress", ""),
        "query": metric.get("query", ""),
        "threshold": str(target.get("value", target.get("averageValue", ""))),
    }
    if metric.get("namespace") and metric.get("backend") == "prometheus":
        metadata["namespace"] = metric["namespace"]
    authentication = external.get("authenticationRef") or {}
    if authentication.get("authModes"):
        metadata["authModes"] = authentication["authModes"]
    trigger: Open = {"type": metric.get("backend", "prometheus"), "metadata": metadata}
    if name := (authentication.get("authenticationRef") or {}).get("name"):
        trigger["authenticationRef"] = {"name": name}
    return trigger


def _pod(podmetric: Mapping[str, Any], workload: Workload) -> Open:
    """KEDA's OpenTelemetry scaler, as KServe asks it."""
    metric, target = podmetric.get("metric") or {}, podmetric.get("target") or {}
    name = metric.get("query") or next(iter(metric.get("metricNames") or ()), "")
    namespace = workload.owner["metadata"]["namespace"]
    metadata = {
        "metricQuery": f'sum({name}{{namespace="{namespace}", deployment="{workload.name}"}})',
        "targetValue": str(target.get("value", target.get("averageValue", ""))),
        "scalerAddress": metric.get("serverAddress") or "keda-otel-scaler.keda.svc:4318",
    }
    if operation := metric.get("operationOverTime"):
        metadata["operationOverTime"] = operation
    return {"type": "external", "metadata": metadata}
