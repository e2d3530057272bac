"""OpenTelemetry spans of predictions, when the standard `OTEL_` variables ask for them and the SDK is installed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead.runtime.doors.request import Exchange

log = logging.getLogger(__name__)


class Span:
    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, exchange: Exchange, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if exchange.model:
            self._span.set_attribute("fairlead.model", exchange.model)


class Tracer:
    """Continues the caller's trace (W3C `traceparent`)."""

    def __init__(self, tracer: Any, propagator: Any) -> None:
        self._tracer = tracer
        self._propagator = propagator

    @classmethod
    def configured(cls) -> Tracer | None:
        """A tracer if `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_TRACES_EXPORTER` is set, else None."""
        wanted = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        if not wanted or os.environ.get("OTEL_SDK_DISABLED") == "true":
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            log.warning("traces are asked for, but %s is not installed: pip install 'fairlead[tracing]'", error.name)
            return None
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls.of(provider)

    @classmethod
    def of(cls, provider: Any) -> Tracer:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        return cls(provider.get_tracer("fairlead.runtime"), TraceContextTextMapPropagator())

    @contextmanager
    def span(self, exchange: Exchange) -> Iterator[Span]:
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract(exchange.text_headers())
        attributes = {"http.request.method": exchange.method, "url.path": exchange.path}
        name = f"{exchange.method} {exchange.path}"
        with self._tracer.start_as_current_span(name, context, SpanKind.SERVER, attributes) as span:
            yield Span(span)
