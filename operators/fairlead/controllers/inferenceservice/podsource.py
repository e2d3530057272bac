"""What one component's pods are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fairlead.api.component import ComponentFields
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.predictor import ModelSpec, Predictor
from fairlead.api.storagecontainer import ClusterStorageContainer
from fairlead.controllers.inferenceservice.credentials import CredentialConfig, Credentials
from fairlead.controllers.inferenceservice.runtimes import Runtime


@dataclass(frozen=True)
class Surroundings:
    """What there is outside of an InferenceService that says how its models are fetched."""

    accounts: Mapping[str, Credentials] = field(default_factory=dict)
    """By ServiceAccount, those that the components name."""
    pull_secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By ServiceAccount: Secrets with registries' credentials."""
    containers: Sequence[ClusterStorageContainer] = ()
    config: CredentialConfig = field(default_factory=CredentialConfig)


@dataclass(frozen=True)
class PodSource:
    """What one component's, or one canary's, pods are made from."""

    isvc: InferenceService
    kind: str
    """`predictor`, `transformer` or `explainer`."""
    fields: ComponentFields
    runtime: Runtime | None = None
    allow_pickle: bool = False
    surroundings: Surroundings = field(default_factory=Surroundings)

    @property
    def model(self) -> ModelSpec | None:
        return self.fields.implementation() if isinstance(self.fields, Predictor) else None
