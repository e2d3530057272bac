"""ONNX, by ONNX Runtime. Names, datatypes and shapes come from the graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks.base import Framework, LoadOptions, require
from fairlead.runtime.frameworks.onnxfile import OnnxFile
from fairlead.runtime.model import Model, ModelMetadata, TensorSpec
from fairlead.runtime.tensors import Array, InferRequest, InferResponse, Tensor

log = logging.getLogger(__name__)

DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
"""ONNX Runtime's name of an element type -> V2's."""


class OnnxFramework(Framework):
    name = "onnx"
    extra = "onnx"

    def load(self, path: Path, name: str, options: LoadOptions) -> Model:
        return OnnxModel(name, path, options)


class OnnxModel(Model):
    platform = "onnxruntime_onnx"
    compute_bound = True

    def __init__(self, name: str, path: Path, options: LoadOptions) -> None:
        super().__init__(name)
        self.path = path
        self.options = options

    def load(self) -> None:
        # Resolved: weights in files beside the model are looked for where it really lies.
        path = self.path.resolve()
        _check_external_data(path)
        session = _session(path, self.options)
        self.inputs = tuple(_input(path, item) for item in session.get_inputs())
        if len(self.inputs) == 1:
            only = self.inputs[0]
            self.inputs = (TensorSpec(only.name, only.datatype, only.shape, any_name=True),)
        kinds = [_output(path, item) for item in session.get_outputs()]
        self.outputs = tuple(spec for spec, _ in kinds)
        self._reads = [(spec.name, spec.datatype, read) for spec, read in kinds]
        self.batchable = _rows_are_free(session.get_inputs(), session.get_outputs())
        self.threads = self.options.cpus
        self._session = session
        self._run = session.run
        self._names = [spec.name for spec in self.outputs]
        self._has_text = any(spec.datatype == "BYTES" for spec in self.inputs)

    def unload(self) -> None:
        del self._run, self._session

    def predict(self, request: InferRequest) -> InferResponse:
        if self._has_text:
            feed = {tensor.name: _strings(tensor) for tensor in request.inputs}
        else:
            feed = {tensor.name: tensor.data for tensor in request.inputs}
        results = self._run(self._names, feed)
        return InferResponse(
            [
                Tensor(name, read(result) if read is not None else result, datatype)
                for (name, datatype, read), result in zip(self._reads, results, strict=True)
            ]
        )

    def metadata(self) -> ModelMetadata:
        meta = self._session.get_modelmeta()
        parameters = {"producer": meta.producer_name, "graph": meta.graph_name, **meta.custom_metadata_map}
        return ModelMetadata(
            self.name,
            self.platform,
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            parameters={key: value for key, value in parameters.items() if value},
        )


def _session(path: Path, options: LoadOptions) -> Any:
    """A session that fits a container: as many threads as it has CPUs, and none of them spinning while idle.

    No library of custom operators is registered: that would be native code from the model's directory.
    """
    ort = require("onnxruntime", "onnx")
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.cpus
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), settings, providers=_providers(ort))
    except Exception as error:
        raise _unreadable(path, error) from error


def _providers(ort: Any) -> list[str]:
    """CUDA where the installed ONNX Runtime has it, the CPU otherwise and for what CUDA lacks."""
    available = ort.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]


def _unreadable(path: Path, error: Exception) -> LoadError:
    text = str(error).rpartition(" : ")[2].strip() or str(error)
    if "is not a registered function/op" in text:
        return LoadError(
            f"{path.name} uses an operator that ONNX Runtime does not have ({text}); "
            "libraries of custom operators are native code and are not loaded. Convert the model without them"
        )
    return LoadError(f"{path.name} cannot be loaded by ONNX Runtime: {text}")


def _check_external_data(path: Path) -> None:
    """Weights may lie in other files, beside the model; older ONNX Runtimes would follow such a name anywhere."""
    try:
        locations = OnnxFile.read(path).external_data
    except ValueError as error:
        raise LoadError(f"{path.name} is not a whole ONNX file: {error}") from error
    for location in sorted(locations):
        file = path.parent / location
        if Path(location).is_absolute() or not file.resolve().is_relative_to(path.parent):
            raise LoadError(f"{path.name} takes its weights from {location!r}, which is outside its directory; refused")
        if not file.is_file():
            raise LoadError(f"{path.name} takes its weights from {location!r}, which is not beside it; put it there")


def _input(path: Path, item: Any) -> TensorSpec:
    datatype = _datatype(item.type)
    if datatype is None:
        raise LoadError(f"{path.name}: input {item.name!r} is a {item.type}, which no protocol can carry")
    return TensorSpec(item.name, datatype, _shape(item.shape))


def _output(path: Path, item: Any) -> tuple[TensorSpec, Callable[[Any], Array] | None]:
    """The declaration of an output and, where ONNX Runtime does not give an array for it, what makes one."""
    if item.type.startswith("seq(map("):
        element = item.type.rpartition("tensor(")[2].rstrip(")")
        return TensorSpec(item.name, DATATYPES.get(element, "FP32"), (-1, -1)), _matrix_of_maps
    datatype = _datatype(item.type)
    if datatype is None:
        raise LoadError(f"{path.name}: output {item.name!r} is a {item.type}, which no protocol can carry")
    # Scalars and outputs of unknown rank are not told apart by ONNX Runtime: no shape is declared for them.
    shape = _shape(item.shape) if item.shape else None
    return TensorSpec(item.name, datatype, shape), _bytes if datatype == "BYTES" else None


def _datatype(kind: str) -> str | None:
    """`tensor(float)` -> FP32; None for sequences, maps, and bfloat16, which numpy lacks."""
    return DATATYPES.get(kind.removeprefix("tensor(").removesuffix(")")) if kind.startswith("tensor(") else None


def _shape(dimensions: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(length if isinstance(length, int) else -1 for length in dimensions)


def _rows_are_free(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Is the first dimension of all inputs the same free one, and of all outputs the same or an unnamed one?

    A sequence of maps (ZipMap) has one for each row.
    """
    tensors = [item for item in outputs if item.type.startswith("tensor")]
    if not inputs or not tensors or any(not item.shape for item in (*inputs, *tensors)):
        return False
    free = {item.shape[0] for item in inputs}
    return (
        not any(isinstance(first, int) for first in free)
        and len(free) == 1
        and all(item.shape[0] is None or item.shape[0] in free for item in tensors)
    )


def _matrix_of_maps(maps: Sequence[dict[Any, Any]]) -> Array:
    """ZipMap's list of {label: probability}: a column for each label, in the model's order."""
    if not maps:
        return np.empty((0, 0), np.float32)
    return np.array([list(row.values()) for row in maps], np.float32)


def _strings(tensor: Tensor) -> Array:
    if tensor.datatype != "BYTES":
        return tensor.data
    decoded: Array = np.frompyfunc(lambda value: value.decode() if isinstance(value, bytes) else value, 1, 1)(
        tensor.data
    )
    return decoded


def _bytes(strings: Array) -> Array:
    encoded: Array = np.frompyfunc(lambda value: value.encode() if isinstance(value, str) else value, 1, 1)(strings)
    return encoded
