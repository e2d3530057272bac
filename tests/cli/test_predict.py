"""Requests as they leave, and answers and failures as they are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fairlead.cli.errors import CliError
from fairlead.cli.grpc_client import to_json, to_message
from fairlead.cli.predict import Protocol, build, guess_protocol, parse_headers, read_payload
from fairlead.runtime.protocols import pb

V1 = {"instances": [[1, 2]]}
V2 = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2]]}]}
SERVICE = {"metadata": {"name": "iris", "namespace": "team"}, "status": {"url": "http://iris-team.example.com:80"}}


class Gateway(BaseHTTPRequestHandler):
    """Answers what the path asks for, and says what it was sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = 200, json.dumps({"path": self.path, "sent": json.loads(body), "x": self.headers["X-Team"]})
        if "broken" in self.path:
            status, answer = 503, '{"error": "no pod of broken is ready"}'
        if "page" in self.path:
            answer = "<html>"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_predict_goes_by_path_through_the_gateway(cli: Any, cluster: Any, gateway: str) -> None:
    cluster.service("iris")
    code, out, _ = cli("predict", "iris", "-d", json.dumps(V1), "--url", gateway, "-H", "X-Team: a")
    assert code == 0
    assert json.loads(out) == {"path": "/serving/default/iris/v1/models/iris:predict", "sent": V1, "x": "a"}


def test_predict_takes_the_gateway_from_the_environment(
    cli: Any, cluster: Any, gateway: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster.service("iris")
    monkeypatch.setenv("FAIRLEAD_URL", f"{gateway}/")
    (tmp_path / "in.json").write_text(json.dumps(V2))
    out = cli("predict", "iris", "-d", f"@{tmp_path / 'in.json'}", "--model", "m", "--component", "predictor").out
    assert json.loads(out)["path"] == "/serving/default/iris.predictor/v2/models/m/infer"


def test_an_error_answer_is_told_in_the_servers_words(cli: Any, cluster: Any, gateway: str) -> None:
    cluster.service("broken")
    code, _, err = cli("predict", "broken", "-d", json.dumps(V1), "--url", gateway)
    assert (code, err.count("\n")) == (1, 1)
    assert err.endswith("answered 503: no pod of broken is ready\n")


def test_an_answer_that_is_not_json_is_printed_as_it_is(cli: Any, cluster: Any, gateway: str) -> None:
    cluster.service("page")
    assert cli("predict", "page", "-d", json.dumps(V1), "--url", gateway).out == "<html>\n"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1", "nothing listens on 127.0.0.1:1; is the gateway up?"),
        ("http://gateway.invalid", "the host gateway.invalid is not known here; give the gateway's address with --url"),
        ("ftp://x", "is no HTTP address; write it like http://localhost:8080"),
        ("http://127.0.0.1:port", "is no URL"),
    ],
)
def test_a_gateway_that_cannot_be_reached_is_told_with_the_fix(cli: Any, cluster: Any, url: str, words: str) -> None:
    cluster.service("iris")
    code, _, err = cli("predict", "iris", "-d", json.dumps(V1), "--url", url)
    assert (code, err.count("\n")) == (1, 1)
    assert words in err


def test_a_silent_gateway_is_given_up_after_the_timeout(cli: Any, cluster: Any) -> None:
    import socket

    cluster.service("iris")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        err = cli("predict", "iris", "-d", json.dumps(V1), "--url", url, "--timeout", "0.05").err
    assert "did not answer within 0.05 s; --timeout waits longer" in err


class Inference(grpc.GenericRpcHandler):
    """Answers each input back, and refuses the model `nope`."""

    def service(self, details: Any) -> Any:
        def infer(request: Any, context: Any) -> Any:
            if request.model_name == "nope":
                context.abort(grpc.StatusCode.NOT_FOUND, "there is no model nope")
            answer = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
            output = answer.outputs.add(name="y", datatype=request.inputs[0].datatype, shape=request.inputs[0].shape)
            output.contents.CopyFrom(request.inputs[0].contents)
            return answer

        return grpc.unary_unary_rpc_method_handler(
            infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
        )


@pytest.fixture
def grpc_gateway() -> Iterator[str]:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[Inference()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"http://127.0.0.1:{port}"
        server.stop(None).wait()


def test_grpc_sends_the_same_json_as_a_message(cli: Any, cluster: Any, grpc_gateway: str) -> None:
    cluster.service("iris")
    out = cli("predict", "iris", "-d", json.dumps(V2), "--protocol", "grpc", "--url", grpc_gateway).out
    assert json.loads(out) == {
        "model_name": "iris",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}],
    }


def test_a_grpc_error_is_told_in_the_servers_words(cli: Any, cluster: Any, grpc_gateway: str) -> None:
    cluster.service("iris")
    code, _, err = cli(
        "predict", "iris", "-d", json.dumps(V2), "--protocol", "grpc", "--url", grpc_gateway, "--model", "nope"
    )
    assert code == 1
    assert err.endswith("answered NOT_FOUND: there is no model nope\n")


# --- The pure parts --------------------------------------------------------------------------------------------


def test_without_a_gateway_the_services_own_address_is_used() -> None:
    assert (
        build(SERVICE, V1, Protocol.V1, gateway=None, model="iris").url
        == "http://iris-team.example.com:80/v1/models/iris:predict"
    )


def test_a_service_without_an_address_is_told_with_the_reason() -> None:
    pending = {**SERVICE, "status": {"conditions": [{"type": "Ready", "status": "False", "message": "loading"}]}}
    with pytest.raises(CliError, match="iris has no address yet: loading"):
        build(pending, V1, Protocol.V1, gateway=None, model="iris")


def test_grpc_finds_its_service_by_authority() -> None:
    whole = build(SERVICE, V2, Protocol.GRPC, gateway="http://g", model="iris")
    part = build(SERVICE, V2, Protocol.GRPC, gateway="http://g", model="iris", component="predictor")
    assert (whole.host, part.host) == ("iris.team", "iris-predictor.team.svc.cluster.local")


@pytest.mark.parametrize(
    ("payload", "protocol"),
    [
        (V1, "v1"),
        (V2, "v2"),
        ({"inputs": [[1, 2]]}, "v1"),
        ({"inputs": {"a": 1}}, "v1"),
        ({"inputs": []}, "v1"),
        ({}, "v1"),
    ],
)
def test_the_protocol_is_told_by_the_data(payload: dict[str, Any], protocol: str) -> None:
    assert guess_protocol(payload) == protocol


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{", "-d is not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ("[1]", "-d must be a JSON object"),
        ("@/no/such/file", "cannot read /no/such/file: No such file or directory"),
    ],
)
def test_bad_data_is_told_with_its_place(data: str, words: str) -> None:
    with pytest.raises(CliError) as caught:
        read_payload(data)
    assert words in str(caught.value)


def test_a_file_name_without_its_at_sign_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text("{}")
    with pytest.raises(CliError, match="To send the file, write -d @"):
        read_payload(str(path))


def test_a_header_without_a_colon_is_refused() -> None:
    assert parse_headers(["A: b:c"]) == {"A": "b:c"}
    with pytest.raises(CliError, match="write 'NAME: VALUE'"):
        parse_headers(["A"])


def test_nested_data_text_and_parameters_become_a_message() -> None:
    message = to_message(
        {
            "id": "7",
            "inputs": [
                {
                    "name": "a",
                    "shape": [2, 1],
                    "datatype": "INT64",
                    "data": [[1], [2]],
                    "parameters": {"p": True, "q": 2, "r": "s"},
                },
                {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["é"]},
            ],
        },
        "m",
    )
    assert (message.model_name, message.id) == ("m", "7")
    assert list(message.inputs[0].contents.int64_contents) == [1, 2]
    parameters = message.inputs[0].parameters
    assert (parameters["p"].bool_param, parameters["q"].int64_param, parameters["r"].string_param) == (True, 2, "s")
    assert list(message.inputs[1].contents.bytes_contents) == ["é".encode()]


def test_raw_answers_are_decoded() -> None:
    answer = pb.ModelInferResponse(model_name="m")
    answer.outputs.add(name="y", datatype="FP32", shape=[2])
    answer.raw_output_contents.append(np.array([1.5, 2.5], np.float32).tobytes())
    assert to_json(answer) == {
        "model_name": "m",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.5, 2.5]}],
    }


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (V1, "gRPC takes V2 requests"),
        (
            {"inputs": [{"name": "x", "datatype": "FP16", "data": []}]},
            "input 'x': datatype 'FP16' has no JSON form in gRPC",
        ),
        ({"inputs": [{"name": "x", "datatype": "INT32", "data": ["a"]}]}, "input 'x': "),
    ],
)
def test_what_does_not_fit_in_a_message_is_named(payload: dict[str, Any], words: str) -> None:
    with pytest.raises(CliError) as caught:
        to_message(payload, "m")
    assert words in str(caught.value)
