"""ServingRuntime and ClusterServingRuntime `serving.kserve.io/v1alpha1`: containers that can serve models of some formats."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fairlead.api import names
from fairlead.api.base import ApiObject, ApiType, Count, Open, OpenList
from fairlead.api.pod import Container, Containers


class SupportedModelFormat(ApiType):
    name: Annotated[str, Field(min_length=1)]
    version: str | None = None
    auto_select: bool | None = Field(
        None, description="Whether the runtime may be chosen for models that name no runtime."
    )
    priority: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Of several that may be chosen, the highest is."
    )


class RuntimePodFields(ApiType):
    """The part of a PodSpec that a runtime may give, and labels and annotations for its pods."""

    containers: Annotated[Containers, Field(min_length=1)]
    volumes: OpenList | None = None
    node_selector: dict[str, str] | None = None
    affinity: Open | None = None
    tolerations: OpenList | None = None
    image_pull_secrets: OpenList | None = None
    host_ipc: bool | None = Field(None, alias="hostIPC")
    scheduler_name: str | None = None
    resource_claims: OpenList | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def pod_fields(self) -> Open:
        """The PodSpec fields as given: neither labels nor annotations."""
        fields = self.to_dict(only=RuntimePodFields)
        return {key: value for key, value in fields.items() if key not in ("labels", "annotations")}


class RuntimeWorkerSpec(RuntimePodFields):
    pipeline_parallel_size: Count | None = None
    tensor_parallel_size: Count | None = None


class BuiltInAdapter(ApiType):
    server_type: str | None = None
    runtime_management_port: int | None = None
    mem_buffer_bytes: int | None = None
    model_loading_timeout_millis: int | None = None
    env: OpenList | None = None


class StorageHelper(ApiType):
    disabled: bool | None = None


class ServingRuntimeSpec(RuntimePodFields):
    supported_model_formats: list[SupportedModelFormat] | None = None
    protocol_versions: list[str] | None = Field(None, description="v1, v2, grpc-v1, grpc-v2; any if not set.")
    disabled: bool | None = None
    multi_model: bool | None = None
    worker_spec: RuntimeWorkerSpec | None = None
    # ModelMesh's; accepted, so that existing runtimes apply.
    grpc_endpoint: str | None = None
    grpc_data_endpoint: str | None = None
    http_data_endpoint: str | None = None
    replicas: Count | None = None
    storage_helper: StorageHelper | None = None
    built_in_adapter: BuiltInAdapter | None = None

    def speaks(self, protocol: str) -> bool:
        """Whether the runtime serves `protocol`; one that names none serves any."""
        return not self.protocol_versions or protocol in self.protocol_versions

    def main_container(self) -> Container:
        """The container that serves the model: `kserve-container`, else the first."""
        return next((c for c in self.containers if c.name == names.PREDICTOR_CONTAINER), self.containers[0])


class _Runtime(ApiObject):
    api_version: Literal["serving.kserve.io/v1alpha1"] = "serving.kserve.io/v1alpha1"
    spec: ServingRuntimeSpec
    status: Open | None = None


class ServingRuntime(_Runtime):
    """Serves models of its namespace."""

    kind: Literal["ServingRuntime"] = "ServingRuntime"


class ClusterServingRuntime(_Runtime):
    """Serves models of every namespace."""

    kind: Literal["ClusterServingRuntime"] = "ClusterServingRuntime"
