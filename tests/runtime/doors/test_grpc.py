"""The gRPC door at its edges, the same with both fronts: messages that are wrong, packed, too large, late, or given up."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest
from tests.runtime.conftest import Doubler, Running, start

from fairlead.runtime.model import Model
from fairlead.runtime.protocols import pb


class Gate(Model):
    """Answers when `opened` is set."""

    threads = 1

    def load(self):
        self.entered, self.opened = threading.Semaphore(0), threading.Event()

    def predict(self, request):
        self.entered.release()
        assert self.opened.wait(60)
        return request.array


@pytest.fixture(scope="module", params=["native", "grpcio"])
def server(request):
    running = start([Doubler("double")], grpc_front=request.param, max_body=100_000)
    yield running
    running.stop()


@pytest.fixture(params=["native", "grpcio"])
def gated(request, serve):
    """A server whose only model answers when it is let, and the model."""
    running = serve(Gate("gate"), grpc_front=request.param, grace_seconds=20)
    return running, running.repository.runners["gate"].model


def message(model: str, array: np.ndarray) -> bytes:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=array.shape)
    return bytes(request.SerializeToString())


def infer(channel: grpc.Channel):
    return channel.unary_unary(f"/{pb.SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString)


def code(server: Running, payload: bytes, **options) -> grpc.StatusCode:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as raised:
        infer(channel)(payload, timeout=options.pop("timeout", 60), **options)
    return raised.value.code()


X = np.ones((1, 3), np.float32)


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
def test_packed_messages_are_unpacked(server, packing):
    rows = np.ones((1000, 3), np.float32)
    with grpc.insecure_channel(server.grpc) as channel:
        answer = infer(channel)(message("double", rows), compression=packing, timeout=60)
    assert answer.raw_output_contents[0] == (2 * rows).tobytes()


def test_what_is_no_message_is_an_internal_error_as_grpc_has_it(server):
    assert code(server, message("double", X)[:-3]) is grpc.StatusCode.INTERNAL


def test_a_message_over_the_limit_is_resource_exhausted(server):
    assert code(server, message("double", np.ones((10_000, 3), np.float32))) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_packed_message_that_is_over_the_limit_unpacked_is_resource_exhausted(server):
    bomb = message("double", np.zeros((100_000, 3), np.float32))
    assert code(server, bomb, compression=grpc.Compression.Gzip) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_unknown_method_is_unimplemented(server):
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"/{pb.SERVICE}/Guess")(b"", timeout=60)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_model_reads_the_callers_metadata(serve):
    class Reader(Model):
        def predict(self, request):
            return np.array([request.headers["x-tenant"].encode()], object)

    server = serve(Reader("reader"))
    with grpc.insecure_channel(server.grpc) as channel:
        answer = infer(channel)(message("reader", X), metadata=[("x-tenant", "blue"), ("x-bin", b"\0")], timeout=60)
    assert answer.raw_output_contents[0].endswith(b"blue")


def counted(server: Running, status: str) -> float:
    return server.repository.metrics.requests.values.get(("gate", "v2-grpc", status), 0)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_caller_that_gives_up_takes_its_waiting_request_with_it(gated):
    server, model = gated
    with grpc.insecure_channel(server.grpc) as channel:
        first = infer(channel).future(message("gate", X))
        assert model.entered.acquire(timeout=60)
        second = infer(channel).future(message("gate", X))
        wait_until(lambda: server.repository.in_flight == 2)
        second.cancel()
        wait_until(lambda: counted(server, "CANCELLED") == 1)
        model.opened.set()
        first.result(60)
    assert server.repository.runners["gate"].executions == 1


def test_a_deadline_that_passes_while_the_request_waits_is_deadline_exceeded(gated):
    server, model = gated
    assert code(server, message("gate", X), timeout=0.05) is grpc.StatusCode.DEADLINE_EXCEEDED
    model.opened.set()


def test_calls_in_flight_are_finished_when_the_server_stops(gated):
    server, model = gated
    with grpc.insecure_channel(server.grpc) as channel:
        call = infer(channel).future(message("gate", X))
        assert model.entered.acquire(timeout=60)
        server.loop.call_soon_threadsafe(lambda: server.server.stop(at_once=True))
        wait_until(lambda: code_now(server) is not None)
        model.opened.set()
        assert call.result(60).raw_output_contents[0] == X.tobytes()


def code_now(server: Running) -> grpc.StatusCode | None:
    """With what a new connection's call fails; None while it is answered or waits."""
    with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            channel.unary_unary(f"/{pb.SERVICE}/ServerLive")(b"", timeout=1)
        except grpc.RpcError as error:
            return error.code()
        return None
