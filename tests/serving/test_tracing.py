"""Spans, with the SDK's own exporter."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from segraft.serving import tracing
from segraft.serving.call import Call


def test_a_request_is_a_span_in_the_caller_s_trace():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    call = Call("r1", stages={"predict": 0.25}, facts={"images": 2})
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracing.record(call, "POST /predict", {"traceparent": parent}, 503, 0.5)
    (span,) = exporter.get_finished_spans()
    assert format(span.context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c" and span.name == "POST /predict"
    assert span.attributes["segraft.stage.predict_ms"] == 250 and span.attributes["segraft.images"] == 2
    assert 0.4e9 < span.end_time - span.start_time < 0.6e9 and not span.status.is_ok
