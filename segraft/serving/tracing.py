"""OpenTelemetry, if it is there: a span a request and one a stage, in the caller's trace.

Only the API is used, and nothing is done until a provider is set; `opentelemetry-instrument python -m segraft serve`
sets the one that the environment (OTEL_EXPORTER_OTLP_ENDPOINT …) names.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from segraft.serving.call import Call

try:
    from opentelemetry import propagate, trace
except ImportError:
    trace = None  # type: ignore[assignment]


def record(call: Call, name: str, headers: Mapping[str, str], status: int, seconds: float) -> None:
    """Report a finished request as a span, its stages as attributes.

    Args:
        call: the request.
        name: of the span: its route.
        headers: of the request; W3C's traceparent among them is the parent.
        status: of the answer.
        seconds: that it took.
    """
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return  # there is no provider: reading the headers would be for nothing
    end = time.time_ns()
    tracer = trace.get_tracer("segraft.serving")
    start = end - int(seconds * 1e9)
    span = tracer.start_span(name, propagate.extract(dict(headers)), trace.SpanKind.SERVER, start_time=start)
    if span.is_recording():
        attributes: dict[str, Any] = {"http.response.status_code": status, "segraft.request_id": call.id}
        attributes |= {f"segraft.stage.{stage}_ms": 1000 * took for stage, took in call.stages.items()}
        attributes |= {f"segraft.{key}": value for key, value in call.facts.items()}
        span.set_attributes(attributes)
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
    span.end(end)
