"""The check at the door: a request that does not fit what the model declares never reaches it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.model import ModelMetadata, TensorSpec
from fairlead.runtime.tensors import DTYPES, InferRequest, InferResponse, Tensor


class Contract:
    """A model's declared inputs and outputs, ready to be checked against.

    A tensor of another datatype is taken where every value of it fits the declared one exactly (FP32 for FP64, INT32 for
    FP64), and converted; anything else is the client's error.
    """

    def __init__(self, metadata: ModelMetadata) -> None:
        self.metadata = metadata
        self._inputs = {spec.name: spec for spec in metadata.inputs}
        self._required = [spec.name for spec in metadata.inputs if not spec.optional]
        self._outputs = {spec.name for spec in metadata.outputs}
        self.output_names = [spec.name for spec in metadata.outputs]
        only = metadata.inputs[0] if len(metadata.inputs) == 1 else None
        self._any_name = only if only is not None and only.any_name else None
        self._matrix = only if only is not None and only.columns else None

    def check(self, request: InferRequest) -> None:
        """Raise InvalidRequest, or leave `request` as the model wants it."""
        if self._inputs and request.body is None:
            tensors = request.inputs
            if self._matrix is not None and _are_columns(tensors, self._matrix):
                tensors = request.inputs = [_joined(tensors, self._matrix)]
            if self._any_name is not None and len(tensors) == 1:
                tensors[0].name = self._any_name.name
            seen = set()
            for tensor in tensors:
                spec = self._inputs.get(tensor.name)
                if spec is None:
                    raise InvalidRequest(
                        f"input {tensor.name!r} is unknown; the model's inputs are {_names(self._inputs)}"
                    )
                if tensor.name in seen:
                    raise InvalidRequest(f"input {tensor.name!r} is given twice")
                seen.add(tensor.name)
                _fit(tensor, spec)
            if len(seen) < len(self._required):
                missing = [name for name in self._required if name not in seen]
                raise InvalidRequest(f"input {missing[0]!r} is missing; the model's inputs are {_names(self._inputs)}")
        if request.outputs and self._outputs:
            for output in request.outputs:
                if output.name not in self._outputs:
                    raise InvalidRequest(
                        f"output {output.name!r} is unknown; the model's outputs are {_names(self.output_names)}"
                    )

    def select(self, response: InferResponse, request: InferRequest) -> None:
        """Keep the outputs that the client named, in its order; all of them if it named none."""
        if not request.outputs or response.body is not None:
            return
        by_name = {tensor.name: tensor for tensor in response.outputs}
        for output in request.outputs:
            if output.name not in by_name:
                raise InvalidRequest(f"output {output.name!r} is unknown; the model answered {_names(by_name)}")
        response.outputs = [by_name[output.name] for output in request.outputs]


def _are_columns(tensors: Sequence[Tensor], matrix: TensorSpec) -> bool:
    """Vectors, or matrices of one column, that bear the names of columns."""
    return bool(tensors) and all(
        tensor.name in matrix.columns and (tensor.data.ndim == 1 or tensor.data.shape[1:] == (1,)) for tensor in tensors
    )


def _joined(tensors: Sequence[Tensor], matrix: TensorSpec) -> Tensor:
    """The matrix whose columns came one by one, in the model's order."""
    given = {tensor.name: tensor.data.reshape(-1) for tensor in tensors}
    missing = [column for column in matrix.columns if column not in given]
    if missing:
        raise InvalidRequest(f"column {missing[0]!r} is missing; the model's columns are {_names(matrix.columns)}")
    if len({len(values) for values in given.values()}) > 1:
        raise InvalidRequest("the columns differ in length")
    return Tensor(matrix.name, np.column_stack([given[column] for column in matrix.columns]))


def _fit(tensor: Tensor, spec: TensorSpec) -> None:
    if tensor.datatype != spec.datatype:
        convertible = "BYTES" not in (tensor.datatype, spec.datatype) and spec.datatype not in ("FP16", "BF16", "BOOL")
        target = DTYPES[spec.datatype]
        if not (convertible and np.can_cast(tensor.data.dtype, target)):
            raise InvalidRequest(f"input {tensor.name!r} is {tensor.datatype}, the model takes {spec.datatype}")
        tensor.data = tensor.data.astype(target)
        tensor.datatype = spec.datatype
    if spec.shape is not None and not _shape_fits(tensor.data.shape, spec.shape):
        raise InvalidRequest(
            f"input {tensor.name!r} has shape {list(tensor.shape)}, the model takes {list(spec.shape)}"
        )


def _shape_fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    if len(shape) != len(declared):
        return False
    return all(wanted in (-1, length) for length, wanted in zip(shape, declared, strict=True))


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
