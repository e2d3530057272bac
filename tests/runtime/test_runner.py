"""One model under load: batches, threads, deadlines, failures."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from fairlead.runtime.errors import DeadlineExceeded, InvalidRequest, ModelError, NotReady, Overloaded
from fairlead.runtime.model import Model, TensorSpec
from fairlead.runtime.runner import Runner
from fairlead.runtime.tensors import InferRequest, InferResponse, Tensor


def request(value: float = 1.0, rows: int = 1, **kwargs: object) -> InferRequest:
    return InferRequest([Tensor("x", np.full((rows, 1), value))], **kwargs)  # type: ignore[arg-type]


class Gated(Model):
    """Waits for `gate` in predict, and notes the values of each batch; negative rows fail the whole call."""

    batchable = True

    def __init__(self, name: str = "m") -> None:
        super().__init__(name)
        self.gate = threading.Event()
        self.batches: list[list[float]] = []

    def predict(self, request):
        self.gate.wait(60)
        values = request.array[:, 0].tolist()
        self.batches.append(values)
        if min(values) < 0:
            raise ValueError(f"negative: {min(values)}")
        return request.array * 2


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_lone_request_goes_alone_and_at_once():
    model = Gated()
    model.gate.set()
    response = await Runner(model).infer(request(3.0))
    assert response.outputs[0].data.tolist() == [[6.0]]
    assert model.batches == [[3.0]]


async def test_requests_that_wait_while_the_model_is_busy_are_predicted_together():
    model = Gated()
    runner = Runner(model, max_batch_size=4)
    calls = [asyncio.create_task(runner.infer(request(0.0)))]
    await until(lambda: runner.executions == 1)
    calls += [asyncio.create_task(runner.infer(request(float(i)))) for i in range(1, 7)]
    await until(lambda: runner.waiting == 6)
    model.gate.set()
    answers = [response.outputs[0].data.tolist() for response in await asyncio.gather(*calls)]
    assert answers == [[[2.0 * i]] for i in range(7)]
    assert model.batches == [[0.0], [1.0, 2.0, 3.0, 4.0], [5.0, 6.0]]


async def test_a_bad_row_fails_alone():
    model = Gated()
    model.gate.set()
    runner = Runner(model)
    results = await asyncio.gather(*(runner.infer(request(v)) for v in (1.0, -1.0, 2.0)), return_exceptions=True)
    assert isinstance(results[1], ModelError)
    assert "ValueError: negative: -1.0" in str(results[1])
    assert [r.outputs[0].data.tolist() for r in (results[0], results[2])] == [[[2.0]], [[4.0]]]


async def test_batching_can_be_turned_off():
    model = Gated()
    model.gate.set()
    runner = Runner(model, max_batch_size=1)
    await asyncio.gather(*(runner.infer(request(float(i))) for i in range(3)))
    assert sorted(model.batches) == [[0.0], [1.0], [2.0]]


async def test_a_model_whose_rows_do_not_add_up_is_predicted_one_by_one():
    class Mean(Model):
        batchable = True

        def predict(self, request):
            return request.array.mean(keepdims=True)[0]

    runner = Runner(Mean("m"))
    answers = await asyncio.gather(*(runner.infer(request(float(i), rows=2)) for i in (1, 3)))
    assert [answer.outputs[0].data.tolist() for answer in answers] == [[1.0], [3.0]]


async def test_a_coroutine_predict_is_awaited_for_many_requests_at_a_time():
    class Meeting(Model):
        def __init__(self):
            super().__init__("m")
            self.barrier = asyncio.Barrier(3)

        async def predict(self, request):
            await self.barrier.wait()
            return request.array

    runner = Runner(Meeting())
    async with asyncio.timeout(60):
        await asyncio.gather(*(runner.infer(request()) for _ in range(3)))


async def test_a_slow_predict_does_not_hold_the_event_loop():
    model = Gated()
    runner = Runner(model)
    call = asyncio.create_task(runner.infer(request()))
    await until(lambda: runner.executions == 1)
    started = time.monotonic()
    for _ in range(100):
        await asyncio.sleep(0)
    assert time.monotonic() - started < 30
    assert not call.done()
    model.gate.set()
    await call


async def test_a_quick_compute_bound_predict_moves_to_the_event_loop():
    threads: list[int] = []

    class Quick(Model):
        compute_bound = True

        def predict(self, request):
            threads.append(threading.get_ident())
            return request.array

    runner = Runner(Quick("m"))
    for _ in range(6):
        await runner.infer(request())
    here = threading.get_ident()
    assert threads[0] != here
    assert threads[-1] == here


async def test_a_full_queue_refuses_and_the_rest_is_answered():
    model = Gated()
    runner = Runner(model, max_queue=2, max_batch_size=1)
    calls = [asyncio.create_task(runner.infer(request()))]
    await until(lambda: runner.executions == 1)
    calls += [asyncio.create_task(runner.infer(request())) for _ in range(3)]
    await until(lambda: calls[3].done())
    with pytest.raises(Overloaded):
        calls[3].result()
    model.gate.set()
    await asyncio.gather(*calls[:3])


async def test_a_request_whose_deadline_passes_while_it_waits_is_never_predicted():
    model = Gated()
    runner = Runner(model, max_batch_size=1)
    first = asyncio.create_task(runner.infer(request(1.0)))
    await until(lambda: runner.executions == 1)
    with pytest.raises(DeadlineExceeded):
        await runner.infer(request(2.0, deadline=time.monotonic() + 0.01))
    model.gate.set()
    await first
    await runner.infer(request(3.0))
    assert model.batches == [[1.0], [3.0]]


async def test_a_cancelled_request_is_never_predicted():
    model = Gated()
    runner = Runner(model, max_batch_size=1)
    first = asyncio.create_task(runner.infer(request(1.0)))
    await until(lambda: runner.executions == 1)
    second = asyncio.create_task(runner.infer(request(2.0)))
    await until(lambda: runner.waiting == 1)
    second.cancel()
    model.gate.set()
    await first
    await runner.infer(request(3.0))
    assert model.batches == [[1.0], [3.0]]
    assert runner.in_flight == 0


async def test_close_finishes_what_was_accepted_and_refuses_the_rest():
    unloaded: list[bool] = []
    model = Gated()
    model.unload = lambda: unloaded.append(True)  # type: ignore[method-assign]
    runner = Runner(model)
    call = asyncio.create_task(runner.infer(request()))
    await until(lambda: runner.executions == 1)
    closing = asyncio.create_task(runner.close())
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await runner.infer(request())
    assert not unloaded
    model.gate.set()
    await call
    await closing
    assert unloaded


async def test_preprocess_and_postprocess_surround_predict():
    class Steps(Model):
        inputs = (TensorSpec("x", "FP64", (-1, 1)),)

        def preprocess(self, request):
            return InferRequest([Tensor("x", request.array + 1)])

        async def postprocess(self, response, request):
            return {"y": response.outputs[0].data * 10}

        def predict(self, request):
            return request.array * 2

    response = await Runner(Steps("m")).infer(request(1.0, id="42"))
    assert response["y"].tolist() == [[40.0]]
    assert (response.id, response.model_name) == ("42", "m")


async def test_the_clients_fault_stays_the_clients_fault():
    class Picky(Model):
        def predict(self, request):
            raise InvalidRequest("not like this")

    with pytest.raises(InvalidRequest, match="not like this"):
        await Runner(Picky("m")).infer(request())


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (np.zeros(1), ["output-0"]),
        ([1, 2], ["output-0"]),
        ({"a": np.zeros(1), "b": [1]}, ["a", "b"]),
        ((np.zeros(1), np.zeros(1)), ["output-0", "output-1"]),
        (Tensor("t", np.zeros(1)), ["t"]),
        (InferResponse([Tensor("u", np.zeros(1))]), ["u"]),
        (["a", "b"], ["output-0"]),
    ],
)
async def test_predict_may_return(result, names):
    class Returns(Model):
        def predict(self, request):
            return result

    response = await Runner(Returns("m")).infer(request())
    assert [tensor.name for tensor in response.outputs] == names


async def test_what_is_no_tensor_is_the_models_fault():
    class Returns(Model):
        def predict(self, request):
            return [[1], [2, 3]]

    with pytest.raises(ModelError, match="not a tensor"):
        await Runner(Returns("m")).infer(request())


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_generator_streams(asynchronous):
    class Sync(Model):
        def predict(self, request):
            for i in range(3):
                yield np.array([i])

    class Async(Model):
        async def predict(self, request):
            for i in range(3):
                yield np.array([i])

    runner = Runner(Async("m") if asynchronous else Sync("m"))
    assert [r.outputs[0].data.tolist() async for r in runner.stream(request())] == [[0], [1], [2]]
    with pytest.raises(InvalidRequest, match="answered 3 responses"):
        await runner.infer(request())
