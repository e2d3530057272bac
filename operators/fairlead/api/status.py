"""The status of an InferenceService. Open: fields that a newer Fairlead writes survive an older reader."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from fairlead.api.base import ApiType, Percent


class StatusType(ApiType):
    model_config = ConfigDict(extra="allow")


class Condition(StatusType):
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str | None = None
    message: str | None = None
    severity: str | None = None
    last_transition_time: str | None = None


class Address(StatusType):
    url: str | None = None
    name: str | None = None
    ca_certs: str | None = Field(None, alias="CACerts")
    audience: str | None = None


class TrafficTarget(StatusType):
    """A revision's share of the component's traffic. `latestRevision` and `percent` are always there: KServe's SDK reads them."""

    revision_name: str | None = None
    latest_revision: bool
    percent: Percent
    tag: str | None = None
    url: str | None = None
    service_name: str | None = Field(None, description="The Service, and Deployment, that carries this share.")
    configuration_name: str | None = None


class ComponentStatus(StatusType):
    latest_ready_revision: str | None = None
    latest_created_revision: str | None = None
    previous_rolledout_revision: str | None = None
    latest_rolledout_revision: str | None = None
    traffic: list[TrafficTarget] | None = None
    url: str | None = None
    rest_url: str | None = None
    grpc_url: str | None = None
    address: Address | None = None


ModelState = Literal["", "Pending", "Standby", "Loading", "Loaded", "FailedToLoad"]


class ModelStates(StatusType):
    active_model_state: ModelState
    target_model_state: ModelState | None = None


class LastFailureInfo(StatusType):
    location: str | None = None
    reason: (
        Literal[
            "ModelLoadFailed",
            "RuntimeUnhealthy",
            "RuntimeDisabled",
            "NoSupportingRuntime",
            "RuntimeNotRecognized",
            "InvalidPredictorSpec",
        ]
        | None
    ) = None
    message: str | None = None
    model_revision_name: str | None = None
    time: str | None = None
    exit_code: int | None = None


class ModelCopies(StatusType):
    failed_copies: int
    total_copies: int | None = None


class ModelStatus(StatusType):
    transition_status: Literal["", "UpToDate", "InProgress", "BlockedByFailedLoad", "InvalidSpec"]
    states: ModelStates | None = None
    last_failure_info: LastFailureInfo | None = None
    copies: ModelCopies | None = None


class CanaryStatus(StatusType):
    name: str
    ready: bool
    traffic_percent: Percent
    model_status: ModelStatus | None = None


class InferenceServiceStatus(StatusType):
    observed_generation: int | None = None
    conditions: list[Condition] | None = None
    url: str | None = None
    address: Address | None = None
    components: dict[str, ComponentStatus] | None = None
    model_status: ModelStatus | None = None
    canary_statuses: list[CanaryStatus] | None = None
    deployment_mode: str | None = None
    serving_runtime_name: str | None = None
    cluster_serving_runtime_name: str | None = None
    annotations: dict[str, str] | None = None
