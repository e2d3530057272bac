"""KServe's V1: `{"instances": [...]}` (by row) or `{"inputs": ...}` (by column) in, `{"predictions": [...]}` out.

V1 says nothing of types, so the model's declared inputs decide; where it declares none, JSON's own types do.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.model import TensorSpec
from fairlead.runtime.protocols.v2_rest import as_datatype, parse_json, text
from fairlead.runtime.protocols.wire import Buffer
from fairlead.runtime.tensors import Array, InferRequest, InferResponse, Tensor

_JSON_DATATYPES = {"f": "FP64", "i": "INT64", "u": "UINT64", "b": "BOOL"}


def decode_request(body: Buffer, inputs: Sequence[TensorSpec] = (), *, json_input: bool = False) -> InferRequest:
    """The request in `body` as tensors named by `inputs`; with `json_input`, as it came, in `request.body`."""
    document = parse_json(body)
    if not isinstance(document, dict) or not ("instances" in document or "inputs" in document):
        raise InvalidRequest('expected a JSON object with "instances" (or "inputs")')
    if json_input:
        return InferRequest([], body=document)
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise InvalidRequest('"instances" must be a list, with one item for each row')
        columns = _columns_of_rows(instances, inputs)
    else:
        columns = _columns_of_inputs(document["inputs"], inputs)
    specs = {spec.name: spec for spec in inputs}
    return InferRequest([tensor(name, values, specs.get(name)) for name, values in columns.items()])


def _columns_of_rows(instances: list[Any], inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    rows_are_objects = bool(instances) and isinstance(instances[0], dict) and set(instances[0]) != {"b64"}
    if not rows_are_objects:
        if len([spec for spec in inputs if not spec.optional]) > 1:
            wanted = ", ".join(spec.name for spec in inputs)
            raise InvalidRequest(f"this model has several inputs: each instance must be an object with {wanted}")
        return {_only_name(inputs): instances}
    names = list(instances[0])
    for index, row in enumerate(instances):
        if not isinstance(row, dict) or set(row) != set(names):
            raise InvalidRequest(f"instance {index} does not have the same keys as the first one: {', '.join(names)}")
    return {name: [row[name] for row in instances] for name in names}


def _columns_of_inputs(value: Any, inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, list):  # rows, then, as KServe's servers of trees take them
        tables = bool(value) and all(isinstance(item, list) and item and isinstance(item[0], dict) for item in value)
        return _columns_of_tables(value, inputs) if tables else _columns_of_rows(value, inputs)
    raise InvalidRequest('"inputs" must be a list, or an object with a list for each input')


def _columns_of_tables(tables: list[list[Any]], inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """KServe's lists of rows that are objects, read as pandas does: what a row does not name is missing, NaN."""
    rows = [row for table in tables for row in table]
    if not all(isinstance(row, dict) for row in rows):
        raise InvalidRequest('a list in "inputs" that begins with an object must hold nothing but objects')
    given = dict.fromkeys(name for row in rows for name in row)
    names = [column for spec in inputs for column in (spec.columns or (spec.name,))] or list(given)
    if unknown := [name for name in given if name not in names]:
        raise InvalidRequest(f"{unknown[0]!r} is no column of this model; they are {', '.join(names)}")
    return {name: [row.get(name, math.nan) for row in rows] for name in names}


def _only_name(inputs: Sequence[TensorSpec]) -> str:
    return inputs[0].name if inputs else "instances"


def tensor(name: str, values: Any, spec: TensorSpec | None) -> Tensor:
    if not isinstance(values, list):
        values = [values]
    values, binary = _decode_b64(name, values)
    if binary:
        return Tensor(name, _objects(name, values), "BYTES")
    try:
        array: Array = np.array(values)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"input {name!r}: rows differ in length") from None
    if array.dtype.kind == "U" and (spec is None or spec.datatype == "BYTES") and _all_strings(values):
        return Tensor(name, _objects(name, values), "BYTES")
    if spec is not None and spec.datatype not in ("BYTES", "BF16"):
        if array.size == 0 and spec.shape is not None and array.ndim < len(spec.shape):
            # No rows: JSON cannot say how wide they would be.
            array = array.reshape([0] + [max(length, 0) for length in spec.shape[1:]])
        return Tensor(name, as_datatype(name, spec.datatype, array), spec.datatype)
    datatype = _JSON_DATATYPES.get(array.dtype.kind)
    if datatype is None or (spec is not None and spec.datatype == "BYTES"):
        held = "strings" if array.dtype.kind == "U" else "null, objects or mixed values"
        expected = f"; the model takes {spec.datatype}" if spec else ""
        raise InvalidRequest(f"input {name!r} holds {held if datatype is None else 'numbers'}{expected}")
    return Tensor(name, as_datatype(name, datatype, array), datatype)


def _all_strings(values: list[Any]) -> bool:
    return all(_all_strings(value) if isinstance(value, list) else isinstance(value, str) for value in values)


def _decode_b64(name: str, values: list[Any]) -> tuple[list[Any], bool]:
    """TensorFlow's `{"b64": "…"}` for a binary value."""
    if not values or not all(isinstance(value, dict) and set(value) == {"b64"} for value in values):
        return values, False
    try:
        return [base64.b64decode(value["b64"], validate=True) for value in values], True
    except (binascii.Error, TypeError, ValueError):
        raise InvalidRequest(f"input {name!r}: a b64 value is not base64") from None


def _objects(name: str, values: list[Any]) -> Array:
    nested = np.array(values, dtype=object)
    encode = np.frompyfunc(lambda value: value.encode() if isinstance(value, str) else value, 1, 1)
    result: Array = encode(nested)
    if any(not isinstance(value, bytes) for value in result.ravel()):
        raise InvalidRequest(f"input {name!r}: rows differ in length")
    return result


def encode_response(response: InferResponse) -> bytes:
    """`predictions` row by row: a list for one output, a list of objects for several."""
    if response.body is not None:
        return orjson.dumps(response.body, option=orjson.OPT_SERIALIZE_NUMPY)
    outputs = response.outputs
    if len(outputs) == 1:
        predictions: Any = _rows(outputs[0])
    elif len({tensor.shape[:1] for tensor in outputs}) == 1 and outputs[0].shape:
        columns = [(tensor.name, _items(_rows(tensor))) for tensor in outputs]
        predictions = [{name: rows[i] for name, rows in columns} for i in range(outputs[0].shape[0])]
    else:
        predictions = {tensor.name: _rows(tensor) for tensor in outputs}
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


def _items(rows: Any) -> Any:
    """Scalars as Python's own: orjson does not know all of numpy's (int64 is `longlong` in ONNX Runtime's arrays)."""
    return rows.tolist() if isinstance(rows, np.ndarray) and rows.ndim == 1 else rows


def _rows(tensor: Tensor) -> Any:
    if tensor.datatype == "BYTES":
        return np.frompyfunc(text, 1, 1)(tensor.data).tolist()
    if tensor.datatype in ("FP16", "BF16"):
        return np.ascontiguousarray(tensor.data, np.float32)
    return np.ascontiguousarray(tensor.data)


# --- The other side: what a transformer sends to its predictor -----------------------------------------------------


def encode_request(request: InferRequest) -> bytes:
    """`instances`: the rows of the one input, or an object with each input's value for every row."""
    if request.body is not None:
        return orjson.dumps(request.body, option=orjson.OPT_SERIALIZE_NUMPY)
    rows = orjson.loads(encode_response(InferResponse(request.inputs)))["predictions"]
    return orjson.dumps({"instances": rows} if isinstance(rows, list) else {"inputs": rows})


def decode_response(body: Buffer) -> InferResponse:
    """`predictions` as one tensor if they are one, else as JSON in `body`."""
    document = parse_json(body)
    if not isinstance(document, dict) or "predictions" not in document:
        raise InvalidRequest('the predictor\'s answer has no "predictions"')
    try:
        return InferResponse([tensor("predictions", document["predictions"], None)])
    except InvalidRequest:
        return InferResponse([], body=document)
