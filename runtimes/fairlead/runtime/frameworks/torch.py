"""PyTorch: torch.export programs (.pt2), weights (safetensors or a state_dict) with a class, and TorchScript while it lasts."""

from __future__ import annotations

import json
import logging
import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks import pt2
from fairlead.runtime.frameworks.base import Framework, LoadOptions, refuse_code, require
from fairlead.runtime.frameworks.custom import resolve
from fairlead.runtime.frameworks.formats import SAFETENSORS, TORCH_EXPORT, TORCH_PICKLE, TORCHSCRIPT, Format, sniff
from fairlead.runtime.model import Model, TensorSpec
from fairlead.runtime.tensors import InferRequest, InferResponse, Tensor, datatype_of

log = logging.getLogger(__name__)

DATATYPES = {
    "torch.bool": "BOOL",
    "torch.uint8": "UINT8",
    "torch.int8": "INT8",
    "torch.int16": "INT16",
    "torch.int32": "INT32",
    "torch.int64": "INT64",
    "torch.float16": "FP16",
    "torch.bfloat16": "BF16",
    "torch.float32": "FP32",
    "torch.float64": "FP64",
}
"""PyTorch's dtype, as text -> V2's datatype."""

_INSTEAD = "Export the model (torch.export.save to a .pt2 file), or keep its weights as safetensors and name the class"


class TorchFramework(Framework):
    name = "torch"
    extra = "torch"

    def load(self, path: Path, name: str, options: LoadOptions) -> Model:
        form = sniff(path) or TORCH_PICKLE
        if form is TORCH_EXPORT:
            return ExportedModel(name, path, options)
        if form is SAFETENSORS and options.model_class is None:
            raise LoadError(
                f"{path.name} holds weights and not the network they are for; name its class, which must be importable: "
                "FAIRLEAD_MODEL_CLASS=package.module:Class (its arguments may lie in a config.json beside the weights)"
            )
        if form is TORCH_PICKLE and options.model_class is None and not options.allow_pickle:
            raise refuse_code(path, "saved by torch.save, a pickle", _INSTEAD)
        return ModuleModel(name, path, form, options)


class TorchModel(Model):
    """What all PyTorch models share: threads, tensors in, tensors out."""

    platform = "pytorch"
    compute_bound = True

    def __init__(self, name: str, path: Path, options: LoadOptions) -> None:
        super().__init__(name)
        self.path = path
        self.options = options

    def load(self) -> None:
        self._torch = require("torch", "torch")
        self._torch.set_num_threads(self.options.cpus)
        self._device = self._torch.device("cuda" if self._torch.cuda.is_available() else "cpu")
        self._module = self._read()

    def _read(self) -> Any:
        raise NotImplementedError

    def _tensors(self, request: InferRequest) -> list[Any]:
        torch = self._torch
        made = []
        for tensor in request.inputs:
            # PyTorch has no read-only tensors; what came in binary is a read-only view of the request.
            array = tensor.data if tensor.data.flags.writeable else tensor.data.copy()
            value = torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
            made.append(value.to(torch.bfloat16) if tensor.datatype == "BF16" else value)
        return made

    def _response(self, results: Sequence[Any], names: Sequence[str]) -> InferResponse:
        outputs = []
        for index, result in enumerate(results):
            name = names[index] if index < len(names) else f"output-{index}"
            if result.dtype == self._torch.bfloat16:
                outputs.append(Tensor(name, result.float().cpu().numpy(), "BF16"))
            else:
                array = result.cpu().numpy()
                outputs.append(Tensor(name, array, datatype_of(array.dtype)))
        return InferResponse(outputs)


class ExportedModel(TorchModel):
    """A torch.export program: its graph says what goes in and what comes out."""

    platform = "pytorch_export"

    def _read(self) -> Any:
        self._check()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = self._torch.export.load(self.path)
                module = program.module()  # reads some of the file's entries for the first time
        except Exception as error:
            raise LoadError(
                f"{self.path.name} cannot be loaded by PyTorch {self._torch.__version__}: {error}"
            ) from error
        self._tree = self._torch.utils._pytree
        self._spec = program.call_spec.in_spec
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        inputs, outputs = program.graph_signature.user_inputs, program.graph_signature.user_outputs
        self.inputs = tuple(self._input(name, values.get(name)) for name in inputs)
        if len(self.inputs) == 1:
            only = self.inputs[0]
            self.inputs = (TensorSpec(only.name, only.datatype, only.shape, any_name=True),)
        self._output_names = [str(name) for name in outputs]
        self.outputs = tuple(_output(str(name), values.get(name)) for name in outputs)
        self.batchable = _rows_are_free([values.get(name) for name in inputs], [values.get(name) for name in outputs])
        return module.to(self._device)

    def predict(self, request: InferRequest) -> InferResponse:
        given = dict(zip((tensor.name for tensor in request.inputs), self._tensors(request), strict=True))
        arguments, keywords = self._tree.tree_unflatten([given[spec.name] for spec in self.inputs], self._spec)
        with self._torch.inference_mode():
            result = self._module(*arguments, **keywords)
        return self._response(self._tree.tree_leaves(result), self._output_names)

    def _check(self) -> None:
        if self.options.allow_pickle:
            return
        try:
            found = pt2.complaint(self.path)
        except ValueError as error:
            raise LoadError(f"{self.path.name} cannot be read: {error}") from error
        if found:
            raise refuse_code(
                self.path,
                f"a torch.export file with more in it than data, {found}",
                "Export the model again with plain tensor operators",
            )

    def _input(self, name: Any, value: Any) -> TensorSpec:
        datatype = DATATYPES.get(str(getattr(value, "dtype", None)))
        if datatype is None:
            raise LoadError(
                f"{self.path.name}: input {name!r} is no tensor that a protocol can carry; export the model with tensors alone"
            )
        return TensorSpec(str(name), datatype, _shape(value))


class ModuleModel(TorchModel):
    """A module that takes one tensor for each input, in order, and says nothing of their names and shapes."""

    def __init__(self, name: str, path: Path, form: Format, options: LoadOptions) -> None:
        super().__init__(name, path, options)
        self.form = form

    def _read(self) -> Any:
        try:
            if self.form is TORCHSCRIPT:
                module = self._read_script()
            elif self.options.model_class is None:
                module = self._read_pickle()
            else:
                module = self._read_weights(self.options.model_class)
        except LoadError:
            raise
        except Exception as error:
            raise LoadError(
                f"{self.path.name} cannot be loaded by PyTorch {self._torch.__version__}: {error}"
            ) from error
        return module.to(self._device).eval()

    def predict(self, request: InferRequest) -> InferResponse:
        with self._torch.inference_mode():
            result = self._module(*self._tensors(request))
        if isinstance(result, dict):
            return self._response(list(result.values()), [str(key) for key in result])
        return self._response(list(result) if isinstance(result, (list, tuple)) else [result], ())

    def _read_script(self) -> Any:
        log.warning(
            "%s is TorchScript, which PyTorch has deprecated: export it with torch.export while you can", self.path.name
        )
        with zipfile.ZipFile(self.path) as pack:
            code = "\n".join(
                pack.read(name).decode() for name in pack.namelist() if "/code/" in name and name.endswith(".py")
            )
        if not self.options.allow_pickle and (match := re.search(r"\b(from_file|save)\(", code)):
            raise refuse_code(self.path, f"a TorchScript program that touches files ({match[1]})", _INSTEAD)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._torch.jit.load(self.path, map_location=self._device)

    def _read_pickle(self) -> Any:
        log.warning("%s is unpickled, as allowed: code that it holds runs now", self.path.name)
        module = self._torch.load(self.path, map_location=self._device, weights_only=False)
        if not isinstance(module, self._torch.nn.Module):
            raise LoadError(
                f"{self.path.name} holds a {type(module).__name__}, not a module; "
                "if these are weights, name their class: FAIRLEAD_MODEL_CLASS=package.module:Class"
            )
        return module

    def _read_weights(self, reference: str) -> Any:
        kind = resolve(reference)
        if not (isinstance(kind, type) and issubclass(kind, self._torch.nn.Module)):
            raise LoadError(f"{reference} is no torch.nn.Module, which these weights could be for")
        config = self.path.parent / "config.json"
        arguments = json.loads(config.read_text()) if config.exists() else {}
        try:
            module = kind(**arguments)
        except TypeError as error:
            raise LoadError(
                f"{reference} cannot be made with {arguments or 'no arguments'}: {error}; its arguments go into config.json"
            ) from error
        if self.form is SAFETENSORS:
            weights = require("safetensors.torch", "torch").load_file(self.path)
        else:
            weights = self._torch.load(self.path, map_location="cpu", weights_only=True)
        module.load_state_dict(weights)
        return module


def _output(name: str, value: Any) -> TensorSpec:
    datatype = DATATYPES.get(str(getattr(value, "dtype", None)))
    if datatype is None:
        raise LoadError(f"output {name!r} is no tensor that a protocol can carry")
    return TensorSpec(name, datatype, _shape(value))


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(length if isinstance(length, int) else -1 for length in value.shape)


def _rows_are_free(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Is the first dimension of all inputs and outputs the same symbol?"""
    first = [value.shape[0] if len(value.shape) else 0 for value in (*inputs, *outputs)]
    return (
        bool(first)
        and not any(isinstance(length, int) for length in first)
        and len({str(length) for length in first}) == 1
    )
