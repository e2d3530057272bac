"""The predictor: exactly one of `model`, a field named after a framework, or `containers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from fairlead.api import names
from fairlead.api.base import ApiType, Count, Open, Rule
from fairlead.api.component import ComponentFields, StorageSpec, StorageUri, with_default_resources
from fairlead.api.pod import ContainerFields, PodFields

Protocol = Literal["v1", "v2", "grpc-v1", "grpc-v2"]
DEFAULT_PROTOCOL: Protocol = "v1"
V2_BY_DEFAULT = frozenset({"triton", "onnx", "huggingface"})
"""Framework fields that KServe's webhook gives protocol v2; of the `model` formats, only triton."""

ComponentName = Annotated[str, Field(pattern=names.NAME_PATTERN, max_length=40)]


class ModelFormat(ApiType):
    name: Annotated[str, Field(min_length=1)]
    version: str | None = None


class Confidential(ApiType):
    enabled: bool | None = None
    resource_id: str | None = None


class FrameworkSpec(ContainerFields):
    """The same as `model` with this format."""

    storage_uri: str | None = None
    storage: StorageSpec | None = None
    runtime_version: str | None = None
    protocol_version: Protocol | None = None
    confidential: Confidential | None = None

    def effective_resources(self) -> Open:
        return with_default_resources(self.resources)


class ModelSpec(FrameworkSpec):
    """A model of some format, served by a ServingRuntime; the container fields override the runtime's container."""

    model_format: ModelFormat
    runtime: str | None = Field(
        None, description="Name of a ServingRuntime or ClusterServingRuntime; chosen if not set."
    )

    def effective_protocol(self) -> Protocol:
        """The protocol that the runtime must speak: v1 unless told otherwise, v2 for triton."""
        return self.protocol_version or ("v2" if self.model_format.name == "triton" else DEFAULT_PROTOCOL)


class WorkerSpec(PodFields):
    """Further pods of a replica that spans nodes."""

    pipeline_parallel_size: Count | None = None
    tensor_parallel_size: Count | None = None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Open in the CRD, for its size; parsing knows the names."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        sizes = {name: schema["properties"][name] for name in ("pipelineParallelSize", "tensorParallelSize")}
        return {**schema, "properties": sizes, "additionalProperties": True}


FRAMEWORKS = (
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "pmml",
    "lightgbm",
    "paddle",
)
IMPLEMENTATIONS = ("model", *FRAMEWORKS)

_COUNT_CEL = "[" + ", ".join(f"has(self.{field})" for field in IMPLEMENTATIONS) + "].filter(given, given).size()"
_CUSTOM_CEL = (
    f"has(self.containers) && self.containers.exists(c, has(c.name) && c.name == '{names.PREDICTOR_CONTAINER}')"
)
_STORAGE_URI_CEL = " || ".join(f"(has(self.{field}) && has(self.{field}.storageUri))" for field in IMPLEMENTATIONS)


def _has_custom_container(predictor: PredictorFields) -> bool:
    return any(container.name == names.PREDICTOR_CONTAINER for container in predictor.containers or [])


AT_MOST_ONE_IMPLEMENTATION = Rule(
    f"{_COUNT_CEL} + ({_CUSTOM_CEL} ? 1 : 0) <= 1",
    f"more than one implementation: give one of {', '.join(IMPLEMENTATIONS)}, or a container named {names.PREDICTOR_CONTAINER}",
    lambda predictor: len(predictor.given_models()) + _has_custom_container(predictor) <= 1,
)
AN_IMPLEMENTATION = Rule(
    f"{_COUNT_CEL} >= 1 || (has(self.containers) && self.containers.size() >= 1)",
    f"no implementation: give one of {', '.join(IMPLEMENTATIONS)}, or containers",
    lambda predictor: bool(predictor.given_models() or predictor.containers),
)
ONE_STORAGE = Rule(
    f"!has(self.storageUris) || !({_STORAGE_URI_CEL})",
    "storageUri and storageUris exclude each other: move the storageUri into the list",
    lambda predictor: not predictor.storage_uris or all(m.storage_uri is None for _, m in predictor.given_models()),
)


class PredictorFields(ComponentFields):
    """All fields of a predictor, the stable one's and a canary's."""

    RULES: ClassVar[tuple[Rule, ...]] = (AT_MOST_ONE_IMPLEMENTATION, ONE_STORAGE)

    name: ComponentName | None = Field(None, description="Part of the Deployment's name: {service}-{name}-predictor.")
    model: ModelSpec | None = None
    sklearn: FrameworkSpec | None = None
    xgboost: FrameworkSpec | None = None
    tensorflow: FrameworkSpec | None = None
    pytorch: FrameworkSpec | None = None
    triton: FrameworkSpec | None = None
    onnx: FrameworkSpec | None = None
    huggingface: FrameworkSpec | None = None
    pmml: FrameworkSpec | None = None
    lightgbm: FrameworkSpec | None = None
    paddle: FrameworkSpec | None = None
    storage_uris: Annotated[list[StorageUri], Field(min_length=1)] | None = None
    storage_container_name: str | None = None
    worker_spec: WorkerSpec | None = None

    def given_models(self) -> list[tuple[str, FrameworkSpec]]:
        """`model` and the framework fields that are set, with their names; a valid predictor has at most one."""
        return [(field, spec) for field in IMPLEMENTATIONS if (spec := getattr(self, field)) is not None]


class Predictor(PredictorFields):
    """What answers predictions."""

    RULES: ClassVar[tuple[Rule, ...]] = (AN_IMPLEMENTATION,)

    def implementation(self) -> ModelSpec | None:
        """The model, a framework field read as `model` with that format; None if the predictor is custom `containers`."""
        given = self.given_models()
        if not given:
            return None
        field, spec = given[0]
        if isinstance(spec, ModelSpec):
            return spec
        protocol = {"protocolVersion": "v2"} if field in V2_BY_DEFAULT and spec.protocol_version is None else {}
        return ModelSpec.model_validate({**spec.to_dict(), **protocol, "modelFormat": {"name": field}})


class CanaryPredictor(PredictorFields):
    """A predictor's changes against the stable one."""

    name: ComponentName

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """In the CRD a canary's rarer fields are open: they alone would add a third to its size. Parsing is as strict as ever."""
        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        open_but_for_storage = {
            "type": "object",
            "properties": {"storageUri": {"type": "string"}},
            "additionalProperties": True,
        }
        schema["properties"] |= dict.fromkeys(FRAMEWORKS, open_but_for_storage)
        schema["properties"]["workerSpec"] = {"type": "object", "additionalProperties": True}
        return schema

    def inheriting(self, stable: Predictor) -> Predictor:
        """The canary's whole predictor: what it does not set is the stable predictor's.

        Maps merge, lists and scalars replace, as in KServe. A canary with an implementation of another kind drops the stable one's.
        The stable predictor's share of the traffic is not inherited.
        """
        own, inherited = self.to_dict(), stable.to_dict()
        inherited.pop("canaryTrafficPercent", None)
        kinds = {*IMPLEMENTATIONS, "containers"}
        if kinds & own.keys() and not kinds & own.keys() & inherited.keys():
            inherited = {field: value for field, value in inherited.items() if field not in kinds}
        return Predictor.model_validate(_merge(inherited, own))


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both_maps = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merge(below, value) if both_maps else value  # type: ignore[arg-type]
    return merged
