"""Clients that others wrote: tritonclient, kserve's, grpcio's reflection and health."""

from __future__ import annotations

import queue
import time

import grpc
import kserve
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.runtime.conftest import Doubler, Echo, Failing, start
from tritonclient.utils import InferenceServerException

from fairlead.runtime.model import Model

X = np.array([[1, 2, 3]], np.float32)
DTYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]


class Counter(Model):
    async def predict(self, request):
        for number in range(int(request["n"][0])):
            yield {"number": np.array([number])}


@pytest.fixture(scope="module", params=["native", "grpcio"])
def server(request):
    """The same tests on both implementations of gRPC."""
    running = start([Doubler("double"), Echo("echo"), Failing("failing"), Counter("counter")], grpc_front=request.param)
    yield running
    running.stop()


@pytest.fixture
def http(server):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        yield client


@pytest.fixture
def rpc(server):
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        yield client


def triton_input(module, array, name="x", datatype="FP32", **kwargs):
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **kwargs)
    return tensor


@pytest.mark.parametrize("binary", [True, False])
def test_triton_http_infers(http, binary):
    output = tritonclient.http.InferRequestedOutput("y", binary_data=binary)
    tensor = triton_input(tritonclient.http, X, binary_data=binary)
    result = http.infer("double", [tensor], outputs=[output], request_id="9")
    assert np.array_equal(result.as_numpy("y"), 2 * X)
    assert result.get_response()["id"] == "9"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_http_packs_both_ways(http, algorithm):
    big = np.ones((1000, 3), np.float32)
    result = http.infer(
        "double",
        [triton_input(tritonclient.http, big)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert np.array_equal(result.as_numpy("y"), 2 * big)


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_numeric_datatype_comes_back_bit_for_bit(http, rpc, datatype):
    dtype = tritonclient.utils.triton_to_np_dtype(datatype)
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for module, client in ((tritonclient.http, http), (tritonclient.grpc, rpc)):
        back = client.infer("echo", [triton_input(module, array, "t", datatype)]).as_numpy("t")
        assert back.dtype == array.dtype
        assert back.tobytes() == array.tobytes()


def test_bytes_and_bfloat16_come_back(http, rpc):
    text = np.array([b"a", b"\xff\x00", b""], dtype=object)
    brain = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    for module, client in ((tritonclient.http, http), (tritonclient.grpc, rpc)):
        assert client.infer("echo", [triton_input(module, text, "t", "BYTES")]).as_numpy("t").tolist() == text.tolist()
        assert client.infer("echo", [triton_input(module, brain, "t", "BF16")]).as_numpy("t").tolist() == [1.5, -2.0]


def test_triton_http_asks_about_everything(http):
    assert http.is_server_live()
    assert http.is_server_ready()
    assert http.is_model_ready("double")
    assert http.is_model_ready("double", "1")
    assert http.get_server_metadata()["name"] == "fairlead"
    assert http.get_model_metadata("double")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert http.get_model_config("double")["name"] == "double"
    assert http.get_inference_statistics("double")["model_stats"][0]["name"] == "double"
    assert len(http.get_inference_statistics()["model_stats"]) == 4
    assert {model["name"] for model in http.get_model_repository_index()} >= {"double", "echo"}
    with pytest.raises(InferenceServerException, match="does not exist"):
        http.get_model_metadata("nope")


def test_triton_grpc_asks_about_everything(rpc):
    assert rpc.is_server_live()
    assert rpc.is_server_ready()
    assert rpc.is_model_ready("double", "1")
    assert rpc.get_server_metadata().name == "fairlead"
    assert list(rpc.get_model_metadata("double").inputs[0].shape) == [-1, 3]
    assert rpc.get_model_config("double").config.input[0].name == "x"
    assert rpc.get_inference_statistics("double").model_stats[0].name == "double"
    assert {model.name for model in rpc.get_model_repository_index().models} >= {"double", "echo"}
    rpc.unload_model("echo")
    assert not rpc.is_model_ready("echo")
    rpc.load_model("echo")
    assert rpc.is_model_ready("echo")


@pytest.mark.parametrize(
    ("model", "array", "version", "code", "message"),
    [
        ("nope", X, "", "NOT_FOUND", "Model with name nope does not exist."),
        ("double", X, "9", "NOT_FOUND", "Version 9 of model double does not exist."),
        ("double", X[:, :2], "", "INVALID_ARGUMENT", r"has shape \[1, 2\]"),
        ("failing", X, "", "INTERNAL", "RuntimeError: the model is broken"),
    ],
)
def test_grpc_errors_have_their_codes(rpc, model, array, version, code, message):
    with pytest.raises(InferenceServerException, match=message) as raised:
        rpc.infer(model, [triton_input(tritonclient.grpc, array)], model_version=version)
    assert raised.value.status() == f"StatusCode.{code}"


def test_triton_grpc_streams(server):
    results: queue.Queue = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(callback=lambda result, error: results.put(error or result))
        client.async_stream_infer("counter", [triton_input(tritonclient.grpc, np.array([3]), "n", "INT64")])
        numbers = [results.get(timeout=60).as_numpy("number")[0] for _ in range(3)]
        client.async_stream_infer("double", [triton_input(tritonclient.grpc, X)])
        doubled = results.get(timeout=60).as_numpy("y")
        client.async_stream_infer("nope", [triton_input(tritonclient.grpc, X)])
        error = results.get(timeout=60)
        client.stop_stream()
    assert numbers == [0, 1, 2]
    assert np.array_equal(doubled, 2 * X)
    assert "does not exist" in str(error)


def test_a_cancelled_call_leaves_no_trace(server, rpc):
    for _ in range(20):
        call = rpc.async_infer("double", [triton_input(tritonclient.grpc, X)], callback=lambda result, error: None)
        call.cancel()
    assert np.array_equal(rpc.infer("double", [triton_input(tritonclient.grpc, X)]).as_numpy("y"), 2 * X)
    deadline = time.monotonic() + 60
    while server.repository.in_flight:  # the server may hear of the last ones after it has answered
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_kserve_rest_client_speaks_both_protocols(server):
    base = f"http://{server.http}"
    v1 = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v1"))
    assert await v1.infer(base, {"instances": X.tolist()}, model_name="double") == {"predictions": (2 * X).tolist()}
    assert await v1.is_server_live(base)
    assert await v1.is_model_ready(base, "double")
    await v1.close()
    v2 = kserve.InferenceRESTClient(kserve.inference_client.RESTConfig(protocol="v2"))
    for binary in (True, False):
        tensor = kserve.InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(X, binary_data=binary)
        request = kserve.InferRequest("double", [tensor])
        response = await v2.infer(base, request, model_name="double")
        assert np.array_equal(response.outputs[0].as_numpy(), 2 * X)
    assert await v2.is_server_ready(base)
    await v2.close()


@pytest.mark.parametrize("binary", [True, False])
async def test_kserve_grpc_client(server, binary):
    client = kserve.InferenceGRPCClient(server.grpc)
    tensor = kserve.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(X, binary_data=binary)
    response = await client.infer(kserve.InferRequest("double", [tensor]))
    assert np.array_equal(response.outputs[0].as_numpy(), 2 * X)
    assert await client.is_server_ready()
    assert await client.is_model_ready("double")
    await client.close()


def test_reflection_and_health(server):
    with grpc.insecure_channel(server.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) >= {"inference.GRPCInferenceService", "grpc.health.v1.Health"}
        found = database.FindFileContainingSymbol("inference.GRPCInferenceService")
        assert {method.name for method in found.service[0].method} >= {"ModelInfer", "ModelStreamInfer"}
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING
