"""A request that does not fit what the model declares is the client's error, and says what would fit."""

from __future__ import annotations

import numpy as np
import pytest

from fairlead.runtime.contract import Contract
from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.model import ModelMetadata, TensorSpec
from fairlead.runtime.tensors import InferRequest, InferResponse, RequestedOutput, Tensor

CONTRACT = Contract(
    ModelMetadata(
        "m",
        inputs=(TensorSpec("a", "FP64", (-1, 2)), TensorSpec("b", "INT64", None, optional=True)),
        outputs=(TensorSpec("y", "FP64", (-1,)), TensorSpec("z", "FP64", (-1,))),
    )
)


def tensor(name: str = "a", dtype: str = "f8", shape: tuple[int, ...] = (1, 2)) -> Tensor:
    return Tensor(name, np.zeros(shape, dtype))


def test_what_fits_passes_unchanged():
    request = InferRequest([tensor()])
    CONTRACT.check(request)
    assert request.inputs[0].datatype == "FP64"


@pytest.mark.parametrize("dtype", ["f4", "i4", "u2", "i8"])
def test_a_datatype_whose_every_value_fits_is_converted(dtype):
    request = InferRequest([tensor(dtype=dtype)])
    CONTRACT.check(request)
    assert request.inputs[0].data.dtype == np.float64
    assert request.inputs[0].datatype == "FP64"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([], "input 'a' is missing"),
        ([tensor("c")], "input 'c' is unknown; the model's inputs are a, b"),
        ([tensor(), tensor()], "given twice"),
        ([tensor(shape=(1, 3))], r"has shape \[1, 3\], the model takes \[-1, 2\]"),
        ([tensor(shape=(2,))], r"has shape \[2\]"),
        ([tensor(), tensor("b", "f8")], "is FP64, the model takes INT64"),
        ([Tensor("a", np.full((1, 2), b"1", dtype=object))], "is BYTES, the model takes FP64"),
    ],
)
def test_what_does_not_fit_is_refused(tensors, message):
    with pytest.raises(InvalidRequest, match=message):
        CONTRACT.check(InferRequest(tensors))


def test_an_input_whose_name_is_free_may_have_any():
    contract = Contract(ModelMetadata("m", inputs=(TensorSpec("input-0", "FP64", (-1, 2), any_name=True),)))
    request = InferRequest([tensor("whatever")])
    contract.check(request)
    assert request.inputs[0].name == "input-0"


def test_a_model_that_declares_nothing_takes_anything():
    Contract(ModelMetadata("m")).check(InferRequest([tensor("q", "u1", (7, 7, 7))]))


def test_an_unknown_output_is_refused_before_the_model_runs():
    with pytest.raises(InvalidRequest, match="output 'w' is unknown; the model's outputs are y, z"):
        CONTRACT.check(InferRequest([tensor()], outputs=[RequestedOutput("w")]))


def test_the_client_gets_the_outputs_it_named_in_its_order():
    response = InferResponse([Tensor("y", np.zeros(1)), Tensor("z", np.ones(1))])
    CONTRACT.select(response, InferRequest([], outputs=[RequestedOutput("z"), RequestedOutput("y")]))
    assert [each.name for each in response.outputs] == ["z", "y"]
