"""What predictor, transformer and explainer have in common: a pod, its scaling, its traffic, its extras."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fairlead.api import names
from fairlead.api.addresses import is_http
from fairlead.api.base import ApiType, Count, Open, OpenList, Percent, Rule
from fairlead.api.pod import Container, PodFields
from fairlead.api.quantity import parse_quantity

DEFAULT_MIN_REPLICAS = 1
DEFAULT_TIMEOUT_SECONDS = 60
DEFAULT_MAX_BATCH_SIZE = 32
"""Of a `batcher` that does not say; KServe's."""
DEFAULT_RESOURCES = {"cpu": "1", "memory": "2Gi"}


class StorageUri(ApiType):
    """One of several places to fetch from, and where it is put."""

    uri: Annotated[str, Field(min_length=1)]
    mount_path: Annotated[str, Field(pattern="^/", max_length=255)] = names.MODEL_DIR


class StorageSpec(ApiType):
    """A model addressed through the entry `key` of the Secret `storage-config`."""

    path: str | None = None
    key: str | None = None
    parameters: dict[str, str] | None = None
    schema_path: str | None = None


class LoggerStorageSpec(StorageSpec):
    service_account_name: str | None = None


class Logger(ApiType):
    """Sends requests and responses as CloudEvents to `url`."""

    url: str | None = None
    mode: Literal["all", "request", "response"] | None = None
    metadata_headers: list[str] | None = None
    metadata_annotations: list[str] | None = None
    storage: LoggerStorageSpec | None = None
    marshaller_url: str | None = None
    batch_size: int | None = None
    batch_interval: str | None = None

    def reachable(self) -> bool:
        """Whether `url` is one that events can be sent to."""
        return is_http(self.url or "")


class Batcher(ApiType):
    """Requests that wait are predicted together, at most `maxBatchSize` rows at a time; none waits `maxLatency` ms for others."""

    max_batch_size: Count | None = None
    max_latency: Count | None = None
    timeout: Count | None = None

    def effective_max_batch_size(self) -> int:
        """Rows."""
        return self.max_batch_size or DEFAULT_MAX_BATCH_SIZE


class AutoScaling(ApiType):
    """Metrics and behaviour as KServe hands them to an HPA, and settings of KEDA."""

    metrics: OpenList | None = None
    behavior: Open | None = None
    keda: Open | None = None


def _replicas_in_order(component: ComponentFields) -> bool:
    if component.max_replicas in (None, 0) or component.min_replicas is None:
        return True
    return component.min_replicas <= component.max_replicas


class ComponentFields(PodFields):
    """KServe's ComponentExtensionSpec and the inlined PodSpec."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.minReplicas) || !has(self.maxReplicas) || self.maxReplicas == 0 || self.minReplicas <= self.maxReplicas",
            "minReplicas must not be greater than maxReplicas (0 means no limit)",
            _replicas_in_order,
        ),
    )

    min_replicas: Count | None = Field(None, description="Fewest pods; 1 if not set, 0 scales to zero.")
    max_replicas: Count | None = Field(None, description="Most pods; 0 means no limit.")
    scale_target: Count | None = Field(None, description="Value of scaleMetric that one pod should carry.")
    scale_metric: Literal["cpu", "memory", "concurrency", "rps"] | None = None
    scale_metric_type: Literal["Utilization", "AverageValue", "Value"] | None = None
    auto_scaling: AutoScaling | None = None
    container_concurrency: Count | None = Field(
        None, description="Requests that one pod may be given at a time; more wait. 0 means no limit."
    )
    timeout: Count | None = Field(None, description="Seconds until a request without an answer fails; 60 if not set.")
    canary_traffic_percent: Percent | None = Field(
        None, description="Percentage of the traffic for the latest revision; the rest goes to the last one rolled out."
    )
    logger: Logger | None = None
    batcher: Batcher | None = None
    labels: dict[str, str] | None = Field(None, description="Labels for the Deployment and its pods.")
    annotations: dict[str, str] | None = Field(None, description="Annotations for the Deployment and its pods.")
    deployment_strategy: Open | None = None

    def effective_min_replicas(self) -> int:
        return DEFAULT_MIN_REPLICAS if self.min_replicas is None else self.min_replicas

    def effective_timeout(self) -> int:
        """Seconds."""
        return self.timeout or DEFAULT_TIMEOUT_SECONDS

    def main_container(self, name: str = names.PREDICTOR_CONTAINER) -> Container | None:
        """The container that answers requests: the one called `name`, else the first."""
        containers = self.containers or []
        return next((c for c in containers if c.name == name), containers[0] if containers else None)


def with_default_resources(resources: Open | None) -> Open:
    """Requests and limits of 1 CPU and 2Gi where none are given, as KServe does it.

    A default never puts a request above its limit, which Kubernetes would refuse: a given limit of 500m makes the request 500m,
    a given request of 4 makes the limit 4.
    """
    given: dict[str, Any] = dict(resources or {})
    requests, limits = dict(given.get("requests") or {}), dict(given.get("limits") or {})
    for what, default in DEFAULT_RESOURCES.items():
        request, limit = requests.get(what, default), limits.get(what, default)
        requests.setdefault(what, min(request, limit, key=parse_quantity))
        limits.setdefault(what, max(request, limit, key=parse_quantity))
    return {**given, "requests": requests, "limits": limits}
