"""Several models, each on its own."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from fairlead.runtime.errors import LoadError, ModelNotFound, NotReady
from fairlead.runtime.model import Model, ModelMetadata
from fairlead.runtime.repository import Repository, State
from fairlead.runtime.tensors import InferRequest, Tensor


class Constant(Model):
    def __init__(self, value: float = 1.0) -> None:
        super().__init__("m")
        self.value = value

    def predict(self, request):
        return np.array([self.value])


def request() -> InferRequest:
    return InferRequest([Tensor("x", np.zeros(1))])


async def answer(repository: Repository, name: str) -> float:
    return float((await repository.runner(name).infer(request())).outputs[0].data[0])


async def test_a_model_is_ready_once_it_is_loaded():
    repository = Repository()
    repository.add("a", Constant)
    assert not await repository.ready("a")
    with pytest.raises(NotReady, match="Model a is not ready: not loaded yet"):
        repository.runner("a")
    await repository.load("a")
    assert await repository.ready("a")
    assert await answer(repository, "a") == 1.0


async def test_one_model_that_loads_slowly_holds_no_other():
    gate = threading.Event()

    class Slow(Constant):
        def load(self):
            gate.wait(60)

    repository = Repository()
    repository.add("slow", Slow)
    repository.add("quick", Constant)
    loading = asyncio.create_task(repository.load("slow"))
    await repository.load("quick")
    assert await answer(repository, "quick") == 1.0
    assert repository.entry("slow").state is State.LOADING
    gate.set()
    await loading
    assert repository.entry("slow").state is State.READY


async def test_a_model_that_fails_to_load_says_why_and_can_be_tried_again():
    class Flaky(Constant):
        tries = 0

        def load(self):
            Flaky.tries += 1
            if Flaky.tries == 1:
                raise FileNotFoundError("weights.bin")

    repository = Repository()
    repository.add("a", Flaky)
    with pytest.raises(LoadError, match=r"model a could not be loaded: FileNotFoundError: weights\.bin"):
        await repository.load("a")
    assert repository.entry("a").reason == "FileNotFoundError: weights.bin"
    await repository.load("a")
    assert await repository.ready("a")


async def test_loading_anew_answers_with_the_old_model_until_the_new_one_is_ready():
    values = iter([1.0, 2.0])
    gates = [threading.Event(), threading.Event()]
    gates[0].set()
    order = iter(gates)

    class Versioned(Constant):
        def load(self):
            next(order).wait(60)

    repository = Repository()
    repository.add("a", lambda: Versioned(next(values)))
    await repository.load("a")
    reloading = asyncio.create_task(repository.load("a"))
    await asyncio.sleep(0.01)
    assert await answer(repository, "a") == 1.0
    gates[1].set()
    await reloading
    assert await answer(repository, "a") == 2.0


async def test_a_failed_reload_leaves_the_old_model():
    makers = iter([Constant, None])
    repository = Repository()
    repository.add("a", lambda: next(makers)())
    await repository.load("a")
    with pytest.raises(LoadError):
        await repository.load("a")
    assert await answer(repository, "a") == 1.0


async def test_versions_are_the_ones_the_model_declares():
    class Versioned(Constant):
        def metadata(self):
            return ModelMetadata(self.name, versions=("3",))

    repository = Repository()
    repository.add("a", Versioned)
    await repository.load("a")
    assert repository.runner("a", "3")
    with pytest.raises(ModelNotFound, match="Version 1 of model a does not exist"):
        repository.runner("a", "1")


async def test_a_model_that_nobody_added_is_found_where_models_lie():
    repository = Repository(find=lambda name: Constant if name == "there" else None)
    await repository.load("there")
    assert await answer(repository, "there") == 1.0
    with pytest.raises(ModelNotFound):
        await repository.load("elsewhere")


@pytest.mark.parametrize("unwell", [lambda self: False, lambda self: 1 / 0])
async def test_a_model_that_says_it_is_unwell_is_not_ready(unwell):
    class Unwell(Constant):
        health = unwell

    repository = Repository()
    repository.add("a", Unwell)
    await repository.load("a")
    assert not await repository.ready("a")
    assert not await repository.all_ready()


async def test_a_server_without_models_is_not_ready():
    assert not await Repository().all_ready()


async def test_with_a_bound_models_are_loaded_when_they_are_asked_for():
    repository = Repository(max_loaded=1)
    for name in ("a", "b"):
        repository.add(name, Constant)
    assert await repository.all_ready()
    assert repository.runners == {}
    for name in ("a", "b", "a"):
        runner = await repository.loaded(name)
        assert (await runner.infer(request())).model_name == name
        assert list(repository.runners) == [name]
    assert repository.entry("b").state is State.UNAVAILABLE
    assert repository.entry("b").reason == "loaded when it is asked for"
    with pytest.raises(ModelNotFound):
        await repository.loaded("c")


async def test_a_model_that_must_leave_finishes_what_it_has_accepted():
    gate = threading.Event()

    class Slow(Constant):
        def predict(self, request):
            gate.wait(60)
            return super().predict(request)

    repository = Repository(max_loaded=1)
    repository.add("slow", Slow)
    repository.add("quick", Constant)
    accepted = asyncio.create_task((await repository.loaded("slow")).infer(request()))
    await asyncio.sleep(0)
    other = asyncio.create_task(repository.loaded("quick"))
    await asyncio.sleep(0.01)
    assert not other.done()
    gate.set()
    assert (await accepted).outputs[0].data.tolist() == [1.0]
    assert (await (await other).infer(request())).model_name == "quick"


async def test_with_a_bound_a_model_that_cannot_load_is_not_ready_and_says_why():
    class Broken(Constant):
        def load(self):
            raise FileNotFoundError("weights.bin")

    repository = Repository(max_loaded=1)
    repository.add("a", Broken)
    with pytest.raises(NotReady, match=r"weights\.bin"):
        await repository.loaded("a")
    assert not await repository.ready("a")
