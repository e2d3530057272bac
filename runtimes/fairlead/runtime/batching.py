"""Adaptive micro-batching, the decisions: which waiting requests are predicted together.

There is no timer. Requests queue only while the model is busy (or, for a model that runs on the event loop, while that
turn of the loop reads the requests which have arrived); whatever waits together and looks alike then goes together.
So a lone request never waits, and the batch size follows the load by itself.

Predicted together, rows give what they give alone, except that BLAS may sum in another order for another number of
rows: equal within float rounding (docs/runtime.md states what was measured). `max_batch_size=1` turns batching off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from fairlead.runtime.errors import Overloaded
from fairlead.runtime.tensors import InferRequest, InferResponse, Tensor

Ticket = TypeVar("Ticket")


class Pending(Generic[Ticket]):
    """A request that waits, and the ticket (a future) with which its sender is told the outcome."""

    __slots__ = ("arrived", "key", "request", "rows", "ticket")

    def __init__(self, request: InferRequest, ticket: Ticket, key: Hashable, rows: int, arrived: float) -> None:
        self.request = request
        self.ticket = ticket
        self.key = key
        self.rows = rows
        self.arrived = arrived


def batch_key(request: InferRequest) -> tuple[Hashable, int]:
    """What requests must share to be predicted together, and this one's rows; (None, 0) if it must go alone.

    That is: names, datatypes, all dimensions but the first, parameters. Requested outputs may differ: they are selected
    afterwards.
    """
    inputs = request.inputs
    if not inputs or request.body is not None:
        return None, 0
    if len(inputs) == 1:  # almost all: no loop, no tuple of tuples
        tensor = inputs[0]
        shape = tensor.data.shape
        if not shape:
            return None, 0
        key: Hashable = (tensor.name, tensor.datatype, shape[1:])
        rows = shape[0]
    else:
        shapes = [tensor.data.shape for tensor in inputs]
        if not all(shapes) or len({shape[0] for shape in shapes}) != 1:
            return None, 0
        rows = shapes[0][0]
        key = tuple((tensor.name, tensor.datatype, tensor.data.shape[1:]) for tensor in inputs)
    if request.parameters:
        parameters = _hashable(request.parameters)
        if parameters is None:
            return None, 0
        key = (key, parameters)
    return key, rows


PROTOCOL_PARAMETERS = frozenset({"binary_data_output", "timeout", "priority"})
"""Parameters for the server, not for the model: they may differ within a batch."""


def _hashable(parameters: dict[str, Any]) -> Hashable:
    items = [(key, value) for key, value in sorted(parameters.items()) if key not in PROTOCOL_PARAMETERS]
    if all(isinstance(value, (str, int, float, bool)) for _, value in items):
        return tuple((key, type(value), value) for key, value in items)
    return None


class Queue(Generic[Ticket]):
    """Requests that wait for one model, oldest first, grouped by what may go together."""

    def __init__(self, max_batch_size: int, max_length: int) -> None:
        self.max_batch_size = max_batch_size
        self.max_length = max_length
        self._groups: dict[Hashable, deque[Pending[Ticket]]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, pending: Pending[Ticket]) -> None:
        """Raises Overloaded if `max_length` requests wait already."""
        if self._length >= self.max_length:
            raise Overloaded(f"{self._length} requests are waiting for this model already; try again later")
        group = self._groups.get(pending.key)
        if group is None:
            group = self._groups[pending.key] = deque()
        group.append(pending)
        self._length += 1

    def take(self) -> list[Pending[Ticket]]:
        """The oldest request, and those like it, oldest first, while they fit into `max_batch_size` rows.

        A request that is larger by itself goes alone: the limit is for joining, not for refusing.
        """
        if not self._groups:
            return []
        key = (
            min(self._groups, key=lambda k: self._groups[k][0].arrived)
            if len(self._groups) > 1
            else next(iter(self._groups))
        )
        group = self._groups[key]
        batch = [group.popleft()]
        if key is not None:
            rows = batch[0].rows
            while group and rows + group[0].rows <= self.max_batch_size:
                rows += group[0].rows
                batch.append(group.popleft())
        if not group:
            del self._groups[key]
        self._length -= len(batch)
        return batch


def merge(requests: Sequence[InferRequest]) -> InferRequest:
    """One request with the rows of all of them, in order. They share a batch key."""
    first = requests[0]
    if len(requests) == 1:
        return first
    inputs = [
        Tensor(tensor.name, np.concatenate([request.inputs[i].data for request in requests]), tensor.datatype)
        for i, tensor in enumerate(first.inputs)
    ]
    return InferRequest(inputs, model_name=first.model_name, parameters=first.parameters)


def split(response: InferResponse, rows: Sequence[int]) -> list[InferResponse]:
    """The response of a merged request, cut into what each request gets. Raises ValueError if its rows do not add up."""
    if len(rows) == 1:
        return [response]
    total = sum(rows)
    for tensor in response.outputs:
        if tensor.data.shape[:1] != (total,):
            raise ValueError(f"output {tensor.name!r} has shape {list(tensor.shape)} for {total} rows")
    if response.body is not None:
        raise ValueError("a JSON answer cannot be cut into rows")
    parts = []
    start = 0
    for count in rows:
        outputs = [
            Tensor(tensor.name, tensor.data[start : start + count], tensor.datatype, tensor.parameters)
            for tensor in response.outputs
        ]
        parts.append(InferResponse(outputs, model_version=response.model_version, parameters=response.parameters))
        start += count
    return parts
