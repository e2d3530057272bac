"""The HTTP door over a real socket, with clients that behave and clients that do not."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from tests.runtime.conftest import Doubler, Running

from fairlead.runtime.doors.corked import WHOLE
from fairlead.runtime.doors.request import Exchange, Limits
from fairlead.runtime.errors import DeadlineExceeded
from fairlead.runtime.model import Model

INFER = "/v2/models/double/infer"
BODY = json.dumps(
    {"id": "1", "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
).encode()


def call(server: Running, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def raw(server: Running, data: bytes, *, shut: bool = False) -> bytes:
    """Everything that the server answers to these bytes before it closes the connection or falls silent."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as sock:
        sock.sendall(data)
        if shut:
            sock.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while chunk := sock.recv(65536):
                received += chunk
        except TimeoutError:
            pass
        return received


def error_of(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["error"]


def test_infer_echoes_the_id_and_answers(server):
    status, headers, body = call(server, "POST", INFER, BODY)
    assert status == 200
    assert headers["content-type"] == "application/json"
    answer = json.loads(body)
    assert answer["id"] == "1"
    assert answer["model_name"] == "double"
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 4.0, 6.0]}]


def test_v1_predict(server):
    status, _, body = call(server, "POST", "/v1/models/double:predict", b'{"instances": [[1,2,3]]}')
    assert (status, json.loads(body)) == (200, {"predictions": [[2.0, 4.0, 6.0]]})


@pytest.mark.parametrize(
    ("method", "path", "status", "part"),
    [
        ("GET", "/", 200, {"status": "alive"}),
        ("GET", "/v2", 200, {"name": "fairlead"}),
        ("GET", "/v2/health/live", 200, {"live": True}),
        ("GET", "/v2/health/ready", 200, {"ready": True}),
        ("GET", "/v1/models", 200, {"models": ["double", "echo", "failing"]}),
        ("GET", "/v1/models/double", 200, {"name": "double", "ready": True}),
        ("GET", "/v2/models/double", 200, {"platform": "python", "versions": ["1"]}),
        ("GET", "/v2/models/double/versions/1", 200, {"name": "double"}),
        ("GET", "/v2/models/double/ready", 200, {"ready": True}),
        ("GET", "/v2/models/double/config", 200, {"max_batch_size": 0}),
        ("GET", "/v1/models/nope", 404, {"error": "Model with name nope does not exist."}),
        ("GET", "/v2/models/nope/ready", 404, {"error": "Model with name nope does not exist."}),
        ("GET", "/v2/models/double/versions/9", 404, {"error": "Version 9 of model double does not exist."}),
        ("POST", "/v2/models/nope/infer", 404, {"error": "Model with name nope does not exist."}),
        ("POST", "/v1/models/double:explain", 400, {}),
        ("GET", INFER, 405, {"error": f"{INFER} takes POST, not GET"}),
        ("POST", "/v2/health/live", 405, {}),
        ("GET", "/nothing", 404, {"error": "there is nothing at /nothing; see /openapi.json"}),
        ("GET", "/v2/models/double/what", 404, {}),
    ],
)
def test_the_paths_answer(server, method, path, status, part):
    got, _, body = call(server, method, path, b"{}" if method == "POST" else None)
    assert got == status, body
    assert json.loads(body).items() >= part.items()


def test_head_has_no_body(server):
    status, headers, body = call(server, "HEAD", "/v2/health/live")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


def test_a_model_that_raises_is_a_500_that_says_so(server):
    request = BODY.replace(b'"x"', b'"z"')
    status, error = error_of(call(server, "POST", "/v2/models/failing/infer", request))
    assert status == 500
    assert error == "Model failing failed: RuntimeError: the model is broken"


def test_a_request_that_does_not_fit_never_reaches_the_model(server):
    status, error = error_of(call(server, "POST", INFER, BODY.replace(b"[1, 3]", b"[3, 1]")))
    assert (status, error) == (400, "input 'x' has shape [3, 1], the model takes [-1, 3]")


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.compress), ("identity", bytes)],
)
def test_packed_bodies_are_unpacked(server, encoding, pack):
    assert call(server, "POST", INFER, pack(BODY), {"Content-Encoding": encoding})[0] == 200


@pytest.mark.parametrize(
    ("encoding", "body", "status", "message"),
    [
        ("gzip", b"no gzip", 400, "not gzip"),
        ("gzip", gzip.compress(BODY)[:-9], 400, "truncated"),
        ("zstd", zstandard.compress(BODY)[:-4], 400, "truncated"),
        ("br", BODY, 415, "Content-Encoding 'br' is not supported"),
    ],
)
def test_bodies_packed_wrongly_are_refused(server, encoding, body, status, message):
    got, error = error_of(call(server, "POST", INFER, body, {"Content-Encoding": encoding}))
    assert got == status
    assert message in error


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_bomb_is_refused_unpacked(serve, pack):
    server = serve(Doubler("double"), max_body=1_000_000, grpc_port=None)
    encoding = "gzip" if pack is gzip.compress else "zstd"
    status, error = error_of(call(server, "POST", INFER, pack(b"0" * 50_000_000), {"Content-Encoding": encoding}))
    assert status == 413
    assert "unpacks to more than the limit of 1000000 bytes" in error


def test_answers_are_packed_when_the_client_asks_and_it_is_worth_it(server):
    data = json.dumps({"inputs": [{"name": "x", "shape": [500, 3], "datatype": "FP32", "data": [1] * 1500}]}).encode()
    _, headers, body = call(server, "POST", INFER, data, {"Accept-Encoding": "gzip"})
    assert headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(body))["outputs"][0]["shape"] == [500, 3]
    assert "content-encoding" not in call(server, "POST", INFER, BODY, {"Accept-Encoding": "gzip"})[1]
    assert "content-encoding" not in call(server, "POST", INFER, data, {"Accept-Encoding": "gzip;q=0"})[1]


def test_an_oversized_body_is_refused_before_it_is_sent(serve):
    server = serve(Doubler("double"), max_body=100, grpc_port=None)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode()
    answer = raw(server, head)
    assert b" 413 " in answer.splitlines()[0]
    assert b"connection: close" in answer.lower()
    chunked = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert b" 413 " in raw(server, chunked + b"80\r\n" + b"0" * 128 + b"\r\n0\r\n\r\n").splitlines()[0]


def test_clients_that_lie_or_leave_do_no_harm(server):
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: ".encode()
    raw(server, head + b"1000\r\n\r\n" + BODY, shut=True)  # less than it said
    assert raw(server, head + b"-5\r\n\r\n" + BODY).startswith(b"HTTP/1.1 400")
    assert raw(server, head + b"x\r\n\r\n" + BODY).startswith(b"HTTP/1.1 400")
    assert raw(server, b"\x16\x03\x01\x02\x00\x01\x00").startswith((b"HTTP/1.1 400", b""))  # TLS to a plain port
    assert call(server, "POST", INFER, BODY)[0] == 200


def test_what_is_no_http_is_told_so_in_the_form_of_every_other_error(server):
    answer = raw(server, f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n".encode() + BODY)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert "not an HTTP/1.1 request" in json.loads(body)["error"]


def test_a_request_that_is_whole_is_answered_before_what_follows_it_is_found_to_be_no_http(server):
    short = len(BODY) - 9  # what is left over is no request
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {short}\r\n\r\n".encode()
    answer = raw(server, head + BODY)
    assert answer.count(b"HTTP/1.1") == 1
    assert "not valid JSON" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    whole = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    answers = raw(server, whole + whole + b"guesswork")
    assert answers.count(b"HTTP/1.1 200") == 2


def test_a_slow_client_gets_its_answer(server):
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=60) as sock:
        data = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        for start in range(0, len(data), 40):
            sock.sendall(data[start : start + 40])
            time.sleep(0.005)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def large_echo(size: int) -> tuple[bytes, bytes]:
    """The head of a request with a large binary tensor, and its body."""
    blob = np.arange(size, dtype=np.uint32).tobytes()
    tensor = {"name": "x", "shape": [size], "datatype": "UINT32", "parameters": {"binary_data_size": len(blob)}}
    document = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    head = (
        "POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Inference-Header-Content-Length: {len(document)}\r\nContent-Length: {len(document) + len(blob)}\r\n"
    )
    return head.encode(), document + blob


def received(sock: socket.socket) -> bytes:
    parts = []
    while chunk := sock.recv(1 << 20):
        parts.append(chunk)
    return b"".join(parts)


def test_a_large_body_in_pieces_comes_back_whole(server):
    head, body = large_echo(500_000)
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=60) as sock:
        sock.sendall(head + b"\r\n")
        for start in range(0, len(body), 70_000):
            sock.sendall(body[start : start + 70_000])
        assert received(sock).endswith(np.arange(500_000, dtype=np.uint32).tobytes())


def test_a_client_that_waits_to_be_told_to_go_on_is_told(server):
    head, body = large_echo(50_000)
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=60) as sock:
        sock.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        sock.sendall(body)
        assert received(sock).endswith(np.arange(50_000, dtype=np.uint32).tobytes())


def test_a_client_that_leaves_within_a_large_body_is_forgotten(server):
    head, body = large_echo(500_000)
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=60) as sock:
        sock.sendall(head + b"\r\n" + body[:300_000])
    deadline = time.monotonic() + 60
    while server.server.http.in_flight:
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_body_that_takes_too_long_is_given_up():
    async def never(*_):
        await asyncio.Event().wait()

    scope = {"method": "POST", "path": "/", "headers": [(b"content-length", b"9")], WHOLE: never}
    exchange = Exchange(scope, never, Limits(body_seconds=0.01))
    with pytest.raises(DeadlineExceeded, match=r"within 0\.01 s"):
        await exchange.body()


def test_pipelined_requests_are_answered_in_order(server):
    one = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    last = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(server, one * 3 + last)
    assert answer.count(b"HTTP/1.1 200") == 4
    assert answer.endswith(b'{"live":true}')


def test_a_request_id_comes_back(server):
    assert call(server, "POST", INFER, BODY, {"X-Request-Id": "abc"})[1]["x-request-id"] == "abc"


def test_a_deadline_that_passed_is_a_504(serve):
    class Slow(Model):
        def predict(self, request):
            time.sleep(0.3)
            return request.array

    server = serve(Slow("double"), grpc_port=None)
    status, error = error_of(call(server, "POST", INFER, BODY, {"X-Request-Timeout-Seconds": "0.05"}))
    assert (status, error) == (504, "the deadline passed before the model answered")
    timeout = json.loads(BODY) | {"parameters": {"timeout": 50_000}}
    assert call(server, "POST", INFER, json.dumps(timeout).encode())[0] == 504
    assert error_of(call(server, "POST", INFER, BODY, {"X-Request-Timeout-Seconds": "soon"}))[0] == 400


def test_a_slow_model_delays_neither_health_nor_another_model(serve):
    gate, entered = threading.Event(), threading.Event()

    class Slow(Model):
        def predict(self, request):
            entered.set()
            gate.wait(60)
            return request.array

    server = serve(Slow("slow"), Doubler("double"), grpc_port=None)
    thread = threading.Thread(target=call, args=(server, "POST", "/v2/models/slow/infer", BODY))
    thread.start()
    assert entered.wait(60)
    for _ in range(10):
        assert call(server, "GET", "/v2/health/live")[0] == 200
        assert call(server, "POST", INFER, BODY)[0] == 200
    assert thread.is_alive()
    gate.set()
    thread.join()


def test_a_full_queue_is_a_503_with_retry_after(serve):
    gate, entered = threading.Event(), threading.Event()

    class Gated(Model):
        def predict(self, request):
            entered.set()
            gate.wait(60)
            return request.array

    server = serve(Gated("double"), max_queue=1, grpc_port=None)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(call(server, "POST", INFER, BODY))) for _ in range(6)]
    threads[0].start()
    assert entered.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(answers) < 4:
        time.sleep(0.005)
    gate.set()
    for thread in threads:
        thread.join()
    refused = [answer for answer in answers if answer[0] == 503]
    assert len(refused) == 4
    assert refused[0][1]["retry-after"] == "1"
    assert "requests are waiting" in error_of(refused[0])[1]


def test_models_load_and_unload_on_their_own(serve):
    server = serve(Doubler("double"), Doubler("other"), grpc_port=None)
    assert call(server, "POST", "/v2/repository/models/double/unload", b"")[0] == 200
    status, error = error_of(call(server, "POST", INFER, BODY))
    assert (status, error) == (503, "Model double is not ready: unloaded")
    assert call(server, "GET", "/v2/models/double/ready")[0] == 503
    assert call(server, "GET", "/v2/models/other/ready")[0] == 200
    index = json.loads(call(server, "POST", "/v2/repository/index", b"")[2])
    assert {entry["name"]: entry["state"] for entry in index} == {"double": "UNAVAILABLE", "other": "READY"}
    assert len(json.loads(call(server, "POST", "/v2/repository/index", b'{"ready": true}')[2])) == 1
    assert call(server, "POST", "/v2/repository/models/double/load", b"")[0] == 200
    assert call(server, "POST", INFER, BODY)[0] == 200
    assert call(server, "POST", "/v2/repository/models/nope/load", b"")[0] == 404


def test_cloud_events_are_answered_in_kind(server):
    path, body = "/v1/models/double:predict", b'{"instances": [[1,2,3]]}'
    event = {
        "ce-id": "7",
        "ce-source": "s",
        "ce-type": "t",
        "ce-specversion": "1.0",
        "content-type": "application/json",
    }
    status, headers, answer = call(server, "POST", path, body, event)
    assert status == 200
    assert headers["ce-id"] == "7"
    assert headers["ce-type"] == "org.kubeflow.serving.inference.response"
    assert json.loads(answer) == {"predictions": [[2.0, 4.0, 6.0]]}
    envelope = {"id": "7", "source": "s", "type": "t", "specversion": "1.0", "data": json.loads(body)}
    structured = {"content-type": "application/cloudevents+json"}
    status, headers, answer = call(server, "POST", path, json.dumps(envelope).encode(), structured)
    assert json.loads(answer)["data"] == {"predictions": [[2.0, 4.0, 6.0]]}
    del event["ce-type"]
    assert error_of(call(server, "POST", path, body, event)) == (400, "the CloudEvent has no ce-type header")


def test_a_model_streams_as_server_sent_events(serve):
    class Counter(Model):
        def predict(self, request):
            for number in range(int(request["n"][0])):
                yield {"number": np.array([number])}

    server = serve(Counter("counter"), grpc_port=None)
    status, headers, body = call(server, "POST", "/v2/models/counter/generate_stream", b'{"n": 3}')
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    events = [json.loads(line[6:]) for line in body.decode().split("\n\n") if line]
    assert [event["number"] for event in events] == [0, 1, 2]
    assert json.loads(call(server, "POST", "/v2/models/counter/generate", b'{"n": 1}')[2])["number"] == 0


def test_metrics_count_by_protocol_and_code(serve):
    server = serve(Doubler("double"), grpc_port=None)
    call(server, "POST", INFER, BODY)
    call(server, "POST", INFER, b"{}")
    call(server, "POST", "/v2/models/nope/infer", b"{}")
    text = call(server, "GET", "/metrics")[2].decode()
    assert 'fairlead_requests_total{model_name="double",protocol="v2-http",code="200"} 1\n' in text
    assert 'fairlead_requests_total{model_name="double",protocol="v2-http",code="400"} 1\n' in text
    assert 'fairlead_requests_total{model_name="",protocol="v2-http",code="404"} 1\n' in text
    assert 'request_predict_seconds_count{model_name="double"} 1\n' in text
    assert 'fairlead_model_ready{model_name="double"} 1\n' in text


def test_the_try_it_page_and_the_interface_document_are_there(server):
    assert b"<title>" in call(server, "GET", "/docs")[2]
    document = json.loads(call(server, "GET", "/openapi.json")[2])
    post = document["paths"][INFER]["post"]
    example = post["requestBody"]["content"]["application/json"]["example"]
    assert call(server, "POST", INFER, json.dumps(example).encode())[0] == 200


def test_a_model_reads_the_clients_headers_by_name(serve):
    class Tenant(Model):
        def predict(self, request):
            assert "x-tenant" in request.headers
            return [request.headers["X-Tenant"], *(name for name in request.headers if name == "x-tenant")]

    server = serve(Tenant("double"), grpc_port=None)
    answer = call(server, "POST", INFER, BODY, {"X-Tenant": "blue"})
    assert json.loads(answer[2])["outputs"][0]["data"] == ["blue", "x-tenant"]


def test_a_client_that_goes_away_takes_its_waiting_request_with_it(serve):
    gate, seen = threading.Event(), []

    class Gated(Model):
        def predict(self, request):
            seen.append(request.array.tolist())
            gate.wait(60)
            return request.array

    server = serve(Gated("m"))
    runner = server.repository.runner("m")

    def send(value: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(server.http, timeout=60)
        connection.request("POST", "/v1/models/m:predict", json.dumps({"instances": [value]}))
        return connection

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    first = send(1.0)
    until(lambda: len(seen) == 1)
    second, third = send(2.0), send(3.0)
    until(lambda: runner.in_flight == 3)
    second.close()
    until(lambda: runner.in_flight == 2)
    gate.set()
    assert [connection.getresponse().status for connection in (first, third)] == [200, 200]
    assert sorted(seen) == [[1.0], [3.0]]
    assert 'code="499"' in server.repository.metrics.render([server.repository.metrics.snapshot()])
    for connection in (first, third):
        connection.close()
