"""V2 over REST: what goes in comes out, and what is wrong is named."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairlead.runtime.errors import InvalidRequest, NotSupported
from fairlead.runtime.protocols import v2_rest, wire
from fairlead.runtime.tensors import DTYPES, InferRequest, InferResponse, RequestedOutput, Tensor

NUMERIC = [name for name in DTYPES if name not in ("BYTES", "BF16")]


def body(*inputs: dict, **fields: object) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


def fp32(**changes: object) -> dict:
    return {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2], **changes}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(list(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        array = np.empty(int(np.prod(shape)), dtype=object)
        array[:] = draw(st.lists(st.binary(max_size=9), min_size=array.size, max_size=array.size))
        return Tensor("t", array.reshape(shape), "BYTES")
    if datatype == "BF16":
        bits = draw(hnp.arrays("<u2", shape))
        return Tensor("t", (bits.astype("<u4") << 16).view("<f4"), "BF16")
    return Tensor("t", draw(hnp.arrays(DTYPES[datatype], shape)), datatype)


@given(st.lists(tensors(), min_size=1, max_size=3))
def test_binary_tensors_come_back_bit_for_bit(originals):
    """Through the response encoder, whose body is a request's body but for the names of two keys."""
    for number, tensor in enumerate(originals):
        tensor.name = f"t{number}"
    request = InferRequest([], parameters={"binary_data_output": True})
    encoded, length = v2_rest.encode_response(InferResponse(originals, model_name="m"), request)
    header = orjson.loads(encoded[:length])
    header["inputs"] = header.pop("outputs")
    rebuilt = orjson.dumps(header)
    decoded = v2_rest.decode_request(rebuilt + encoded[length:], str(len(rebuilt)))
    for tensor, original in zip(decoded.inputs, originals, strict=True):
        assert tensor.datatype == original.datatype
        assert tensor.shape == original.shape
        assert wire.encode(tensor) == wire.encode(original)


@given(st.sampled_from([name for name in NUMERIC if name != "FP16"]), st.data())
def test_json_tensors_come_back_equal(datatype, data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    elements = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else None
    array = data.draw(
        hnp.arrays(DTYPES[datatype], shape, elements=hnp.from_dtype(DTYPES[datatype], **(elements or {})))
    )
    encoded, length = v2_rest.encode_response(InferResponse([Tensor("t", array)]), InferRequest([]))
    assert length is None
    output = orjson.loads(encoded)["outputs"][0]
    decoded = v2_rest.decode_request(body(output)).inputs[0]
    assert np.array_equal(decoded.data, array)
    assert decoded.data.dtype == DTYPES[datatype]


def test_numeric_binary_tensors_are_views_of_the_body():
    raw = np.arange(6, dtype="<f4").tobytes()
    array = wire.decode("x", "FP32", [2, 3], 6, raw)
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_nested_and_flat_data_are_the_same():
    flat = v2_rest.decode_request(body(fp32(shape=[2, 2], data=[1, 2, 3, 4])))
    nested = v2_rest.decode_request(body(fp32(shape=[2, 2], data=[[1, 2], [3, 4]])))
    assert np.array_equal(flat["x"], nested["x"])


def test_integers_beyond_the_signed_range_stay_exact():
    request = v2_rest.decode_request(body(fp32(datatype="UINT64", data=[2**64 - 1, 1])))
    assert request["x"].tolist() == [2**64 - 1, 1]


def test_bytes_in_json_are_strings():
    request = v2_rest.decode_request(body(fp32(datatype="BYTES", data=["a", "é"])))
    assert request["x"].tolist() == [b"a", "é".encode()]


def test_id_parameters_and_requested_outputs_are_kept():
    request = v2_rest.decode_request(
        body(fp32(), id="7", parameters={"k": 1}, outputs=[{"name": "y", "parameters": {"binary_data": True}}])
    )
    assert request.id == "7"
    assert request.parameters == {"k": 1}
    assert [(output.name, output.parameters) for output in request.outputs or ()] == [("y", {"binary_data": True})]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (b"", "the body is empty"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", 'no "inputs"'),
        (b'{"inputs":[]}', 'no "inputs"'),
        (b'{"inputs":[1]}', "an input must be an object"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', "JSON has no NaN"),
        (body(fp32(name=None)), 'no "name"'),
        (body(fp32(shape=None)), 'no "shape"'),
        (body(fp32(datatype=None)), 'no "datatype"'),
        (body(fp32(datatype="FLOAT")), "datatype 'FLOAT' is unknown"),
        (body(fp32(datatype="FP16")), "FP16 cannot be JSON"),
        (body(fp32(shape=[-1])), "a dimension that is not a length"),
        (body(fp32(shape=[1.5])), "a dimension that is not a length"),
        (body(fp32(shape=[True])), "a dimension that is not a length"),
        (body(fp32(shape=[10**12])), "over the limit"),
        (body(fp32(shape=[3])), r"data of shape \[2\] does not fit the declared shape \[3\]"),
        (body(fp32(shape=[4, 1], data=[[1, 2, 3, 4]])), "does not fit"),
        (body(fp32(data=[[1, 2], [3]])), "ragged"),
        (body(fp32(data=["1", "2"])), "data holds strings"),
        (body(fp32(data=[1, None])), "null, objects or mixed"),
        (body(fp32(data=None)), 'no "data"'),
        (body(fp32(data=[1e39, 0])), "too large for FP32"),
        (body(fp32(datatype="INT8", data=[1, 128])), r"outside INT8's range -128..127"),
        (body(fp32(datatype="UINT64", data=[1, -1])), "outside UINT64's range"),
        (body(fp32(datatype="INT32", data=[1.5, 2])), "data holds fractions"),
        (body(fp32(datatype="BOOL", data=[1, 0])), "data holds integers"),
        (body(fp32(datatype="BYTES", data=["a", 1])), "its elements are strings"),
        (body(fp32(parameters=[1])), '"parameters" must be an object'),
        (body(fp32(), id=7), '"id" must be a string'),
        (body(fp32(), outputs=[{}]), 'no "name"'),
    ],
)
def test_what_is_wrong_with_a_request_is_named(wrong, message):
    with pytest.raises(InvalidRequest, match=message):
        v2_rest.decode_request(wrong)


@pytest.mark.parametrize(
    ("size", "raw", "message"),
    [
        (8, b"1234567", "claims 8 bytes of binary data, 7 are left"),
        (8, b"123456789", "take 8 bytes of binary data, the request has 9"),
        (4, b"1234", "takes 8 bytes, the request has 4"),
        (-8, b"12345678", "not a length"),
    ],
)
def test_binary_lengths_that_lie_are_refused(size, raw, message):
    header = body({"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": size}})
    with pytest.raises(InvalidRequest, match=message):
        v2_rest.decode_request(header + raw, str(len(header)))


@pytest.mark.parametrize("length", ["-1", "1000", "x", "1e3"])
def test_a_header_length_that_lies_is_refused(length):
    with pytest.raises(InvalidRequest, match="Inference-Header-Content-Length"):
        v2_rest.decode_request(body(fp32()), length)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x05\0\0\0abc", "claims 5 bytes, 3 are left"),
        (b"\x01\0\0", "ends before element 0"),
        (b"\x01\0\0\0ab", "1 bytes are left after its 1 elements"),
    ],
)
def test_byte_strings_with_lying_lengths_are_refused(raw, message):
    with pytest.raises(InvalidRequest, match=message):
        wire.decode("x", "BYTES", [1], 1, raw)


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(-1, 300).map(str)))
def test_no_body_raises_anything_but_our_error(noise, length):
    with contextlib.suppress(InvalidRequest):
        v2_rest.decode_request(noise, length)


def test_nan_is_null_in_json_and_exact_in_binary():
    response = InferResponse([Tensor("y", np.array([np.nan, 1.0]))])
    encoded, _ = v2_rest.encode_response(response, InferRequest([]))
    assert orjson.loads(encoded)["outputs"][0]["data"] == [None, 1.0]
    encoded, length = v2_rest.encode_response(response, InferRequest([], parameters={"binary_data_output": True}))
    assert np.isnan(np.frombuffer(encoded[length:], "<f8")[0])


def test_one_output_can_be_binary_and_another_json():
    response = InferResponse([Tensor("a", np.zeros(1, "f4")), Tensor("b", np.zeros(1, "f4"))])
    request = InferRequest([], outputs=[RequestedOutput("a", {"binary_data": True}), RequestedOutput("b")])
    encoded, length = v2_rest.encode_response(response, request)
    outputs = orjson.loads(encoded[:length])["outputs"]
    assert outputs[0]["parameters"] == {"binary_data_size": 4}
    assert outputs[1]["data"] == [0.0]


def test_bfloat16_is_rounded_to_nearest_even_and_nan_stays_nan():
    values = np.array([1.0, 1.00390625, 1.01171875, np.nan, np.inf, -0.0], "f4")
    back = wire.decode("x", "BF16", [6], 6, wire.encode(Tensor("x", values, "BF16")))
    assert back[:3].tolist() == [1.0, 1.0, 1.015625]
    assert np.isnan(back[3])
    assert back[4] == np.inf
    assert np.signbit(back[5])


def test_an_output_that_json_cannot_hold_says_how_to_get_it():
    with pytest.raises(InvalidRequest, match="ask for binary_data"):
        v2_rest.encode_response(InferResponse([Tensor("y", np.zeros(1, "f2"))]), InferRequest([]))


def test_classification_is_not_supported():
    with pytest.raises(NotSupported, match="classification"):
        v2_rest.decode_request(body(fp32(), outputs=[{"name": "y", "parameters": {"classification": 2}}]))
