"""Predictions continue the caller's trace."""

from __future__ import annotations

import json

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fairlead.runtime.doors.http import HttpDoor
from fairlead.runtime.operations.access_log import AccessLog
from fairlead.runtime.operations.tracing import Tracer
from fairlead.runtime.repository import Repository

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def get(door: HttpDoor, path: str, *headers: tuple[bytes, bytes]) -> list[dict]:
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await door(
        {"type": "http", "method": "GET", "path": path, "headers": list(headers), "client": ("c", 1)}, receive, send
    )
    return sent


async def test_a_span_has_the_callers_trace_and_the_status():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    door = HttpDoor(Repository(), tracer=Tracer.of(provider))
    await get(door, "/v2/models/m", (b"traceparent", f"00-{TRACE}-b7ad6b7169203331-01".encode()))
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.name == "GET /v2/models/m"
    assert span.attributes["http.response.status_code"] == 404


async def test_without_the_standard_variables_there_is_no_tracer(monkeypatch):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert Tracer.configured() is None


async def test_the_access_log_is_a_json_line_for_each_request(tmp_path):
    with (tmp_path / "log").open("w+") as stream:
        await get(HttpDoor(Repository(), access_log=AccessLog(stream)), "/nothing", (b"x-request-id", b"7"))
        stream.seek(0)
        line = json.loads(stream.read())
    assert (line["path"], line["status"], line["request_id"], line["client"]) == ("/nothing", 404, "7", "c")
