"""Calls a model's predict with several requests at once, and gives each its own outcome: an error is of the request that made it."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.runtime.batching import merge, split
from fairlead.runtime.errors import ModelError, ServingError
from fairlead.runtime.model import Model
from fairlead.runtime.tensors import InferRequest, InferResponse, as_response

Outcome = InferResponse | BaseException


def predict_together(model: Model, names: Sequence[str], requests: Sequence[InferRequest]) -> list[Outcome]:
    """Predict the requests in one call. If that fails, one by one: a bad row fails alone."""
    try:
        return list(_cut(as_response(model.predict(merge(requests)), names), requests))
    except Exception as error:
        if len(requests) == 1:
            return [serving_error(model.name, error)]
    outcomes: list[Outcome] = []
    for request in requests:
        outcomes += predict_together(model, names, [request])
    return outcomes


async def predict_together_async(model: Model, names: Sequence[str], requests: Sequence[InferRequest]) -> list[Outcome]:
    """`predict_together` for a predict that is a coroutine."""
    try:
        return list(_cut(as_response(await model.predict(merge(requests)), names), requests))
    except Exception as error:
        if len(requests) == 1:
            return [serving_error(model.name, error)]
    outcomes: list[Outcome] = []
    for request in requests:
        outcomes += await predict_together_async(model, names, [request])
    return outcomes


def _cut(response: InferResponse, requests: Sequence[InferRequest]) -> list[InferResponse]:
    if len(requests) == 1:
        return [response]
    return split(response, [request.inputs[0].data.shape[0] for request in requests])


def serving_error(model: str, error: Exception) -> ServingError:
    """What a door says of an error that the model's code raised."""
    if isinstance(error, ServingError):
        return error
    wrapped = ModelError(model, error)
    wrapped.__cause__ = error
    return wrapped
