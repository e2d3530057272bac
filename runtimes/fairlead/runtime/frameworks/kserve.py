"""kserve.Model subclasses, unchanged: they get what KServe's server would give them, and their answers are read back.

V1 requests arrive as the JSON document, V2 requests as kserve's InferRequest. Imported only where a user's model has
imported kserve already.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import numpy as np

from fairlead.runtime.errors import InvalidRequest, LoadError, NotReady
from fairlead.runtime.model import Model, ModelMetadata, TensorSpec
from fairlead.runtime.tensors import Array, InferRequest, InferResponse, Tensor, as_response, datatype_of


def adapt(name: str, target: Any) -> Model:
    """A Model around a kserve model: asynchronous if any of its steps is."""
    steps = (_own(target.preprocess), target.predict, _own(target.postprocess))
    asynchronous = any(inspect.iscoroutinefunction(step) for step in steps)
    return AsyncKServeModel(name, target) if asynchronous else KServeModel(name, target)


def _own(step: Any) -> Any:
    """A step as the user wrote it. kserve's own ones are coroutines that hand their argument on: for them, just that."""
    return _as_it_is if step.__module__.startswith("kserve") else step


def _as_it_is(value: Any, *_: Any) -> Any:
    return value


class KServeModel(Model):
    platform = "kserve"
    json_input = True

    def __init__(self, name: str, target: Any) -> None:
        super().__init__(name)
        self.target = target
        self._before = _own(target.preprocess)
        self._after = _own(target.postprocess)

    def load(self) -> None:
        # Some models say False, some leave `ready` unset and say nothing: only a plain no is one.
        if self.target.load() is False:
            raise LoadError(f"{type(self.target).__name__}.load() returned False")
        self.target.ready = True
        self.inputs = _specs(self.target.get_input_types())
        self.outputs = _specs(self.target.get_output_types())

    def unload(self) -> None:
        self.target.stop()

    def predict(self, request: InferRequest) -> Any:
        payload, headers = _payload(request), dict(request.headers)
        try:
            answer = self.target.predict(self._before(payload, headers), headers)
            return _response(self._after(answer, headers), request)
        except Exception as error:
            raise _ours(error) from error

    def explain(self, request: InferRequest) -> Any:
        payload, headers = _payload(request), dict(request.headers)
        try:
            return _response(self.target.explain(self._before(payload, headers), headers), request)
        except Exception as error:
            raise _ours(error) from error

    async def health(self) -> bool:
        return bool(await self.target.healthy())

    def metadata(self) -> ModelMetadata:
        return ModelMetadata(self.name, self.platform, inputs=tuple(self.inputs), outputs=tuple(self.outputs))


class AsyncKServeModel(KServeModel):
    """Steps that are not coroutines run in threads, so that they hold nobody up."""

    async def predict(self, request: InferRequest) -> Any:
        return await self._run(self.target.predict, request)

    async def explain(self, request: InferRequest) -> Any:
        return await self._run(self.target.explain, request, finish=False)

    async def _run(self, step: Any, request: InferRequest, *, finish: bool = True) -> Any:
        headers = dict(request.headers)
        try:
            answer = await _step(step, await _step(self._before, _payload(request), headers), headers)
            return _response(await _step(self._after, answer, headers) if finish else answer, request)
        except Exception as error:
            raise _ours(error) from error


async def _step(step: Any, *arguments: Any) -> Any:
    if inspect.iscoroutinefunction(step):
        return await step(*arguments)
    if step is _as_it_is:
        return arguments[0]
    return await asyncio.to_thread(step, *arguments)


def _payload(request: InferRequest) -> Any:
    """V1's document as it came, or a kserve InferRequest over the same arrays."""
    if request.body is not None:
        return request.body
    from kserve.protocol import infer_type

    class Input(infer_type.InferInput):  # type: ignore[misc]
        """Gives its array as it is, and makes the list that `data` is in KServe only if it is asked for."""

        def __init__(self, tensor: Tensor) -> None:
            super().__init__(tensor.name, list(tensor.shape), tensor.datatype, parameters=tensor.parameters)
            self.array = tensor.data

        def as_numpy(self) -> Array:
            return self.array

        @property
        def data(self) -> list[Any]:
            flat: list[Any] = self.array.reshape(-1).tolist()
            return [item.decode() if isinstance(item, bytes) else item for item in flat]

    inputs = [Input(tensor) for tensor in request.inputs]
    return infer_type.InferRequest(request.model_name, inputs, request_id=request.id, parameters=request.parameters)


def _response(answer: Any, request: InferRequest) -> InferResponse:
    """A kserve InferResponse's tensors, or a V1 document: as it is for V1, its predictions as a tensor for V2."""
    if isinstance(answer, tuple) and len(answer) == 2:  # (response, headers)
        answer = answer[0]
    if hasattr(answer, "outputs") and hasattr(answer, "model_name"):
        outputs = [_tensor(output) for output in answer.outputs]
        return InferResponse(outputs, id=answer.id, parameters=dict(answer.parameters or {}) or None)
    if request.body is None and isinstance(answer, dict) and "predictions" in answer:
        return as_response({"output-0": answer["predictions"]})
    return InferResponse([], body=answer)


def _tensor(output: Any) -> Tensor:
    array = output.as_numpy()
    if output.datatype == "BYTES":
        array = np.frompyfunc(lambda value: value.encode() if isinstance(value, str) else value, 1, 1)(array)
        return Tensor(output.name, array, "BYTES")
    return Tensor(output.name, array, datatype_of(array.dtype))


def _specs(types: Any) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(str(item["name"]), str(item["datatype"]), tuple(item["shape"]) if item.get("shape") else None)
        for item in types or ()
    )


def _ours(error: Exception) -> Exception:
    """kserve's errors that speak of the client or of readiness; told by name, as everything of kserve here."""
    kind = type(error).__name__
    if type(error).__module__.startswith("kserve"):
        if kind == "InvalidInput":
            return InvalidRequest(str(error))
        if kind == "ModelNotReady":
            return NotReady(str(error))
    return error
