"""Payloads go to a real receiver, whatever it does, and no request waits for it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime

import numpy as np
import pytest
from tests.runtime.conftest import Doubler, Running
from tests.runtime.receiver import Receiver

from fairlead.runtime.doors.reply import Reply
from fairlead.runtime.doors.request import Exchange, Limits
from fairlead.runtime.model import Model
from fairlead.runtime.operations.metrics import Metrics
from fairlead.runtime.operations.payload_log import CONNECTIONS, PayloadLog
from fairlead.runtime.settings import PayloadLogging, parse

V1 = "/v1/models/double:predict"
V2 = "/v2/models/double/infer"
ROW = b'{"instances": [[1, 2, 3]]}'


def post(server: Running, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    try:
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def count(server: Running, outcome: str) -> dict[str, float]:
    values = getattr(server.repository.metrics, f"payloads_{outcome}").values
    return {labels[0].rpartition(".")[2]: number for labels, number in values.items()}


@pytest.fixture
def receiver():
    with Receiver() as running:
        yield running


def logging(receiver: Receiver, **options) -> PayloadLogging:
    return PayloadLogging(receiver.url, **options)


def test_a_prediction_is_two_events_with_what_was_asked_and_answered(serve, receiver, monkeypatch):
    monkeypatch.setenv("HOSTNAME", "iris-predictor-5d9c-x7")
    told = {"inference_service": "iris", "namespace": "team", "component": "predictor"}
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver, **told))
    before = time.time()
    status, answer = post(server, V1, ROW, x_request_id="r-7", content_type="application/json")
    assert status == 200
    request, response = receiver.wait(2)
    assert (request.body, response.body) == (ROW, answer)
    assert request.path == "/events?from=here"
    for event, kind in ((request, "request"), (response, "response")):
        assert event.headers["ce-type"] == f"org.kubeflow.serving.inference.{kind}"
        attributes = {name: event.headers[f"ce-{name}"] for name in ("id", "specversion", "source", "endpoint")}
        assert attributes == {
            "id": "r-7",
            "specversion": "1.0",
            "source": "iris-predictor-5d9c-x7",
            "endpoint": "default",
        }
        names = [event.headers[f"ce-{name}"] for name in ("inferenceservicename", "namespace", "component")]
        assert names == ["iris", "team", "predictor"]
        assert event.headers["content-type"] == "application/json"
        assert before - 1 < datetime.fromisoformat(event.headers["ce-time"]).timestamp() < time.time() + 1
    assert request.headers["ce-time"] <= response.headers["ce-time"]
    assert "ce-annotations" not in request.headers


def test_the_events_of_a_request_without_an_id_have_one_in_common(serve, receiver):
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
    post(server, V1, ROW)
    post(server, V1, ROW)
    events = receiver.wait(4)
    ids = [event.headers["ce-id"] for event in events]
    assert len(set(ids)) == 2
    assert sorted(ids[:2]) == sorted(ids[2:])


def test_an_event_that_came_in_gives_its_id(serve, receiver):
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
    event = {"ce_id": "e-1", "ce_source": "test", "ce_specversion": "1.0", "ce_type": "t"}
    assert post(server, V1, ROW, x_request_id="r-1", **event)[0] == 200
    assert {event.headers["ce-id"] for event in receiver.wait(2)} == {"e-1"}


@pytest.mark.parametrize(("logged", "kind"), [({"responses": False}, "request"), ({"requests": False}, "response")])
def test_a_mode_chooses_one_of_the_two(serve, receiver, logged, kind):
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver, **logged))
    for _ in range(3):
        post(
            server,
            V2,
            json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode(),
        )
    assert {event.kind for event in receiver.wait(3)} == {kind}
    server.stop()
    assert len(receiver.events) == 3


def test_headers_and_annotations_go_with_each_event(serve, receiver):
    options = {"metadata_headers": ("X-Tenant", "X-None"), "annotations": {"acme.dev/owner": "Jörg"}}
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver, **options))
    post(server, V1, ROW, x_tenant='a "b"')
    for event in receiver.wait(2):
        assert event.json("ce-metadata") == {"X-Tenant": ['a "b"']}
        assert event.json("ce-annotations") == {"acme.dev/owner": "Jörg"}


def test_an_error_is_no_answer_and_what_is_no_prediction_is_not_logged(serve, receiver):
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
    assert post(server, V1, b'{"instances": [[1]]}')[0] == 400
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    for path in ("/v2/health/ready", "/v2/models/double", "/v1/models", "/metrics"):
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()
    server.stop()
    assert [event.kind for event in receiver.events] == ["request"]


def test_binary_tensors_can_be_read_by_the_receiver(serve, receiver):
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
    data = np.array([[1, 2, 3]], np.float32).tobytes()
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    status, answer = post(
        server, V2, head + data, inference_header_content_length=str(len(head)), content_type="application/octet-stream"
    )
    assert status == 200
    request, response = receiver.wait(2)
    assert request.body == head + data
    assert request.headers["inference-header-content-length"] == str(len(head))
    assert response.body == answer
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    assert np.frombuffer(response.body[length:], np.float32).tolist() == [2, 4, 6]


def test_a_packed_request_is_logged_unpacked(serve, receiver):
    import gzip

    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
    assert post(server, V1, gzip.compress(ROW), content_encoding="gzip")[0] == 200
    assert receiver.wait(2)[0].body == ROW


def test_a_streamed_answer_is_one_event(serve, receiver):
    class Counter(Model):
        def predict(self, request):
            for number in range(3):
                yield {"number": np.array([number])}

    server = serve(Counter("counter"), grpc_port=None, payload_log=logging(receiver))
    status, answer = post(server, "/v2/models/counter/generate_stream", b'{"n": 3}')
    assert status == 200
    response = receiver.wait(2)[1]
    assert response.body == answer
    assert response.headers["content-type"] == "text/event-stream"


def test_a_large_request_arrives_whole(serve, receiver):
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
    body = json.dumps({"instances": [[1.5, 2.5, 3.5]] * 30_000}).encode()
    status, answer = post(server, V1, body)
    assert status == 200
    assert [event.body for event in receiver.wait(2)] == [body, answer]


def test_connections_are_kept(serve, receiver):
    server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
    for _ in range(50):
        post(server, V1, ROW)
    receiver.wait(100)
    assert receiver.connections <= CONNECTIONS
    server.stop()
    assert count(server, "sent") == {"request": 50, "response": 50}


def test_a_receiver_that_closes_each_connection_gets_all_of_them(serve):
    with Receiver(keeps_connections=False) as receiver:
        server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
        for _ in range(20):
            post(server, V1, ROW)
        receiver.wait(40)
        server.stop()
        assert count(server, "sent") == {"request": 20, "response": 20}


def test_what_fails_for_a_moment_is_sent_again(serve):
    with Receiver(lambda number: 503 if number < 2 else 200) as receiver:
        server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver, responses=False))
        post(server, V1, ROW)
        events = receiver.wait(3)
        assert len({event.headers["ce-id"] for event in events}) == 1
        server.stop()
        assert count(server, "sent") == {"request": 1}


def test_what_the_receiver_refuses_is_not_sent_again(serve):
    with Receiver(lambda number: 403) as receiver:
        server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
        assert post(server, V1, ROW)[0] == 200
        receiver.wait(2)
        server.stop()
        assert len(receiver.events) == 2
        assert count(server, "failed") == {"request": 1, "response": 1}


def test_what_waits_when_the_server_stops_is_still_sent(serve):
    answers = threading.Event()

    def when_told(number: int) -> int:
        answers.wait(30)
        return 200

    with Receiver(when_told) as receiver:
        server = serve(Doubler("double"), grpc_port=None, payload_log=logging(receiver))
        for _ in range(20):
            post(server, V1, ROW)
        assert len(receiver.events) <= CONNECTIONS
        answers.set()
        server.stop()
        assert len(receiver.events) == 40


def test_requests_do_not_wait_for_a_receiver_that_never_answers(serve):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in its backlog
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        server = serve(Doubler("double"), grpc_port=None, payload_log=PayloadLogging(url))
        for _ in range(20):
            assert post(server, V1, ROW)[0] == 200
        server.stop()  # it waits for the receiver, and not for ever


def exchange(body: bytes) -> Exchange:
    async def receive():
        raise AssertionError("the body is here")

    scope = {"type": "http", "method": "POST", "path": V1, "headers": [(b"content-length", b"%d" % len(body))]}
    made = Exchange(scope, receive, Limits())
    made.payload = body
    return made


@pytest.mark.parametrize("bound", [{"most_events": 5}, {"most_bytes": 500}])
async def test_what_the_queue_has_no_room_for_is_counted_and_gone(bound):
    metrics = Metrics()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = PayloadLogging(f"http://127.0.0.1:{silent.getsockname()[1]}", responses=False)
        log = PayloadLog(options, metrics, source="pod", **bound)
        for _ in range(12):
            log.record(exchange(b"x" * 100), Reply(200, b"", []), None, time.perf_counter())
        await log.close(0)
    assert list(metrics.payloads_dropped.values.values()) == [7]


async def test_a_receiver_that_is_not_there_is_given_up_and_the_log_says_so_once(caplog):
    metrics = Metrics()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    log = PayloadLog(PayloadLogging(f"http://u:secret@127.0.0.1:{port}/in"), metrics, source="pod", pauses=(0.0,))
    for _ in range(3):
        log.record(exchange(ROW), Reply(200, b"{}", []), None, time.perf_counter())
    await log.close(30)
    assert sum(metrics.payloads_failed.values.values()) == 6
    (line,) = [record.message for record in caplog.records]
    assert f"http://127.0.0.1:{port}/in does not take them" in line
    assert "secret" not in line


def test_who_logs_nothing_imports_nothing_for_it():
    code = (
        "import sys, fairlead.runtime.server, fairlead.runtime.engines.process\n"
        "assert not [name for name in sys.modules if 'payload_log' in name or 'event_sender' in name]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=110)


def test_the_operators_word_becomes_the_settings():
    told = {
        "url": "http://dumper.team.svc.cluster.local",
        "mode": "request",
        "inferenceService": "iris",
        "namespace": "team",
        "component": "transformer",
        "metadataHeaders": ["X-Tenant"],
        "annotations": {"a": "b"},
    }
    wanted = PayloadLogging(
        told["url"],
        responses=False,
        inference_service="iris",
        namespace="team",
        component="transformer",
        metadata_headers=("X-Tenant",),
        annotations={"a": "b"},
    )
    assert parse([], {"FAIRLEAD_LOGGER": json.dumps(told)}).payload_log == wanted
    assert parse([], {}).payload_log is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"url": "s3://bucket"}', '{"url": "http://"}', '{"url": 3}'])
def test_an_address_that_makes_no_sense_ends_the_start(text, capsys):
    with pytest.raises(SystemExit):
        parse([], {"FAIRLEAD_LOGGER": text})
    assert "FAIRLEAD_LOGGER does not say where payloads are logged" in capsys.readouterr().err
