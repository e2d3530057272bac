"""InferenceService `serving.kserve.io/v1beta1`: a model, how it is served, and its canaries."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fairlead.api import names
from fairlead.api.base import ApiObject, ApiType, Open, Percent, Rule
from fairlead.api.component import ComponentFields, StorageUri
from fairlead.api.pod import ContainerFields
from fairlead.api.predictor import CanaryPredictor, Predictor
from fairlead.api.status import InferenceServiceStatus

MAX_CANARIES = 10


class Transformer(ComponentFields):
    """Containers that stand before the predictor, for pre- and postprocessing."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.containers) && self.containers.size() >= 1",
            "no implementation: a transformer needs containers",
            lambda transformer: bool(transformer.containers),
        ),
    )

    storage_uris: Annotated[list[StorageUri], Field(min_length=1)] | None = None


class ArtExplainer(ContainerFields):
    """KServe's Adversarial Robustness Toolbox explainer."""

    type: str | None = None
    storage_uri: str | None = None
    storage: Open | None = None
    runtime_version: str | None = None
    config: dict[str, str] | None = None


class Explainer(ComponentFields):
    """Containers that answer `:explain`."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.art) != (has(self.containers) && self.containers.size() >= 1)",
            "an explainer is one of art or containers",
            lambda explainer: (explainer.art is not None) != bool(explainer.containers),
        ),
    )

    art: ArtExplainer | None = None
    storage_uris: Annotated[list[StorageUri], Field(min_length=1)] | None = None


class Canary(ApiType):
    """Another predictor beside the stable one, with its share of the traffic."""

    traffic_percent: Percent = Field(description="Percentage of the traffic; 0 starts it without traffic.")
    predictor: CanaryPredictor


class Tracing(ApiType):
    exporter: str | None = None
    exporter_endpoint: str | None = None
    sampler: str | None = None
    sampler_arg: str | None = None


def _canary_names(spec: InferenceServiceSpec) -> list[str]:
    return [canary.predictor.name for canary in spec.canary or []]


class InferenceServiceSpec(ApiType):
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.canary) || self.canary.map(c, c.trafficPercent).sum() <= 100",
            "the canaries' trafficPercent add up to more than 100",
            lambda spec: sum(canary.traffic_percent for canary in spec.canary or []) <= 100,
        ),
        Rule(
            "!has(self.canary) || self.canary.all(c, self.canary.exists_one(d, d.predictor.name == c.predictor.name))",
            "two canaries have the same predictor.name",
            lambda spec: len(set(_canary_names(spec))) == len(_canary_names(spec)),
        ),
        Rule(
            "!has(self.canary) || !has(self.predictor.name) || self.canary.all(c, c.predictor.name != self.predictor.name)",
            "a canary has the predictor's name: to promote it, set predictor.name to it and remove its canary entry",
            lambda spec: spec.predictor.name not in _canary_names(spec),
        ),
    )

    predictor: Predictor
    transformer: Transformer | None = None
    explainer: Explainer | None = None
    canary: Annotated[list[Canary], Field(max_length=MAX_CANARIES)] | None = None
    tracing: Tracing | None = None

    def components(self) -> dict[str, ComponentFields]:
        """The components that are set, by name; the canaries are not among them."""
        given = {"predictor": self.predictor, "transformer": self.transformer, "explainer": self.explainer}
        return {name: component for name, component in given.items() if component is not None}


def _derived_names_fit(isvc: InferenceService) -> bool:
    predictors = [isvc.spec.predictor.name, *_canary_names(isvc.spec)]
    return all(len(isvc.metadata.name) + len(name) <= _NAMED_ROOM for name in predictors if name)


_NAMED_ROOM = 63 - len("--predictor")


class InferenceService(ApiObject):
    """A model served over HTTP and gRPC."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.metadata.name.matches('{names.NAME_PATTERN}')",
            "metadata.name must begin with a letter and have only a-z, 0-9 and '-', not at its end",
            lambda isvc: names.NAME_RE.fullmatch(isvc.metadata.name) is not None,
        ),
        Rule(
            f"self.metadata.name.size() <= {names.MAX_NAME_LENGTH}",
            f"metadata.name is too long: at most {names.MAX_NAME_LENGTH} characters, so that the names of Deployments and Services fit",
            lambda isvc: len(isvc.metadata.name) <= names.MAX_NAME_LENGTH,
        ),
        Rule(
            "([self.spec.predictor].filter(p, has(p.name)).map(p, p.name)"
            " + (has(self.spec.canary) ? self.spec.canary.map(c, c.predictor.name) : []))"
            f".all(name, self.metadata.name.size() + name.size() <= {_NAMED_ROOM})",
            f"metadata.name and predictor.name are too long together: at most {_NAMED_ROOM} characters",
            _derived_names_fit,
        ),
    )

    api_version: Literal["serving.kserve.io/v1beta1"] = "serving.kserve.io/v1beta1"
    kind: Literal["InferenceService"] = "InferenceService"
    spec: InferenceServiceSpec
    status: InferenceServiceStatus | None = None

    @property
    def stopped(self) -> bool:
        """Whether the user has asked that the workloads be removed."""
        return self.metadata.annotations.get(names.STOP) == "true"

    @property
    def cluster_local(self) -> bool:
        """Whether only in-cluster hosts are to exist."""
        return self.metadata.labels.get(names.LABEL_VISIBILITY) == names.CLUSTER_LOCAL
