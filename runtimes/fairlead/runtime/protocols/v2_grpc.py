"""Open Inference Protocol (V2) over gRPC: messages to tensors and back.

Tensors come as typed `contents` or as `raw_input_contents` (all of them, in order); the answer uses the form that the
request used, as KServe and Triton do. FP16 and BF16 have no typed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.protocols import pb, wire
from fairlead.runtime.protocols.v2_rest import DEFAULT_MAX_ELEMENTS
from fairlead.runtime.tensors import DTYPES, Array, InferRequest, InferResponse, RequestedOutput, Tensor

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The repeated field that carries each datatype; FP16 and BF16 have none."""


LARGE = 16_384
"""Bytes of a message from which its raw tensors are worth not being copied."""
_RAW_INPUT_CONTENTS = 7


class Incoming:
    """A ModelInferRequest and its raw tensors."""

    __slots__ = ("message", "raw")

    def __init__(self, message: Any, raw: Sequence[wire.Buffer]) -> None:
        self.message = message
        self.raw = raw


def parse(payload: bytes) -> Incoming:
    """Parse a ModelInferRequest. The raw tensors of a large one are views of `payload`: protobuf would copy them twice."""
    if len(payload) >= LARGE and (parts := _split_raw(payload)) is not None:
        rest, raw = parts
        return Incoming(pb.ModelInferRequest.FromString(rest), raw)
    message = pb.ModelInferRequest.FromString(payload)
    return Incoming(message, message.raw_input_contents)


def _split_raw(payload: bytes) -> tuple[bytes, list[memoryview]] | None:
    """The message without raw_input_contents, and these; None if it is not what it should be, and protobuf is to say so."""
    view = memoryview(payload)
    end, at = len(payload), 0
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    try:
        while at < end:
            start = at
            tag, at = _varint(payload, at)
            length, at = _varint(payload, at)
            if tag & 7 != 2 or at + length > end:  # all fields of this message are length-delimited
                return None
            if tag >> 3 == _RAW_INPUT_CONTENTS:
                raw.append(view[at : at + length])
            else:
                rest.append(view[start : at + length])
            at += length
    except IndexError:
        return None
    return b"".join(rest), raw


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = payload[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def decode_request(incoming: Incoming, *, max_elements: int = DEFAULT_MAX_ELEMENTS) -> InferRequest:
    """A request as tensors. Version and model name are the caller's business."""
    message, raw = incoming.message, incoming.raw
    inputs = message.inputs
    if not inputs:
        raise InvalidRequest("the request has no inputs")
    if raw and len(raw) != len(inputs):
        raise InvalidRequest(f"the request has {len(inputs)} inputs and {len(raw)} raw_input_contents")
    tensors = []
    for index, item in enumerate(inputs):
        name, datatype, shape = item.name, item.datatype, list(item.shape)
        count = wire.check_shape(name, datatype, shape, max_elements)
        if raw:
            if item.HasField("contents"):
                raise InvalidRequest(f"input {name!r} has contents and raw_input_contents; send one of them")
            data = wire.decode(name, datatype, shape, count, raw[index])
        else:
            data = _typed(name, datatype, shape, count, item.contents)
        parameters = decode_parameters(item.parameters) if item.parameters else None
        tensors.append(Tensor(name, data, datatype, parameters))
    return InferRequest(
        tensors,
        model_name=message.model_name,
        id=message.id or None,
        parameters=decode_parameters(message.parameters) if message.parameters else {},
        outputs=[RequestedOutput(item.name, decode_parameters(item.parameters)) for item in message.outputs] or None,
    )


def _typed(name: str, datatype: str, shape: list[int], count: int, contents: Any) -> Array:
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidRequest(f"input {name!r}: {datatype} has no typed contents; send it in raw_input_contents")
    values = getattr(contents, field)
    if len(values) != count:
        filled = [other.name for other, _ in contents.ListFields() if other.name != field]
        hint = f"; the request has {filled[0]}, which is not where {datatype} goes" if filled else ""
        raise InvalidRequest(
            f"input {name!r}: shape {shape} takes {count} {field}, the request has {len(values)}{hint}"
        )
    if datatype == "BYTES":
        array = np.empty(count, dtype=object)
        array[:] = list(values)
        return array.reshape(shape)
    try:
        return np.array(values, DTYPES[datatype]).reshape(shape)
    except OverflowError:
        raise InvalidRequest(f"input {name!r}: a value is outside {datatype}'s range") from None


def decode_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for key, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is not None:
            result[key] = getattr(value, choice)
    return result


def encode_parameters(target: Any, parameters: Mapping[str, Any]) -> None:
    """Fill a map of InferParameter; values that it cannot hold are written as strings."""
    for key, value in parameters.items():
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int):
            target[key].int64_param = value
        elif isinstance(value, float):
            target[key].double_param = value
        else:
            target[key].string_param = str(value)


def encode_response(response: InferResponse, *, raw: bool) -> Any:
    """A ModelInferResponse, with raw contents if `raw` or where a datatype has no other form."""
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version or "", id=response.id or ""
    )
    if response.parameters:
        encode_parameters(message.parameters, response.parameters)
    raw = raw or any(tensor.datatype not in _CONTENTS for tensor in response.outputs)
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if tensor.parameters:
            encode_parameters(output.parameters, tensor.parameters)
        if raw:
            message.raw_output_contents.append(wire.encode(tensor))
        elif tensor.datatype == "BYTES":
            output.contents.bytes_contents.extend(wire.element_bytes(element) for element in tensor.data.ravel())
        else:
            getattr(output.contents, _CONTENTS[tensor.datatype]).extend(tensor.data.ravel().tolist())
    return message
