"""Runs one loaded model: the way of a request from the door through preprocess, queue, batch and predict, and back.

All methods run on the event loop; the model's synchronous methods run where `placement` says.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fairlead.runtime.batching import Pending, Queue, batch_key
from fairlead.runtime.contract import Contract
from fairlead.runtime.errors import DeadlineExceeded, InvalidRequest, NotReady, NotSupported, ServingError
from fairlead.runtime.model import Model
from fairlead.runtime.operations.metrics import Metrics
from fairlead.runtime.placement import Placement
from fairlead.runtime.tensors import InferRequest, InferResponse, as_response
from fairlead.runtime.threads import Workers
from fairlead.runtime.together import Outcome, predict_together, predict_together_async, serving_error

Waiting = Pending[asyncio.Future[InferResponse]]

DEFAULT_MAX_BATCH_SIZE = 64
DEFAULT_MAX_QUEUE = 1024


class Runner:
    def __init__(
        self,
        model: Model,
        *,
        max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
        max_queue: int = DEFAULT_MAX_QUEUE,
        metrics: Metrics | None = None,
        version: str | None = None,
    ) -> None:
        metrics = metrics or Metrics()
        self.model = model
        self.contract = Contract(model.metadata())
        self.json_input = model.json_input
        self.version = version
        self.in_flight = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._batches = model.batchable and max_batch_size > 1
        self._queue: Queue[asyncio.Future[InferResponse]] = Queue(
            min(max_batch_size, model.max_batch_size or max_batch_size), max_queue
        )
        self._asynchronous = inspect.iscoroutinefunction(model.predict)
        self._streams = inspect.isgeneratorfunction(model.predict) or inspect.isasyncgenfunction(model.predict)
        self._preprocesses = type(model).preprocess is not Model.preprocess
        self._postprocesses = type(model).postprocess is not Model.postprocess
        # A coroutine that predicts one request at a time may be entered as often as requests are admitted.
        self._slots = max_queue if self._asynchronous and not self._batches else max(1, model.threads)
        self._workers = Workers(f"predict-{model.name}", max(1, model.threads))
        self._placement = Placement(compute_bound=model.compute_bound)
        self._flush_due = False
        self._tasks: set[asyncio.Task[None]] = set()
        labels = (model.name,)
        self._predict_seconds = metrics.predict.child(labels)
        self._preprocess_seconds = metrics.preprocess.child(labels)
        self._postprocess_seconds = metrics.postprocess.child(labels)
        self._explain_seconds = metrics.explain.child(labels)
        self._queue_seconds = metrics.queue_seconds.child(labels)
        self._batch_rows = metrics.batch_rows.child(labels)
        self._batch_requests = metrics.batch_requests.child(labels)
        self.predictions = 0
        self.failures = 0
        self.executions = 0
        self.last_inference_ms = 0

    # --- What doors call ----------------------------------------------------------------------------------------

    async def infer(self, request: InferRequest) -> InferResponse:
        """Check, prepare, predict, finish. Raises ServingError."""
        self.contract.check(request)
        self._admit()
        try:
            prepared = await self._preprocess(request) if self._preprocesses else request
            if not isinstance(prepared, InferRequest):
                return self._finish(as_response(prepared, self.contract.output_names), request)
            if self._streams:
                response = await self._only(prepared)
            else:
                response = await self._enqueue(prepared)
            if self._postprocesses:
                response = await self._postprocess(response, request)
            return self._finish(response, request)
        finally:
            self._leave()

    async def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Each response of a model whose predict is a generator; the one response of any other."""
        if not self._streams:
            yield await self.infer(request)
            return
        self.contract.check(request)
        self._admit()
        try:
            prepared = await self._preprocess(request) if self._preprocesses else request
            async for response in self._generate(prepared):
                if self._postprocesses:
                    response = await self._postprocess(response, request)
                yield self._finish(response, request)
        finally:
            self._leave()

    async def explain(self, request: InferRequest) -> InferResponse:
        self.contract.check(request)
        if type(self.model).explain is Model.explain:
            raise NotSupported(f"Model {self.model.name} has no explain().")
        self._admit()
        try:
            prepared = await self._preprocess(request) if self._preprocesses else request
            started = time.perf_counter()
            result = await self._call(self.model.explain, prepared)
            self._explain_seconds.observe(time.perf_counter() - started)
            return self._finish(as_response(result, self.contract.output_names), request)
        finally:
            self._leave()

    async def healthy(self) -> bool:
        """What `Model.health` says; the default one costs nothing."""
        if type(self.model).health is Model.health:
            return True
        try:
            return bool(await self._call(self.model.health))
        except ServingError:
            return False

    @property
    def success_ns(self) -> int:
        """Time spent in predict, for V2's statistics."""
        return int(self._predict_seconds.total * 1e9)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def close(self) -> None:
        """Refuse what comes now, finish what came before, then let the model go."""
        self._closed = True
        if self.in_flight:
            self._idle.clear()
            await self._idle.wait()
        await self._call(self.model.unload)
        self._workers.close()

    # --- The way of one request ---------------------------------------------------------------------------------

    def _admit(self) -> None:
        if self._closed:
            raise NotReady(f"Model {self.model.name} is unloading.")
        self.in_flight += 1

    def _leave(self) -> None:
        self.in_flight -= 1
        if self._closed and not self.in_flight:
            self._idle.set()

    async def _preprocess(self, request: InferRequest) -> Any:
        started = time.perf_counter()
        prepared = await self._call(self.model.preprocess, request)
        self._preprocess_seconds.observe(time.perf_counter() - started)
        return request if prepared is None else prepared

    async def _postprocess(self, response: InferResponse, request: InferRequest) -> InferResponse:
        started = time.perf_counter()
        result = await self._call(self.model.postprocess, response, request)
        self._postprocess_seconds.observe(time.perf_counter() - started)
        return as_response(result, self.contract.output_names)

    def _finish(self, response: InferResponse, request: InferRequest) -> InferResponse:
        self.contract.select(response, request)
        response.model_name = self.model.name
        if response.model_version is None:
            response.model_version = self.version
        response.id = request.id
        self.predictions += 1
        self.last_inference_ms = int(time.time() * 1000)
        return response

    async def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """One of the model's methods other than predict, awaited or in the thread; its errors become ours."""
        try:
            if inspect.iscoroutinefunction(method):
                return await method(*arguments)
            return await self._workers.run(method, *arguments)
        except Exception as error:
            raise serving_error(self.model.name, error) from error

    # --- Queue and batches --------------------------------------------------------------------------------------

    def _enqueue(self, request: InferRequest) -> asyncio.Future[InferResponse]:
        key, rows = batch_key(request) if self._batches else (None, 0)
        future: asyncio.Future[InferResponse] = self._loop.create_future()
        self._queue.add(Pending(request, future, key, rows, time.perf_counter()))
        if request.deadline is not None:
            self._expire_at(request.deadline, future)
        if not self._flush_due:
            # Not now: this turn of the loop may still read requests that have arrived, and they go together.
            self._flush_due = True
            self._loop.call_soon(self._flush)
        return future

    def _expire_at(self, deadline: float, future: asyncio.Future[InferResponse]) -> None:
        def expire() -> None:
            if not future.done():
                future.set_exception(DeadlineExceeded("the deadline passed before the model answered"))

        timer = self._loop.call_later(deadline - time.monotonic(), expire)
        future.add_done_callback(lambda _: timer.cancel())

    def _flush(self) -> None:
        """Start one batch if the model has room; come back for the next one, so that the loop gets its turn."""
        self._flush_due = False
        if self._slots == 0:
            return
        batch = [pending for pending in self._queue.take() if not pending.ticket.done()]  # cancelled or expired: gone
        if batch:
            self._start(batch)
        if len(self._queue) and not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _start(self, batch: list[Waiting]) -> None:
        now = time.perf_counter()
        for pending in batch:
            self._queue_seconds.observe(now - pending.arrived)
        self._batch_requests.observe(len(batch))
        self._batch_rows.observe(sum(pending.rows for pending in batch) or 1)
        self.executions += 1
        requests = [pending.request for pending in batch]
        if self._asynchronous:
            self._slots -= 1
            task = self._loop.create_task(self._run_coroutine(batch, requests))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        elements = sum(tensor.data.size for request in requests for tensor in request.inputs)
        if self._placement.inline(elements):
            cpu = time.thread_time()
            outcomes = predict_together(self.model, self.contract.output_names, requests)
            self._placement.measured(elements, time.thread_time() - cpu, inline=True)
            self._predict_seconds.observe(time.perf_counter() - now)
            _deliver(batch, outcomes)
            return
        self._slots -= 1
        self._workers.submit(lambda: self._run_in_thread(batch, requests, elements))

    def _run_in_thread(self, batch: list[Waiting], requests: list[InferRequest], elements: int) -> None:
        started, cpu = time.perf_counter(), time.thread_time()
        outcomes = predict_together(self.model, self.contract.output_names, requests)
        seconds, cpu_seconds = time.perf_counter() - started, time.thread_time() - cpu

        def done() -> None:
            self._placement.measured(elements, cpu_seconds, inline=False)
            self._completed(batch, outcomes, seconds)

        self._loop.call_soon_threadsafe(done)

    async def _run_coroutine(self, batch: list[Waiting], requests: list[InferRequest]) -> None:
        started = time.perf_counter()
        outcomes = await predict_together_async(self.model, self.contract.output_names, requests)
        self._completed(batch, outcomes, time.perf_counter() - started)

    def _completed(self, batch: list[Waiting], outcomes: Sequence[Outcome], seconds: float) -> None:
        self._slots += 1
        self._predict_seconds.observe(seconds)
        _deliver(batch, outcomes)
        self._flush()

    # --- Streams ------------------------------------------------------------------------------------------------

    async def _only(self, request: InferRequest) -> InferResponse:
        """The response of a stream of one, for callers that cannot take more."""
        responses = [response async for response in self._generate(request)]
        if len(responses) != 1:
            raise InvalidRequest(
                f"Model {self.model.name} answered {len(responses)} responses: call it with ModelStreamInfer or generate_stream"
            )
        return responses[0]

    async def _generate(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        names = self.contract.output_names
        try:
            generator = self.model.predict(request)
            if inspect.isasyncgen(generator):
                async for item in generator:
                    yield as_response(item, names)
                return
            end = object()
            while (item := await self._workers.run(next, generator, end)) is not end:
                yield as_response(item, names)
        except Exception as error:
            raise serving_error(self.model.name, error) from error


def _deliver(batch: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
    for pending, outcome in zip(batch, outcomes, strict=True):
        future = pending.ticket
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
