"""Open Inference Protocol (V2) over REST, with the binary tensor extension in both directions.

A body is JSON, or JSON followed by the raw bytes of the tensors that say `binary_data_size`; then the header
`Inference-Header-Content-Length` says where the JSON ends. JSON has no NaN and no infinity: in a request they are an
error, in a JSON answer they are `null`, as in KServe; a client that needs them asks for `binary_data_output`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from fairlead.runtime.errors import InvalidRequest, NotSupported
from fairlead.runtime.protocols import wire
from fairlead.runtime.tensors import (
    DTYPES,
    Array,
    InferRequest,
    InferResponse,
    RequestedOutput,
    Tensor,
)

BINARY_HEADER = "inference-header-content-length"
JSON = "application/json"
OCTETS = "application/octet-stream"

DEFAULT_MAX_ELEMENTS = 1 << 28

_BINARY_ONLY = ("FP16", "BF16")


def decode_request(
    body: wire.Buffer, header_length: str | None = None, *, max_elements: int = DEFAULT_MAX_ELEMENTS
) -> InferRequest:
    """The request in `body`. `header_length` is the value of `Inference-Header-Content-Length`, if it came."""
    json_body, binary = _split(body, header_length)
    document = _object(json_body)
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise InvalidRequest(
            'the request has no "inputs"; expected {"inputs": [{"name", "shape", "datatype", "data"}]}'
        )
    tensors = []
    offset = 0
    for item in inputs:
        tensor, size = _input(item, binary, offset, max_elements)
        tensors.append(tensor)
        offset += size
    if offset != len(binary):
        raise InvalidRequest(f"the inputs take {offset} bytes of binary data, the request has {len(binary)}")
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise InvalidRequest('"id" must be a string')
    return InferRequest(
        tensors, id=identifier, parameters=_parameters(document, "the request"), outputs=_outputs(document)
    )


def parse_json(body: wire.Buffer) -> Any:
    """orjson, with an error that names the commonest reason for one."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = ""
        if not body:
            hint = ": the body is empty"
        elif b"NaN" in bytes(body) or b"Infinity" in bytes(body):
            hint = "; JSON has no NaN or Infinity: send such tensors as binary data"
        raise InvalidRequest(f"the body is not valid JSON: {error}{hint}") from None


def _object(body: wire.Buffer) -> dict[str, Any]:
    document = parse_json(body)
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {_kind(document)}")
    return document


def _split(body: wire.Buffer, header_length: str | None) -> tuple[wire.Buffer, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    try:
        length = int(header_length)
    except ValueError:
        raise InvalidRequest(f"Inference-Header-Content-Length is {header_length!r}, not a number") from None
    if not 0 <= length <= len(body):
        raise InvalidRequest(f"Inference-Header-Content-Length is {length}, the body has {len(body)} bytes")
    view = memoryview(body)
    return view[:length], view[length:]


def _input(item: Any, binary: memoryview, offset: int, max_elements: int) -> tuple[Tensor, int]:
    """One input and how many bytes of `binary` it took."""
    if not isinstance(item, dict):
        raise InvalidRequest(f"an input must be an object, not {_kind(item)}")
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    if not isinstance(name, str):
        raise InvalidRequest('an input has no "name"')
    if not isinstance(datatype, str):
        raise InvalidRequest(f'input {name!r} has no "datatype"')
    if not isinstance(shape, list):
        raise InvalidRequest(f'input {name!r} has no "shape"')
    count = wire.check_shape(name, datatype, shape, max_elements)
    parameters = _parameters(item, f"input {name!r}") if "parameters" in item else None
    size = parameters.get("binary_data_size") if parameters else None
    if size is None:
        return Tensor(name, decode_data(name, datatype, shape, count, item.get("data")), datatype, parameters), 0
    if type(size) is not int or size < 0:
        raise InvalidRequest(f"input {name!r}: binary_data_size {size!r} is not a length")
    if "data" in item:
        raise InvalidRequest(f'input {name!r} has both "data" and binary_data_size; send one of them')
    if offset + size > len(binary):
        raise InvalidRequest(
            f"input {name!r} claims {size} bytes of binary data, {len(binary) - offset} are left in the request"
        )
    data = wire.decode(name, datatype, shape, count, binary[offset : offset + size])
    return Tensor(name, data, datatype, parameters), size


def decode_data(name: str, datatype: str, shape: Sequence[int], count: int, data: Any) -> Array:
    """`data` as JSON gave it, nested like `shape` or flat, as an array of exactly that datatype and shape."""
    if data is None:
        raise InvalidRequest(f'input {name!r} has no "data"')
    if datatype in _BINARY_ONLY:
        raise InvalidRequest(f"input {name!r}: {datatype} cannot be JSON; send it as binary data (binary_data_size)")
    if not isinstance(data, list):
        data = [data]
    array = _bytes_array(name, data) if datatype == "BYTES" else _numeric_array(name, datatype, data)
    if array.size != count or (array.ndim > 1 and array.shape != tuple(shape)):
        raise InvalidRequest(
            f"input {name!r}: data of shape {list(array.shape)} does not fit the declared shape {list(shape)}"
        )
    return array.reshape(shape)


def _numeric_array(name: str, datatype: str, data: list[Any]) -> Array:
    try:
        array = np.array(data)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"input {name!r}: data is ragged, rows differ in length") from None
    if datatype == "UINT64" and array.dtype.kind == "f":
        array = _integers(data, array)
    return as_datatype(name, datatype, array)


def _integers(data: list[Any], array: Array) -> Array:
    """numpy makes floats of integers on both sides of 2^63; exact ones if integers are all there is."""
    objects = np.array(data, dtype=object)
    if any(type(value) is not int for value in objects.ravel()):
        return array
    try:
        return objects.astype(np.uint64)
    except OverflowError:
        return objects.astype(np.int64) if objects.max() < 2**63 else array


def as_datatype(name: str, datatype: str, array: Array) -> Array:
    """An array that JSON gave (bool, integer, float or object) as `datatype`, only if no value changes its meaning."""
    dtype = DTYPES[datatype]
    kind = array.dtype.kind
    if array.size == 0:
        return array.astype(dtype)
    if dtype.kind == "f" and kind in "fiu":
        if dtype.itemsize == 8:
            result = array.astype(dtype, copy=False)
        else:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
                result = array.astype(dtype, copy=False)
        if np.isinf(result).any():  # NaN is a value that is missing, which JSON itself cannot say
            raise InvalidRequest(f"input {name!r}: a value is too large for {datatype}")
        return result
    if dtype.kind in "iu" and kind in "iu":
        limits = np.iinfo(dtype)
        if array.dtype != dtype and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            raise InvalidRequest(f"input {name!r}: a value is outside {datatype}'s range {limits.min}..{limits.max}")
        return array.astype(dtype, copy=False)
    if dtype.kind == "b" and kind == "b":
        return array
    held = {"O": "null, objects or mixed values", "U": "strings", "f": "fractions", "b": "booleans"}.get(
        kind, "integers"
    )
    raise InvalidRequest(f"input {name!r}: datatype is {datatype}, data holds {held}")


def _bytes_array(name: str, data: list[Any]) -> Array:
    flat: list[bytes] = []
    shape: list[int] = []
    _flatten(name, data, flat, shape, 0)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    try:
        return array.reshape(shape)
    except ValueError:
        raise InvalidRequest(f"input {name!r}: data is ragged, rows differ in length") from None


def _flatten(name: str, data: list[Any], flat: list[bytes], shape: list[int], depth: int) -> None:
    if depth == len(shape):
        shape.append(len(data))
    for item in data:
        if isinstance(item, str):
            flat.append(item.encode())
        elif isinstance(item, list) and depth < 32:
            _flatten(name, item, flat, shape, depth + 1)
        else:
            raise InvalidRequest(
                f"input {name!r}: datatype is BYTES, data holds {_kind(item)}; its elements are strings"
            )


def _outputs(document: Mapping[str, Any]) -> list[RequestedOutput] | None:
    outputs = document.get("outputs")
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list):
        raise InvalidRequest('"outputs" must be a list of {"name"}')
    requested = []
    for item in outputs:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise InvalidRequest('an item of "outputs" has no "name"')
        parameters = _parameters(item, f"output {item['name']!r}") if "parameters" in item else None
        if parameters and parameters.get("classification"):
            raise NotSupported(f"output {item['name']!r}: the classification extension is not supported")
        requested.append(RequestedOutput(item["name"], parameters))
    return requested


def _parameters(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    parameters = item.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f'{where}: "parameters" must be an object, not {_kind(parameters)}')
    return parameters


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


# --- Out --------------------------------------------------------------------------------------------------


def encode_response(response: InferResponse, request: InferRequest) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part if tensors follow it in binary."""
    all_binary = bool(request.parameters.get("binary_data_output"))
    wanted = {output.name: output.parameters for output in request.outputs} if request.outputs else {}

    def binary(tensor: Tensor) -> bool:
        asked = wanted.get(tensor.name)
        return all_binary if asked is None else bool(asked.get("binary_data", all_binary))

    document: dict[str, Any] = {"model_name": response.model_name}
    if response.model_version is not None:
        document["model_version"] = response.model_version
    return _encode(document, "outputs", response, binary, response.outputs)


def encode_request(request: InferRequest) -> tuple[bytes, int | None]:
    """A request to another server: its tensors in binary, and so the answer's."""
    parameters = {**request.parameters, "binary_data_output": True}
    outgoing = InferRequest(request.inputs, id=request.id, parameters=parameters)
    return _encode({}, "inputs", outgoing, lambda tensor: True, request.inputs)


def decode_response(body: wire.Buffer, header_length: str | None = None) -> InferResponse:
    """Another server's answer. Raises InvalidRequest if it is none."""
    json_body, binary = _split(body, header_length)
    document = _object(json_body)
    tensors = []
    offset = 0
    for item in document.get("outputs") or ():
        tensor, size = _input(item, binary, offset, DEFAULT_MAX_ELEMENTS)
        tensors.append(tensor)
        offset += size
    return InferResponse(tensors, model_version=document.get("model_version"), parameters=document.get("parameters"))


def _encode(
    document: dict[str, Any],
    key: str,
    message: InferRequest | InferResponse,
    binary: Callable[[Tensor], bool],
    tensors: Sequence[Tensor],
) -> tuple[bytes, int | None]:
    items = document[key] = []
    blobs: list[bytes] = []
    for tensor in tensors:
        item: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        parameters = {k: value for k, value in (tensor.parameters or {}).items() if k != "binary_data_size"}
        if binary(tensor):
            blob = wire.encode(tensor)
            blobs.append(blob)
            parameters["binary_data_size"] = len(blob)
        else:
            item["data"] = json_data(tensor)
        if parameters:
            item["parameters"] = parameters
        items.append(item)
    if message.id is not None:
        document["id"] = message.id
    if message.parameters:
        document["parameters"] = message.parameters
    header = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not blobs:
        return header, None
    return b"".join((header, *blobs)), len(header)


def json_data(tensor: Tensor) -> Any:
    """A tensor's elements as a flat JSON list: an array that orjson writes itself, or a list of strings."""
    if tensor.datatype == "BYTES":
        return [text(element) for element in tensor.data.ravel()]
    if tensor.datatype in _BINARY_ONLY:
        raise InvalidRequest(f"output {tensor.name!r} is {tensor.datatype}, which cannot be JSON: ask for binary_data")
    return np.ascontiguousarray(tensor.data, DTYPES[tensor.datatype]).ravel()


def text(element: Any) -> str:
    """A BYTES element as JSON text; it must be UTF-8."""
    if not isinstance(element, bytes):
        return str(element)
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("an output is not UTF-8 text, so it cannot be JSON: ask for binary_data") from None
