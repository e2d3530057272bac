"""V1: rows or columns of JSON, typed by what the model declares."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pytest

from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.model import TensorSpec
from fairlead.runtime.protocols import v1
from fairlead.runtime.tensors import InferResponse, Tensor

X = TensorSpec("x", "FP32", (-1, 2))
TEXT = TensorSpec("text", "BYTES", (-1,))


def decode(document: object, *inputs: TensorSpec):
    return v1.decode_request(json.dumps(document).encode(), inputs)


def test_instances_take_the_declared_name_and_datatype():
    request = decode({"instances": [[1, 2], [3, 4]]}, X)
    assert request["x"].dtype == np.float32
    assert request["x"].tolist() == [[1, 2], [3, 4]]


def test_without_a_declaration_json_types_decide():
    assert decode({"instances": [[1.5]]}).inputs[0].datatype == "FP64"
    assert decode({"instances": [1]}).inputs[0].datatype == "INT64"
    assert decode({"instances": ["a"]}).inputs[0].datatype == "BYTES"
    assert decode({"instances": [True]}).inputs[0].datatype == "BOOL"


def test_rows_that_are_objects_become_an_input_for_each_key():
    request = decode({"instances": [{"x": [1, 2], "text": "a"}, {"x": [3, 4], "text": "b"}]}, X, TEXT)
    assert request["x"].shape == (2, 2)
    assert request["text"].tolist() == [b"a", b"b"]


def test_inputs_may_be_columns():
    assert decode({"inputs": {"x": [[1, 2]], "text": ["a"]}}, X, TEXT)["text"].tolist() == [b"a"]
    assert decode({"inputs": [[1, 2]]}, X)["x"].tolist() == [[1, 2]]


def test_inputs_may_be_rows_that_are_objects():
    assert decode({"inputs": [{"a": [5.1], "b": [3.5]}, {"a": [6.0], "b": [2.2]}]}, X)["a"].tolist() == [[5.1], [6.0]]


def test_inputs_may_be_tables_of_rows_in_which_values_are_missing():
    """As KServe's tests send them to its servers of trees."""
    trees = TensorSpec("input-0", "FP64", (-1, 3), any_name=True, columns=("a", "b", "c"))
    request = decode({"inputs": [[{"a": 5.1}, {"b": 3}]]}, trees)
    assert str(np.column_stack([request[name] for name in "abc"]).tolist()) == "[[5.1, nan, nan], [nan, 3.0, nan]]"
    assert decode({"inputs": [[{"a": 1, "b": 2}], [{"a": 3, "b": 4}]]})["b"].tolist() == [2, 4]


def test_tables_of_rows_name_no_other_columns_and_hold_nothing_else():
    trees = TensorSpec("input-0", "FP64", (-1, 2), any_name=True, columns=("a", "b"))
    with pytest.raises(InvalidRequest, match="'c' is no column of this model; they are a, b"):
        decode({"inputs": [[{"a": 1, "c": 2}]]}, trees)
    with pytest.raises(InvalidRequest, match="must hold nothing but objects"):
        decode({"inputs": [[{"a": 1}, 2]]}, trees)


def test_binary_values_are_base64():
    assert decode({"instances": [{"b64": "AAE="}]}, TEXT)["text"].tolist() == [b"\x00\x01"]


def test_no_rows_have_the_declared_width():
    assert decode({"instances": []}, X)["x"].shape == (0, 2)


def test_a_model_that_takes_json_gets_the_body_as_it_came():
    document = {"instances": [{"deep": {"er": [1, "a", None]}}], "extra": 1}
    request = v1.decode_request(json.dumps(document).encode(), json_input=True)
    assert request.body == document
    assert list(request.inputs) == []


@pytest.mark.parametrize(
    ("document", "inputs", "message"),
    [
        ([], (X,), 'expected a JSON object with "instances"'),
        ({"rows": []}, (X,), 'expected a JSON object with "instances"'),
        ({"instances": 3}, (X,), '"instances" must be a list'),
        ({"instances": [[1, 2], [3]]}, (X,), "rows differ in length"),
        ({"instances": [["a", "b"]]}, (X,), "FP32, data holds strings"),
        ({"instances": [[None, 1]]}, (X,), "null, objects or mixed"),
        ({"instances": [[1, 2]]}, (X, TEXT), "each instance must be an object with x, text"),
        ({"instances": [{"x": 1}, {"y": 1}]}, (X,), "instance 1 does not have the same keys"),
        ({"instances": [{"b64": "!"}]}, (TEXT,), "not base64"),
        ({"instances": [1]}, (TEXT,), "holds numbers; the model takes BYTES"),
        ({"inputs": 3}, (X,), '"inputs" must be'),
        ({"instances": [[1e39, 0]]}, (X,), "too large for FP32"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(document, inputs, message):
    with pytest.raises(InvalidRequest, match=message):
        decode(document, *inputs)


def test_one_output_is_a_list_of_predictions_and_several_are_a_list_of_objects():
    labels, scores = Tensor("label", np.array([1, 0])), Tensor("score", np.array([[0.5], [0.25]]))
    assert orjson.loads(v1.encode_response(InferResponse([labels]))) == {"predictions": [1, 0]}
    assert orjson.loads(v1.encode_response(InferResponse([labels, scores]))) == {
        "predictions": [{"label": 1, "score": [0.5]}, {"label": 0, "score": [0.25]}]
    }


def test_every_integer_of_numpys_becomes_json_in_an_object_too():
    label, score = Tensor("label", np.array([1], dtype=np.longlong)), Tensor("score", np.array([0.5], np.float32))
    assert orjson.loads(v1.encode_response(InferResponse([label, score]))) == {
        "predictions": [{"label": 1, "score": 0.5}]
    }


def test_bytes_are_text():
    response = InferResponse([Tensor("y", np.array([b"a", b"b"], dtype=object))])
    assert orjson.loads(v1.encode_response(response)) == {"predictions": ["a", "b"]}
