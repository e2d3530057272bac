"""The protocol-independent request and response: named tensors over numpy arrays, and the V2 datatypes.

Every door decodes into these and encodes from them; models see nothing else. Numeric tensors that arrive in binary
are read-only views of the body: a model that wants to write in place copies first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.runtime.errors import InvalidRequest

Array = npt.NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<f4"),  # numpy has no bfloat16: models see it widened, which is exact
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),  # elements are `bytes`
}
"""V2 datatype -> the dtype that a model sees."""

ITEM_SIZES: dict[str, int] = {name: dtype.itemsize for name, dtype in DTYPES.items()} | {"BF16": 2, "BYTES": 0}
"""V2 datatype -> bytes of one element on the wire; 0: each element carries its own length."""

_DATATYPES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items() if name not in ("BF16", "BYTES")}


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The V2 datatype of a numpy dtype; strings, bytes and objects are BYTES. Raises TypeError for e.g. complex."""
    known = _DATATYPES.get(dtype)
    if known is not None:
        return known
    if dtype.kind in "SUOT":
        return "BYTES"
    known = _DATATYPES.get(dtype.newbyteorder("<"))
    if known is None:
        raise TypeError(f"dtype {dtype} has no V2 datatype; convert it to one of {', '.join(DTYPES)}")
    return known


class Tensor:
    """A named array. `datatype` is V2's; the shape is the array's."""

    __slots__ = ("data", "datatype", "name", "parameters")

    def __init__(
        self, name: str, data: Array, datatype: str | None = None, parameters: dict[str, Any] | None = None
    ) -> None:
        self.name = name
        self.data = data
        self.datatype = datatype_of(data.dtype) if datatype is None else datatype
        self.parameters = parameters

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {self.datatype}, {list(self.shape)})"


class RequestedOutput:
    """An output that the client named, in V2's `outputs`."""

    __slots__ = ("name", "parameters")

    def __init__(self, name: str, parameters: dict[str, Any] | None = None) -> None:
        self.name = name
        self.parameters = parameters


class InferRequest:
    """What a model's `predict` gets.

    `request["x"]` is the array of input x, `request.array` that of the only (or first) input. `parameters` are the
    client's. `body` is the JSON body as it came, for models that take V1 as JSON (`Model.json_input`); None otherwise.
    `headers` have lower-case names. `deadline` is on `time.monotonic()`'s clock.
    """

    __slots__ = ("body", "deadline", "headers", "id", "inputs", "model_name", "outputs", "parameters")

    def __init__(
        self,
        inputs: Sequence[Tensor],
        *,
        model_name: str = "",
        id: str | None = None,
        parameters: dict[str, Any] | None = None,
        outputs: Sequence[RequestedOutput] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
        body: Any = None,
    ) -> None:
        self.inputs = inputs
        self.model_name = model_name
        self.id = id
        self.parameters = {} if parameters is None else parameters
        self.outputs = outputs
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.deadline = deadline
        self.body = body

    def __getitem__(self, name: str) -> Array:
        for tensor in self.inputs:
            if tensor.name == name:
                return tensor.data
        raise InvalidRequest(f"input {name!r} is missing; the request has {self._names()}")

    def get(self, name: str) -> Array | None:
        """The array of an input that may be absent."""
        return next((tensor.data for tensor in self.inputs if tensor.name == name), None)

    def __contains__(self, name: object) -> bool:
        return any(tensor.name == name for tensor in self.inputs)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.inputs)

    @property
    def array(self) -> Array:
        """The first input's array: models with one input need not care for its name."""
        if not self.inputs:
            raise InvalidRequest("the request has no inputs")
        return self.inputs[0].data

    def _names(self) -> str:
        return ", ".join(tensor.name for tensor in self.inputs) or "no inputs"


class InferResponse:
    """What a model answers. A model may return this, a Tensor, an array, a mapping of arrays: see `as_response`.

    `body` is set instead of `outputs` by a model that answers V1 with JSON of its own.
    """

    __slots__ = ("body", "id", "model_name", "model_version", "outputs", "parameters")

    def __init__(
        self,
        outputs: Sequence[Tensor],
        *,
        model_name: str = "",
        model_version: str | None = None,
        id: str | None = None,
        parameters: dict[str, Any] | None = None,
        body: Any = None,
    ) -> None:
        self.outputs = outputs
        self.model_name = model_name
        self.model_version = model_version
        self.id = id
        self.parameters = parameters
        self.body = body

    def __getitem__(self, name: str) -> Array:
        for tensor in self.outputs:
            if tensor.name == name:
                return tensor.data
        raise KeyError(name)


def as_response(result: Any, output_names: Sequence[str] = ()) -> InferResponse:
    """What `predict` returned, as a response. Unnamed arrays take the declared output names, else output-0, output-1, …"""
    if isinstance(result, InferResponse):
        return result
    if isinstance(result, np.ndarray):
        return InferResponse([_output(output_names[0] if output_names else "output-0", result)])
    if isinstance(result, Tensor):
        return InferResponse([result])
    if isinstance(result, Mapping):
        return InferResponse([_output(str(name), value) for name, value in result.items()])
    if isinstance(result, tuple) or (
        isinstance(result, list) and result and all(isinstance(item, (Tensor, np.ndarray)) for item in result)
    ):
        return InferResponse([_output(_nth(output_names, i), value) for i, value in enumerate(result)])
    return InferResponse([_output(output_names[0] if output_names else "output-0", result)])


def _nth(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"output-{index}"


def _output(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
        return Tensor(name, array, datatype_of(array.dtype))
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"predict returned a {type(value).__name__} for output {name!r} that is not a tensor: {error}"
        ) from error
