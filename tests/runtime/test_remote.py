"""A transformer: its own preprocess and postprocess, the predictor's predict, over either protocol."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import threading
from dataclasses import replace
from pathlib import Path

import kserve
import numpy as np
import pytest

from fairlead.runtime.errors import InvalidRequest, LoadError, NotReady
from fairlead.runtime.frameworks.kserve import adapt
from fairlead.runtime.model import Model
from fairlead.runtime.protocols import v1
from fairlead.runtime.remote import connect
from fairlead.runtime.runner import Runner
from fairlead.runtime.settings import Settings
from fairlead.runtime.tensors import InferRequest, Tensor


class PlusOne(Model):
    def preprocess(self, request):
        return InferRequest([Tensor("x", request.array.astype(np.float32) + 1)], headers=request.headers)

    def postprocess(self, response, request):
        return {"shifted": response.outputs[0].data * 100}


def settings(host: str, protocol: str = "v2") -> Settings:
    return replace(Settings(model_dir=Path("none")), predictor_host=host, predictor_protocol=protocol)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
async def test_a_model_without_a_predict_of_its_own_calls_the_predictor(server, protocol):
    runner = Runner(connect(PlusOne("double"), settings(server.http, protocol)))
    for value in (0.0, 1.0):
        response = await runner.infer(InferRequest([Tensor("x", np.full((1, 3), value))]))
        assert response["shifted"].tolist() == [[200.0 * (value + 1)] * 3]
    await runner.close()


async def test_the_predictors_address_may_have_a_path_as_behind_a_gateway():
    asked = []

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"predictions": [[1.0, 2.0, 3.0]]}')

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        threading.Thread(target=gateway.handle_request, daemon=True).start()
        host = f"127.0.0.1:{gateway.server_port}/serving/ns/double.predictor"
        runner = Runner(connect(PlusOne("double"), settings(host, "v1")))
        response = await runner.infer(InferRequest([Tensor("x", np.zeros((1, 3)))]))
        await runner.close()
    assert response["shifted"].tolist() == [[100.0, 200.0, 300.0]]
    assert asked == ["/serving/ns/double.predictor/v1/models/double:predict"]


async def test_a_model_with_a_predict_of_its_own_keeps_it():
    class Own(Model):
        def predict(self, request):
            return request.array

    model = Own("m")
    assert connect(model, settings("nowhere:1")).predict == model.predict
    assert connect(PlusOne("m"), Settings()).predict.__func__ is Model.predict


async def test_the_predictors_error_is_the_clients(server):
    runner = Runner(connect(PlusOne("double"), settings(server.http)))
    with pytest.raises(InvalidRequest, match=r"has shape \[1, 2\]"):
        await runner.infer(InferRequest([Tensor("x", np.zeros((1, 2)))]))
    await runner.close()


async def test_a_predictor_that_is_not_there_is_unavailable():
    runner = Runner(connect(PlusOne("double"), settings("127.0.0.1:1")))
    with pytest.raises(NotReady, match=r"the predictor 127.0.0.1:1 cannot be reached"):
        await runner.infer(InferRequest([Tensor("x", np.zeros((1, 3)))]))


def test_a_protocol_that_a_transformer_cannot_call_is_refused():
    with pytest.raises(LoadError, match="v1 or v2"):
        connect(PlusOne("double"), settings("h", "grpc-v2"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of kserve, about httpx
async def test_a_kserve_transformer_calls_its_predictor(server, monkeypatch):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)  # kserve hands them to httpx in a way that warns

    class Transformer(kserve.Model):
        def preprocess(self, payload, headers=None):
            return {"instances": [[value + 1 for value in row] for row in payload["instances"]]}

        def postprocess(self, result, headers=None, response_headers=None):
            return {"predictions": [[value * 100 for value in row] for row in result["predictions"]]}

    model = connect(adapt("double", Transformer("double")), settings(server.http, "v1"))
    await asyncio.to_thread(model.load)
    runner = Runner(model)
    response = await runner.infer(InferRequest([], body={"instances": [[0, 1, 2]]}))
    assert v1.encode_response(response) == b'{"predictions":[[200.0,400.0,600.0]]}'


def test_it_serves(server, serve):
    transformer = serve(connect(PlusOne("double"), settings(server.http)), grpc_port=None)
    connection = http.client.HTTPConnection(transformer.http, timeout=60)
    connection.request("POST", "/v1/models/double:predict", b'{"instances": [[0, 1, 2]]}')
    assert json.loads(connection.getresponse().read()) == {"predictions": [[200.0, 400.0, 600.0]]}
    connection.close()
