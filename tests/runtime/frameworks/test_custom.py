"""A user's own classes and functions, kserve's among them."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairlead.runtime.errors import InvalidRequest, LoadError
from fairlead.runtime.frameworks import LoadOptions, load
from fairlead.runtime.frameworks.custom import as_model, from_file, from_import_path
from fairlead.runtime.model import Model
from fairlead.runtime.tensors import InferRequest, Tensor, as_response

DOUBLER = """
from fairlead.runtime import Model

class Doubler(Model):
    def predict(self, request):
        return request["x"] * 2
"""


@pytest.fixture(autouse=True)
def _imports_are_undone() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("fairlead_model_", "users_module")):
            del sys.modules[name]


def write(directory: Path, text: str, name: str = "model.py") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def ask(model: Model, **inputs: Any) -> Any:
    request = InferRequest([Tensor(name, np.asarray(value)) for name, value in inputs.items()])
    return as_response(model.predict(request)).outputs[0].data.tolist()


def test_a_file_with_one_model_class_is_served(tmp_path: Path) -> None:
    model = from_file(write(tmp_path, DOUBLER), "m")
    model.load()
    assert model.name == "m"
    assert ask(model, x=[1, 2]) == [2, 4]


def test_a_file_with_a_function_predict_is_served(tmp_path: Path) -> None:
    model = from_file(write(tmp_path, "def predict(request):\n    return request['x'] + 1\n"), "m")
    assert ask(model, x=[1]) == [2]


def test_a_coroutine_function_stays_one(tmp_path: Path) -> None:
    model = from_file(write(tmp_path, "async def predict(request):\n    return request['x']\n"), "m")
    assert inspect.iscoroutinefunction(model.predict)


def test_modules_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path, "FACTOR = 3\n", "users_module.py")
    text = "from users_module import FACTOR\ndef predict(request):\n    return request['x'] * FACTOR\n"
    assert ask(from_file(write(tmp_path, text), "m"), x=[2]) == [6]


def test_an_import_path_names_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, DOUBLER, "users_module.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ask(from_import_path("users_module:Doubler", "m"), x=[4]) == [8]
    with pytest.raises(LoadError, match="there is no 'Trebler' in users_module; it has Model, Doubler"):
        from_import_path("users_module:Trebler", "m")
    with pytest.raises(LoadError, match="module 'users_module_2' is not installed"):
        from_import_path("users_module_2:Model", "m")
    with pytest.raises(LoadError, match=r"not of the form package\.module:Name"):
        from_import_path("users_module", "m")


def test_a_subclass_hides_its_base_and_two_models_are_a_doubt(tmp_path: Path) -> None:
    model = from_file(write(tmp_path, DOUBLER + "class Last(Doubler):\n    pass\n"), "m")
    assert type(model).__name__ == "Last"
    two = DOUBLER + "class Other(Model):\n    pass\n"
    with pytest.raises(LoadError, match="defines several models: Doubler, Other; assign the one to serve"):
        from_file(write(tmp_path, two), "m")
    assert type(from_file(write(tmp_path, two + "model = Other\n"), "m")).__name__ == "Other"


def test_a_file_that_raises_or_defines_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"model\.py raised while it was imported: ZeroDivisionError: division by zero"):
        from_file(write(tmp_path, "1 / 0\n"), "m")
    with pytest.raises(LoadError, match="defines no model: write a class derived from"):
        from_file(write(tmp_path, "x = 1\n"), "m")


def test_a_program_that_came_with_a_model_is_refused_unless_allowed(tmp_path: Path) -> None:
    write(tmp_path, f"open({str(tmp_path / 'it-ran')!r}, 'w').close()\n{DOUBLER}")
    with pytest.raises(
        LoadError, match=r"model\.py is a Python program, and loading it runs whatever code it holds; refused"
    ):
        load(tmp_path, "m")
    assert not (tmp_path / "it-ran").exists()
    assert ask(load(tmp_path, "m", LoadOptions(allow_pickle=True)), x=[1]) == [2]


def test_a_class_whose_constructor_raises_is_named() -> None:
    class Broken(Model):
        def __init__(self, name: str) -> None:
            raise RuntimeError("no GPU")

    with pytest.raises(LoadError, match=r"Broken\(\) raised RuntimeError: no GPU"):
        as_model(Broken, "m")
    with pytest.raises(LoadError, match="int is no model: derive it from"):
        as_model(int, "m")
    with pytest.raises(LoadError, match="3 is no model"):
        as_model(3, "m")


# --- kserve.Model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kserve() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments, sys.argv = sys.argv, ["model"]
        try:
            import kserve

            return kserve
        finally:
            sys.argv = arguments


def test_a_kserve_model_gets_v1_as_json_and_its_answer_is_passed_on(kserve: Any) -> None:
    class Iris(kserve.Model):  # type: ignore[misc, name-defined]
        def __init__(self, name: str) -> None:
            super().__init__(name)

        def load(self) -> bool:
            self.factor = 2
            self.ready = True
            return self.ready

        def preprocess(self, payload: Any, headers: Any = None) -> Any:
            return payload["instances"]

        def predict(self, rows: Any, headers: Any = None) -> Any:
            return {"predictions": [row * self.factor for row in rows], "token": headers["x-token"]}

    model = as_model(Iris, "m")
    model.load()
    assert model.json_input
    request = InferRequest([], body={"instances": [1, 2]}, headers={"x-token": "t"})
    assert model.predict(request).body == {"predictions": [2, 4], "token": "t"}


def test_a_kserve_model_gets_v2_as_kserves_request(kserve: Any) -> None:
    seen = {}

    class Adder(kserve.Model):  # type: ignore[misc, name-defined]
        def predict(self, request: Any, headers: Any = None) -> Any:
            array = request.inputs[0].as_numpy()
            seen.update(
                data=request.inputs[0].data, shape=request.inputs[0].shape, name=request.model_name, id=request.id
            )
            output = kserve.InferOutput("sum", [1], "FP32", [float(array.sum())])
            return kserve.InferResponse(response_id=request.id, model_name="m", infer_outputs=[output])

    model = as_model(Adder("other"), "m")
    model.load()
    tensor = Tensor("x", np.array([[1.0, 2.0]], np.float32))
    response = model.predict(InferRequest([tensor], model_name="m", id="7"))
    assert [(output.name, output.datatype, output.data.tolist()) for output in response.outputs] == [
        ("sum", "FP32", [3.0])
    ]
    assert seen == {"data": [1.0, 2.0], "shape": [1, 2], "name": "m", "id": "7"}


async def test_a_kserve_model_with_coroutines_does_not_hold_the_loop_up(kserve: Any) -> None:
    class Slow(kserve.Model):  # type: ignore[misc, name-defined]
        def preprocess(self, payload: Any, headers: Any = None) -> Any:
            seen.append(threading_name())
            return payload

        async def predict(self, payload: Any, headers: Any = None) -> Any:
            seen.append(threading_name())
            return {"predictions": payload["instances"]}

    def threading_name() -> str:
        import threading

        return threading.current_thread().name

    seen: list[str] = []
    model = as_model(Slow("m"), "m")
    model.load()
    assert inspect.iscoroutinefunction(model.predict)
    assert (await model.predict(InferRequest([], body={"instances": [1]}))).body == {"predictions": [1]}
    assert seen[0] != seen[1] == "MainThread"
    assert await asyncio.ensure_future(model.health())


def test_kserves_own_errors_keep_their_meaning(kserve: Any) -> None:
    from kserve.errors import InvalidInput

    class Strict(kserve.Model):  # type: ignore[misc, name-defined]
        def predict(self, payload: Any, headers: Any = None) -> Any:
            raise InvalidInput("no instances")

    model = as_model(Strict("m"), "m")
    model.load()
    with pytest.raises(InvalidRequest, match="no instances"):
        model.predict(InferRequest([], body={}))


def test_a_kserve_model_that_says_it_did_not_load_did_not(kserve: Any) -> None:
    class Never(kserve.Model):  # type: ignore[misc, name-defined]
        def load(self) -> bool:
            return False

    with pytest.raises(LoadError, match=r"Never\.load\(\) returned False"):
        as_model(Never("m"), "m").load()
