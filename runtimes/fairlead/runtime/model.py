"""The model contract: a class with `load()` and `predict()`, and what it declares about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fairlead.runtime.tensors import DTYPES, InferRequest, InferResponse, RequestedOutput, Tensor


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A declared input or output. In `shape`, -1 is any length; `shape=None` is any shape at all."""

    name: str
    datatype: str
    shape: tuple[int, ...] | None
    optional: bool = False
    any_name: bool = False
    """The name is ours, not the model file's: a client may send a single input under any name, as KServe's sklearn,
    xgboost and lightgbm servers allow."""
    columns: tuple[str, ...] = ()
    """Names of a matrix's columns: a client may send each as an input of its own (V1 rows that are objects do)."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Shown in the metadata: feature names, class labels."""

    def __post_init__(self) -> None:
        if self.datatype not in DTYPES:
            raise ValueError(f"{self.name}: {self.datatype!r} is not a V2 datatype; they are {', '.join(DTYPES)}")


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What V2's model metadata says. Where `inputs` is empty nothing is checked at the door."""

    name: str
    platform: str = "python"
    versions: tuple[str, ...] = ()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Model:
    """Base class of everything that is served; only `predict` must be written.

    `load` is called once, in a worker thread, before the first request. `predict` and its companions may be plain
    methods (they run off the event loop when they are slow), coroutines, or generators (each item is one response of a
    stream). What raises `InvalidRequest` is the client's fault (400), anything else the model's (500).
    """

    inputs: Sequence[TensorSpec] = ()
    """Declared inputs: a request that does not fit them never reaches the model."""
    outputs: Sequence[TensorSpec] = ()
    platform: str = "python"

    batchable: bool = False
    """True if the first dimension of every input and output counts independent rows, so that requests which wait
    together may be predicted together."""
    max_batch_size: int | None = None
    """Rows that one `predict` may be given; None: the server's setting."""
    compute_bound: bool = False
    """True if the time of a synchronous `predict` depends on nothing but the size of its inputs: no I/O, no locks.
    Such a predict runs on the event loop while it is measured to take well under a millisecond: no thread hop."""
    threads: int = 1
    """Synchronous predicts that may run at the same time."""
    json_input: ClassVar[bool] = False
    """True if V1 requests are to arrive as JSON in `request.body`, not converted to tensors."""

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self) -> Any:
        """Read the model. Raise LoadError (or anything) if that cannot be done; the server says why and exits."""

    def unload(self) -> Any:
        """Let go of what `load` took."""

    def preprocess(self, request: InferRequest) -> Any:
        """Turn what the client sent into what `predict` takes. Called for each request, before batching."""
        return request

    def predict(self, request: InferRequest) -> Any:
        """Answer. Return an array, a mapping of name to array, a Tensor, or an InferResponse."""
        raise NotImplementedError(f"{type(self).__name__} has no predict()")

    def postprocess(self, response: InferResponse, request: InferRequest) -> Any:
        """Turn what `predict` returned into what the client gets. Called for each request, after batching."""
        return response

    def explain(self, request: InferRequest) -> Any:
        """Answer V1's `:explain`; same returns as `predict`."""
        raise NotImplementedError(f"{type(self).__name__} has no explain()")

    def health(self) -> Any:
        """False, or raise, if the model that is loaded can no longer answer. Asked by readiness probes."""
        return True

    def metadata(self) -> ModelMetadata:
        return ModelMetadata(self.name, platform=self.platform, inputs=tuple(self.inputs), outputs=tuple(self.outputs))


__all__ = ["InferRequest", "InferResponse", "Model", "ModelMetadata", "RequestedOutput", "Tensor", "TensorSpec"]
