"""Spans, with the SDK's own exporter: of a call as it is recorded, and of requests as they pass the guard."""

import asyncio

import httpx
import pytest

from segraft.params import load_params
from segraft.serving import tracing
from segraft.serving.call import Call, this_call
from segraft.serving.guard import Door, Guard, Known
from tests.serving.running import ROOT

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry's SDK is not installed")
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


@pytest.fixture(scope="module")
def exporter():
    """What was exported; OpenTelemetry takes one provider a process."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter):
    exporter.clear()
    return exporter.get_finished_spans


def test_a_request_is_a_span_in_the_caller_s_trace(spans):
    tracing.record(Call("r1", stages={"predict": 0.25}, facts={"images": 2}), "POST /predict", PARENT, 503, 0.5)
    (span,) = spans()
    assert format(span.context.trace_id, "032x") == TRACE and span.name == "POST /predict"
    assert span.attributes["segraft.stage.predict_ms"] == 250 and span.attributes["segraft.images"] == 2
    assert 0.4e9 < span.end_time - span.start_time < 0.6e9 and not span.status.is_ok


async def app(scope, receive, send):
    """Takes a moment to predict, and fails where it is told to."""
    with this_call().stage("predict"):
        await asyncio.sleep(0.01)
    if scope["path"] == "/broken":
        raise RuntimeError("as told")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def test_what_passes_the_guard_is_traced_whatever_becomes_of_it(spans):
    limits = load_params(ROOT / "params.yaml").serve.limits
    guard = Guard(app, Door(limits, "m/1"), [Known("GET", "/v2/models/{name}"), Known("GET", "/broken")])

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://here") as client:
            for path in ("/v2/models/segraft", "/nothing", "/broken"):
                await client.get(path, headers={**PARENT, "x-request-id": path.strip("/").replace("/", ".")})

    asyncio.run(ask())
    fine, missing, broken = spans()
    assert [span.name for span in spans()] == ["GET /v2/models/{name}", "GET none", "GET /broken"]
    assert [span.attributes["http.response.status_code"] for span in spans()] == [200, 404, 500]
    assert fine.attributes["segraft.request_id"] == "v2.models.segraft" and fine.parent.is_remote
    assert {format(span.context.trace_id, "032x") for span in spans()} == {TRACE}
    assert fine.attributes["segraft.stage.predict_ms"] >= 10 and "segraft.stage.predict_ms" not in missing.attributes
    assert fine.status.is_unset and missing.status.is_unset and not broken.status.is_ok
