"""Triton's generate extension: a flat JSON object of inputs in, one of outputs out; streamed as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.model import TensorSpec
from fairlead.runtime.protocols import v1
from fairlead.runtime.protocols.v2_rest import json_data, parse_json
from fairlead.runtime.protocols.wire import Buffer
from fairlead.runtime.tensors import InferRequest, InferResponse


def decode_request(body: Buffer, inputs: Sequence[TensorSpec]) -> InferRequest:
    """Keys that are inputs become tensors, `parameters` parameters; with no declared inputs every other key is an input."""
    document = parse_json(body)
    if not isinstance(document, dict):
        raise InvalidRequest("the body must be a JSON object with a key for each input")
    specs = {spec.name: spec for spec in inputs}
    identifier = document.pop("id", None)
    parameters = document.pop("parameters", None) or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest('"parameters" must be an object')
    tensors = []
    for name, value in document.items():
        if specs and name not in specs:
            parameters[name] = value
        else:
            tensors.append(v1.tensor(name, value, specs.get(name)))
    return InferRequest(tensors, id=None if identifier is None else str(identifier), parameters=parameters)


def encode_response(response: InferResponse) -> dict[str, Any]:
    """Outputs by name; those of one element as that element."""
    document: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id is not None:
        document["id"] = response.id
    for tensor in response.outputs:
        values = json_data(tensor)
        document[tensor.name] = values if len(values) != 1 else values[0]
    return document


def event(document: Any) -> bytes:
    return b"data: " + orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n\n"
