"""The OpenAPI document, made from the loaded models' metadata, and a page to try them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairlead.runtime.model import TensorSpec
from fairlead.runtime.protocols import documents
from fairlead.runtime.runner import Runner
from fairlead.runtime.tensors import DTYPES


def try_it() -> bytes:
    return Path(__file__).with_name("try_it.html").read_bytes()


def openapi(runners: Sequence[Runner]) -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/v2": _get("Server metadata", "ServerMetadata"),
        "/v2/health/live": _get("Is the server alive?", "Live"),
        "/v2/health/ready": _get("Are all models ready?", "Ready", 503),
        "/v2/models": _get("Names of the models", "Models"),
        "/v1/models": _get("Names of the models", "Models"),
    }
    for runner in runners:
        paths |= _model_paths(runner)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fairlead model server", "version": documents.server_version()},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _model_paths(runner: Runner) -> dict[str, Any]:
    name = runner.model.name
    metadata = runner.contract.metadata
    infer = _post(f"Predict with {name}", _request_schema(metadata.inputs), "InferResponse")
    sample = documents.example(metadata)
    if sample is not None:
        infer["post"]["requestBody"]["content"]["application/json"]["example"] = sample
    return {
        f"/v2/models/{name}": _get(f"Metadata of {name}", "ModelMetadata"),
        f"/v2/models/{name}/ready": _get(f"Is {name} ready?", "ModelReady", 503),
        f"/v2/models/{name}/infer": infer,
        f"/v1/models/{name}": _get(f"Is {name} ready?", "ModelReady", 503),
        f"/v1/models/{name}:predict": _post(f"Predict with {name} (V1)", _ref("V1Request"), "V1Response"),
    }


def _request_schema(inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    tensor: dict[str, Any] = _ref("RequestTensor")
    names = [spec.name for spec in inputs if not spec.any_name]
    if names:
        tensor = {"allOf": [tensor, {"properties": {"name": {"enum": names}}}]}
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "minItems": 1, "items": tensor},
            "outputs": {"type": "array", "items": _ref("RequestedOutput")},
        },
    }


def _ref(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _responses(schema: str, *errors: int) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "The answer", **_content(_ref(schema))}}
    for status in errors:
        responses[str(status)] = {"description": "Why not", **_content({})}
    return responses


def _get(summary: str, schema: str, *errors: int) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": _responses(schema, *errors)}}


def _post(summary: str, body: dict[str, Any], schema: str) -> dict[str, Any]:
    errors = (400, 404, 413, 415, 500, 501, 503, 504)
    responses = _responses(schema)
    for status in errors:
        responses[str(status)] = {"description": "Why not", **_content(_ref("Error"))}
    return {"post": {"summary": summary, "requestBody": {"required": True, **_content(body)}, "responses": responses}}


def _object(required: Sequence[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


_STRING = {"type": "string"}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": -1}}
_DATATYPE = {"type": "string", "enum": list(DTYPES)}
_TENSORS = {"type": "array", "items": {"$ref": "#/components/schemas/TensorMetadata"}}

_SCHEMAS: dict[str, Any] = {
    "Error": _object(["error"], error=_STRING),
    "Live": _object(["live"], live={"type": "boolean"}),
    "Ready": _object(["ready"], ready={"type": "boolean"}),
    "Models": _object(["models"], models={"type": "array", "items": _STRING}),
    "ModelReady": _object(["name", "ready"], name=_STRING, ready={"type": "boolean"}),
    "ServerMetadata": _object(
        ["name", "version", "extensions"], name=_STRING, version=_STRING, extensions={"type": "array", "items": _STRING}
    ),
    "TensorMetadata": _object(["name", "datatype", "shape"], name=_STRING, datatype=_DATATYPE, shape=_SHAPE),
    "ModelMetadata": _object(
        ["name", "platform", "inputs", "outputs"], name=_STRING, platform=_STRING, inputs=_TENSORS, outputs=_TENSORS
    ),
    "RequestTensor": _object(
        ["name", "datatype", "shape"],
        name=_STRING,
        datatype=_DATATYPE,
        shape={"type": "array", "items": {"type": "integer", "minimum": 0}},
        data={"type": "array"},
        parameters={"type": "object"},
    ),
    "RequestedOutput": _object(["name"], name=_STRING, parameters={"type": "object"}),
    "ResponseTensor": _object(
        ["name", "datatype", "shape"], name=_STRING, datatype=_DATATYPE, shape=_SHAPE, data={"type": "array"}
    ),
    "InferResponse": _object(
        ["model_name", "outputs"],
        model_name=_STRING,
        model_version=_STRING,
        id=_STRING,
        outputs={"type": "array", "items": {"$ref": "#/components/schemas/ResponseTensor"}},
    ),
    "V1Request": _object([], instances={"type": "array"}, inputs={}),
    "V1Response": _object([], predictions={}),
}
