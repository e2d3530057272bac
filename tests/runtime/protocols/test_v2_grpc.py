"""V2 over gRPC: both forms of tensors, and what is wrong with either."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.protocols import pb, v2_grpc
from fairlead.runtime.tensors import InferResponse, Tensor


def message(*inputs: dict, **fields: object):
    built = pb.ModelInferRequest(model_name="m", **fields)
    for each in inputs:
        built.inputs.add(**{"name": "x", "datatype": "FP32", "shape": [2], **each})
    return built


def decode(built):
    return v2_grpc.decode_request(v2_grpc.parse(built.SerializeToString()))


def test_typed_and_raw_contents_are_the_same():
    typed = decode(message({"contents": {"fp32_contents": [1, 2]}}))
    raw = decode(message({}, raw_input_contents=[np.array([1, 2], "<f4").tobytes()]))
    assert np.array_equal(typed["x"], raw["x"])
    assert typed["x"].dtype == raw["x"].dtype == np.float32


@given(st.lists(st.binary(min_size=0, max_size=v2_grpc.LARGE), min_size=1, max_size=3), st.text(max_size=5))
def test_a_large_message_is_taken_apart_as_protobuf_would(blobs, identifier):
    built = message(
        *({"datatype": "UINT8", "shape": [len(blob)]} for blob in blobs), raw_input_contents=blobs, id=identifier
    )
    incoming = v2_grpc.parse(built.SerializeToString())
    assert [bytes(raw) for raw in incoming.raw] == blobs
    assert (incoming.message.id, incoming.message.model_name) == (identifier, "m")
    assert len(incoming.message.inputs) == len(blobs)


@given(st.binary(max_size=30), st.integers(0, 200))
def test_a_large_message_that_is_broken_is_refused_by_protobuf_or_by_us(noise, cut):
    payload = message({"shape": [v2_grpc.LARGE]}, raw_input_contents=[bytes(4 * v2_grpc.LARGE)]).SerializeToString()
    try:
        v2_grpc.decode_request(v2_grpc.parse(noise + payload[: len(payload) - cut]))
    except (DecodeError, InvalidRequest):
        return


def test_parameters_keep_their_types():
    built = message({"contents": {"fp32_contents": [1, 2]}})
    values = {"b": True, "i": 7, "s": "x", "f": 0.5}
    v2_grpc.encode_parameters(built.parameters, values)
    assert decode(built).parameters == values


@pytest.mark.parametrize(
    ("built", "wrong"),
    [
        (message(), "no inputs"),
        (message({}), r"takes 2 fp32_contents, the request has 0"),
        (
            message({"contents": {"fp64_contents": [1, 2]}}),
            "the request has fp64_contents, which is not where FP32 goes",
        ),
        (message({}, {"name": "y"}, raw_input_contents=[b""]), "2 inputs and 1 raw_input_contents"),
        (message({"contents": {"fp32_contents": [1]}}, raw_input_contents=[bytes(8)]), "send one of them"),
        (message({}, raw_input_contents=[bytes(7)]), "takes 8 bytes, the request has 7"),
        (message({"shape": [-2]}), "a dimension that is not a length"),
        (message({"datatype": "FP16", "contents": {"fp32_contents": [1, 2]}}), "send it in raw_input_contents"),
        (message({"datatype": "INT8", "contents": {"int_contents": [1, 300]}}), "outside INT8's range"),
    ],
)
def test_what_is_wrong_is_named(built, wrong):
    with pytest.raises(InvalidRequest, match=wrong):
        decode(built)


@pytest.mark.parametrize("raw", [True, False])
def test_answers_have_the_form_of_the_question(raw):
    outputs = [Tensor("y", np.array([[1.5]], "f4")), Tensor("t", np.array([b"a"], dtype=object))]
    answer = v2_grpc.encode_response(InferResponse(outputs, model_name="m"), raw=raw)
    assert bool(answer.raw_output_contents) == raw
    if not raw:
        assert list(answer.outputs[0].contents.fp32_contents) == [1.5]
        assert list(answer.outputs[1].contents.bytes_contents) == [b"a"]


def test_a_datatype_without_a_typed_form_is_answered_raw():
    answer = v2_grpc.encode_response(InferResponse([Tensor("y", np.zeros(1, "f2"))]), raw=False)
    assert answer.raw_output_contents[0] == b"\0\0"
