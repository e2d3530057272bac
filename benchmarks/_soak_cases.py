"""What the soak asks, good and bad, and what it must be answered: one coroutine for each case, which raises if it is not.

Right answers are computed here, by scikit-learn itself and by hand, never by the code that is tested.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._soak_clients import Answer, Grpc, Http, cancelled
from fairlead.runtime.protocols import pb

MODELS = """
import asyncio
import numpy as np
from fairlead.runtime import Model, TensorSpec

class {name}(Model):
{body}
"""
BODIES = {
    "echo": "    def predict(self, request):\n        return [*request.inputs]",
    "broken": "    def predict(self, request):\n        raise RuntimeError('broken')",
    "slow": "    async def predict(self, request):\n        await asyncio.sleep(0.02)\n        return request.array",
    "counter": "    inputs = (TensorSpec('n', 'INT32', (1,)),)\n    def predict(self, request):\n"
    "        for i in range(int(request['n'][0])):\n            yield np.array([i], np.int32)",
}
BODY_LIMIT = 1 << 20
SETS = 64


def make_models(directory: Path) -> None:
    """A repository with scikit-learn's classifier of irises and the four models above."""
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, classes = load_iris(return_X_y=True)
    (directory / "iris").mkdir(parents=True)
    skops.io.dump(LogisticRegression(max_iter=1000).fit(features, classes), directory / "iris" / "model.skops")
    for name, body in BODIES.items():
        (directory / name).mkdir()
        (directory / name / "model.py").write_text(MODELS.format(name=name.title(), body=body))


@dataclass(frozen=True)
class Rows:
    """Rows of irises in every form in which they are sent, and their classes."""

    classes: list[int]
    v1: bytes
    v2: bytes
    binary: bytes
    packed: bytes
    contents: bytes
    raw: bytes


def rows(directory: Path) -> list[Rows]:
    import skops.io
    from sklearn.datasets import load_iris

    model = skops.io.load(directory / "iris" / "model.skops")
    features = load_iris(return_X_y=True)[0]
    choose = np.random.default_rng(0)
    return [_forms(model, features[choose.integers(0, len(features), 1 + i % 8)]) for i in range(SETS)]


def _forms(model: Any, x: Any) -> Rows:
    tensor = {"name": "x", "shape": list(x.shape), "datatype": "FP64"}
    v2 = json.dumps({"id": "soak", "inputs": [{**tensor, "data": x.tolist()}]}).encode()
    blob = x.tobytes()
    document = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(blob)}}],
        "parameters": {"binary_data_output": True},
    }
    return Rows(
        classes=model.predict(x).tolist(),
        v1=post("/v1/models/iris:predict", json.dumps({"instances": x.tolist()}).encode()),
        v2=post("/v2/models/iris/infer", v2),
        binary=binary("iris", document, blob),
        packed=post("/v2/models/iris/infer", gzip.compress(v2), {"Content-Encoding": "gzip"}),
        contents=message("iris", x, raw=False),
        raw=message("iris", x),
    )


def post(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A whole request; `headers` may lie about its length."""
    fields = {"Host": "soak", "Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def binary(model: str, document: Any, blob: bytes) -> bytes:
    head = json.dumps(document).encode()
    return post(f"/v2/models/{model}/infer", head + blob, {"Inference-Header-Content-Length": str(len(head))})


def v2_request(x: Any, *, datatype: str = "FP64", name: str = "x", model: str = "iris", path: str = "infer") -> bytes:
    tensor = {"name": name, "shape": list(np.shape(x)), "datatype": datatype, "data": np.asarray(x).tolist()}
    return post(f"/v2/models/{model}/{path}", json.dumps({"inputs": [tensor]}).encode())


def message(model: str, x: Any, *, raw: bool = True, version: str = "", name: str = "x") -> bytes:
    datatype, field = {
        "f8": ("FP64", "fp64_contents"),
        "f4": ("FP32", "fp32_contents"),
        "i4": ("INT32", "int_contents"),
    }[x.dtype.str[1:]]
    request = pb.ModelInferRequest(model_name=model, model_version=version)
    tensor = request.inputs.add(name=name, datatype=datatype, shape=x.shape)
    if raw:
        request.raw_input_contents.append(x.tobytes())
    else:
        getattr(tensor.contents, field).extend(x.ravel().tolist())
    return bytes(request.SerializeToString())


ROW = np.array([[5.1, 3.5, 1.4, 0.2]])
NAN = np.array([np.nan, np.inf, -np.inf, 1.5], np.float32)
GOOD = v2_request(ROW)


def check(condition: bool, what: object) -> None:
    if not condition:
        raise AssertionError(str(what)[:300])


def right(answer: Answer, expected: list[int]) -> None:
    check(answer.status == 200, answer)
    document = json.loads(answer.body)
    check(document["outputs"][0]["data"] == expected and document.get("id") in (None, "soak"), answer)


def refused(answer: Answer, status: int, part: str = "") -> None:
    check(answer.status == status and part in json.loads(answer.body)["error"], answer)


HttpCase = Callable[[Http, Rows], Awaitable[None]]
GrpcCase = Callable[[Grpc, Rows], Awaitable[None]]


# --- HTTP, good ---------------------------------------------------------------------------------------------------


async def v1(http: Http, given: Rows) -> None:
    answer = await http.ask(given.v1)
    check(answer.status == 200 and json.loads(answer.body)["predictions"] == given.classes, answer)


async def v2(http: Http, given: Rows) -> None:
    right(await http.ask(given.v2), given.classes)


async def v2_packed(http: Http, given: Rows) -> None:
    right(await http.ask(given.packed), given.classes)


async def v2_binary(http: Http, given: Rows) -> None:
    answer = await http.ask(given.binary)
    check(answer.status == 200, answer)
    at = int(answer.headers["inference-header-content-length"])
    check(np.frombuffer(answer.body[at:], np.int64).tolist() == given.classes, answer)


async def pipelined(http: Http, given: Rows) -> None:
    await http.send(given.v2 + given.v1 + given.v2)
    right(await http.answer(), given.classes)
    check(json.loads((await http.answer()).body)["predictions"] == given.classes, "the second of three pipelined")
    right(await http.answer(), given.classes)


async def streamed(http: Http, given: Rows) -> None:
    answer = await http.ask(post("/v2/models/counter/generate_stream", b'{"n": [3]}'))
    events = [json.loads(event[6:]) for event in answer.body.split(b"\n\n") if event]
    check(answer.status == 200 and [event["output-0"] for event in events] == [0, 1, 2], answer)


async def nan_in_binary(http: Http, given: Rows) -> None:
    tensor = {"name": "x", "shape": [4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
    answer = await http.ask(
        binary("echo", {"inputs": [tensor], "parameters": {"binary_data_output": True}}, NAN.tobytes())
    )
    check(answer.status == 200 and answer.body.endswith(NAN.tobytes()), answer)


async def ready(http: Http, given: Rows) -> None:
    answer = await http.ask(b"GET /v2/models/iris/ready HTTP/1.1\r\nHost: soak\r\n\r\n")
    check(answer.status == 200, answer)


async def new_connection(http: Http, given: Rows) -> None:
    http.close()
    right(await http.ask(given.v2.replace(b"Host: soak", b"Host: soak\r\nConnection: close")), given.classes)


# --- HTTP, bad ----------------------------------------------------------------------------------------------------


def bad(data: bytes, status: int, part: str = "") -> HttpCase:
    async def case(http: Http, given: Rows) -> None:
        refused(await http.ask(data), status, part)

    return case


async def truncated(http: Http, given: Rows) -> None:
    """A body that ends before its Content-Length says: nobody waits for the rest."""
    await http.send(GOOD[:-10])
    await http.end_of_input()
    with contextlib.suppress(EOFError):
        refused(await http.answer(), 400)
    http.close()


async def too_short_a_length(http: Http, given: Rows) -> None:
    """What is left over is no request: an error, and the connection ends."""
    length = len(GOOD.partition(b"\r\n\r\n")[2])
    http.close()
    await http.send(GOOD.replace(b"Content-Length: %d" % length, b"Content-Length: %d" % (length - 8)))
    answer = await http.answer()
    refused(answer, 400, "JSON")
    check(answer.headers.get("connection") == "close", answer)


async def slow(http: Http, given: Rows) -> None:
    """A client that takes half a second to send its request."""
    for start in range(0, len(given.v2), 1 + len(given.v2) // 10):
        await http.send(given.v2[start : start + 1 + len(given.v2) // 10])
        await asyncio.sleep(0.05)
    right(await http.answer(), given.classes)


async def leaves(http: Http, given: Rows) -> None:
    """A client that goes away while its model works."""
    await http.send(v2_request(ROW, model="slow"))
    await asyncio.sleep(random.random() * 0.03)
    http.close()


async def leaves_the_stream(http: Http, given: Rows) -> None:
    await http.send(post("/v2/models/counter/generate_stream", b'{"n": [300]}'))
    await asyncio.sleep(random.random() * 0.01)
    http.close()


async def too_late(http: Http, given: Rows) -> None:
    request = v2_request(ROW, model="slow").replace(b"Host: soak", b"Host: soak\r\nx-request-timeout-seconds: 0.001")
    refused(await http.ask(request), 504, "deadline")


async def oversized(http: Http, given: Rows) -> None:
    """Refused by its length, before the body is sent."""
    http.close()
    refused(await http.ask(post("/v2/models/iris/infer", b"{", {"Content-Length": str(BODY_LIMIT + 1)})), 413, "limit")
    http.close()


async def oversized_in_chunks(http: Http, given: Rows) -> None:
    http.close()
    head = b"POST /v2/models/iris/infer HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (1 << 18, b" " * (1 << 18))
    try:
        await http.send(head + chunk * 5 + b"0\r\n\r\n")
        refused(await http.answer(), 413, "limit")
    except (EOFError, ConnectionError):
        pass  # answered and closed while the rest was on its way: the answer may be lost with the connection
    http.close()


async def no_http(http: Http, given: Rows) -> None:
    http.close()
    check((await http.ask(b"\x16\x03\x01 hello\r\n\r\n")).status == 400, "not HTTP")
    http.close()


# --- gRPC ---------------------------------------------------------------------------------------------------------


async def grpc_raw(grpc: Grpc, given: Rows) -> None:
    answer = await grpc.infer(given.raw)
    check(np.frombuffer(answer.raw_output_contents[0], np.int64).tolist() == given.classes, answer)


async def grpc_contents(grpc: Grpc, given: Rows) -> None:
    answer = await grpc.infer(given.contents)
    check(list(answer.outputs[0].contents.int64_contents) == given.classes, answer)


async def grpc_large(grpc: Grpc, given: Rows) -> None:
    answer = await grpc.infer(LARGE)
    check(answer.raw_output_contents[0] == LARGE_BYTES, "the echo of a large tensor")


async def grpc_nan(grpc: Grpc, given: Rows) -> None:
    answer = await grpc.infer(message("echo", NAN))
    check(answer.raw_output_contents[0] == NAN.tobytes(), answer)


async def grpc_stream(grpc: Grpc, given: Rows) -> None:
    """A stream that goes on after an error: numbers, an error, numbers."""
    numbers = message("counter", np.array([3], np.int32), name="n")
    requests = [numbers, message("nobody", ROW), numbers]
    answers = [answer async for answer in grpc.stream(iter(requests))]
    values = [
        np.frombuffer(answer.infer_response.raw_output_contents[0], np.int32)[0]
        for answer in answers
        if not answer.error_message
    ]
    check(values == [0, 1, 2, 0, 1, 2] and "nobody" in answers[3].error_message, answers)


async def grpc_leaves_the_stream(grpc: Grpc, given: Rows) -> None:
    call = grpc.stream(iter([message("counter", np.array([300], np.int32), name="n")]))
    await call.read()
    call.cancel()


async def grpc_leaves(grpc: Grpc, given: Rows) -> None:
    await cancelled(asyncio.ensure_future(grpc.infer(message("slow", ROW))), random.random() * 0.03)


async def grpc_too_late(grpc: Grpc, given: Rows) -> None:
    status, _ = await grpc.refused(grpc.infer(message("slow", ROW), timeout=0.005))
    check(status == "DEADLINE_EXCEEDED", status)


async def grpc_new_channel(grpc: Grpc, given: Rows) -> None:
    await grpc.again()
    await grpc_raw(grpc, given)


def grpc_bad(data: bytes, *expected: str) -> GrpcCase:
    async def case(grpc: Grpc, given: Rows) -> None:
        status, text = await grpc.refused(grpc.infer(data))
        check(status in expected, f"{status} {text}, expected {' or '.join(expected)}")

    return case


async def grpc_unready(grpc: Grpc, given: Rows) -> None:
    request = pb.message("ModelReadyRequest")(name="nobody").SerializeToString()
    status, _ = await grpc.refused(grpc.model_ready(request))
    check(status == "NOT_FOUND", status)


LARGE_ARRAY = np.random.default_rng(1).random((3, 64, 64), np.float32)
LARGE_BYTES = LARGE_ARRAY.tobytes()
LARGE = message("echo", LARGE_ARRAY)
CUT = message("iris", ROW)[:-3]
_short = pb.ModelInferRequest.FromString(message("iris", ROW))
_short.raw_input_contents[0] = _short.raw_input_contents[0][:24]
WRONG_LENGTH = _short.SerializeToString()

HTTP_CASES: dict[str, tuple[int, HttpCase]] = {
    # name: weight, case
    "V1": (150, v1),
    "V2": (250, v2),
    "V2 gzip": (20, v2_packed),
    "V2 binary": (200, v2_binary),
    "three pipelined": (20, pipelined),
    "server-sent events": (10, streamed),
    "NaN and infinities in binary": (20, nan_in_binary),
    "model ready": (20, ready),
    "a new connection": (10, new_connection),
    "wrong shape": (10, bad(v2_request([[1.0, 2.0]]), 400, "shape")),
    "shape and data differ": (10, bad(GOOD.replace(b"[1, 4]", b"[2, 4]"), 400, "shape")),
    "wrong datatype": (10, bad(GOOD.replace(b"FP64", b"FP99"), 400, "datatype")),
    "strings for numbers": (10, bad(v2_request([["a", "b", "c", "d"]]), 400, "strings")),
    "no name": (10, bad(GOOD.replace(b'"name"', b'"nome"'), 400, "name")),
    "NaN in JSON": (10, bad(v2_request([[np.nan, 1.0, 2.0, 3.0]]), 400, "NaN")),
    "cut JSON": (10, bad(post("/v2/models/iris/infer", b'{"inputs": [{"na'), 400, "JSON")),
    "binary size that lies": (
        10,
        bad(
            binary(
                "iris",
                {
                    "inputs": [
                        {"name": "x", "shape": [1, 4], "datatype": "FP64", "parameters": {"binary_data_size": 32}}
                    ]
                },
                b"\0" * 24,
            ),
            400,
            "24",
        ),
    ),
    "header length that lies": (
        10,
        bad(post("/v2/models/iris/infer", b"{}", {"Inference-Header-Content-Length": "99"}), 400, "99"),
    ),
    "unknown model": (10, bad(v2_request(ROW, model="nobody"), 404, "nobody")),
    "unknown version": (10, bad(v2_request(ROW, path="versions/7/infer"), 404, "7")),
    "unknown path": (10, bad(v2_request(ROW, path="guess"), 404)),
    "the model raises": (2, bad(v2_request(ROW, model="broken"), 500, "broken")),
    "not HTTP": (5, no_http),
    "truncated body": (10, truncated),
    "length too short": (10, too_short_a_length),
    "oversized": (10, oversized),
    "oversized in chunks": (3, oversized_in_chunks),
    "slow client": (3, slow),
    "client leaves": (10, leaves),
    "client leaves a stream": (5, leaves_the_stream),
    "deadline": (5, too_late),
}
GRPC_CASES: dict[str, tuple[int, GrpcCase]] = {
    "raw": (250, grpc_raw),
    "contents": (250, grpc_contents),
    "a large tensor": (30, grpc_large),
    "NaN and infinities": (20, grpc_nan),
    "a stream": (30, grpc_stream),
    "a new channel": (5, grpc_new_channel),
    "wrong shape": (10, grpc_bad(message("iris", np.ones((1, 3))), "INVALID_ARGUMENT")),
    "wrong length": (10, grpc_bad(WRONG_LENGTH, "INVALID_ARGUMENT")),
    "cut message": (10, grpc_bad(CUT, "INTERNAL")),
    "unknown model": (10, grpc_bad(message("nobody", ROW), "NOT_FOUND")),
    "unknown version": (10, grpc_bad(message("iris", ROW, version="7"), "NOT_FOUND")),
    "unknown model's readiness": (10, grpc_unready),
    "oversized": (3, grpc_bad(message("echo", np.zeros(BODY_LIMIT // 8 + 1)), "RESOURCE_EXHAUSTED")),
    "the model raises": (2, grpc_bad(message("broken", ROW), "INTERNAL")),
    "client leaves": (10, grpc_leaves),
    "client leaves a stream": (10, grpc_leaves_the_stream),
    "deadline": (5, grpc_too_late),
}
