"""A model made of steps, each a model of its own: a preprocessor and a classifier, say.

    class Digits(Pipeline):
        steps = (Scale, Classifier)

Each step gets the one before's outputs as its inputs, and has its own queue, batches and thread. In engine `process` the
steps run side by side in one process; in engine `ray` each is a deployment of its own, so that they may have different
numbers of replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from fairlead.runtime.model import Model
from fairlead.runtime.runner import Runner
from fairlead.runtime.tensors import InferRequest, InferResponse

Step = Callable[[InferRequest], Awaitable[InferResponse]]


class Pipeline(Model):
    steps: ClassVar[Sequence[type[Model]]] = ()
    """The classes of the steps, in order. Each is made with its name, `{pipeline}-{class}`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not self.steps:
            raise ValueError(f"{type(self).__name__} has no steps")
        self._calls: list[Step] | None = None
        self._runners: list[Runner] = []

    def step_names(self) -> list[str]:
        return [f"{self.name}-{step.__name__.lower()}" for step in self.steps]

    def connect(self, calls: Sequence[Step]) -> None:
        """Steps that run elsewhere: an engine calls this before `load`."""
        self._calls = list(calls)

    async def load(self) -> None:
        if self._calls is None:
            self._runners = [
                await load_step(step, name) for step, name in zip(self.steps, self.step_names(), strict=True)
            ]
            self._calls = [runner.infer for runner in self._runners]

    async def predict(self, request: InferRequest) -> Any:
        assert self._calls is not None
        *first, last = self._calls
        for call in first:
            response = await call(request)
            request = InferRequest(
                response.outputs, parameters=request.parameters, headers=request.headers, deadline=request.deadline
            )
        response = await last(request)
        response.model_version = None  # the pipeline's own
        return response

    async def unload(self) -> None:
        for runner in self._runners:
            await runner.close()


async def load_step(step: type[Model], name: str) -> Runner:
    """A step's model, loaded off the event loop, and what runs it."""
    model = step(name)
    loading = await asyncio.to_thread(model.load)
    if asyncio.iscoroutine(loading):
        await loading
    return Runner(model)
