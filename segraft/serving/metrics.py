"""What Prometheus reads at /metrics, beside KServe's own request_*_seconds."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

REQUESTS = Counter("segraft_requests_total", "requests by protocol and status", ["protocol", "status"])
LATENCY = Histogram("segraft_request_seconds", "from the first byte to the last", ["protocol"], buckets=SECONDS)
STAGE = Histogram("segraft_stage_seconds", "by stage: read, decode, queue, predict, encode", ["stage"], buckets=SECONDS)
BATCH = Histogram(
    "segraft_batch_size", "images that went through the network at once", buckets=(1, 2, 4, 8, 16, 32, 64)
)
ACCEPTED = Gauge("segraft_requests_in_progress", "requests that are being answered or wait")
QUEUE = Gauge("segraft_queue_images", "images that wait for the network")
PIXELS = Counter(
    "segraft_class_pixels_total", "pixels by predicted class; rates give the share of each", ["class_name"]
)
CONFIDENCE = Histogram(
    "segraft_confidence",
    "mean softmax of the winning class of an image, sampled",
    buckets=[i / 20 for i in range(1, 21)],
)
DRIFT = Gauge("segraft_drift_psi", "population stability index against the training reference", ["statistic"])
FAILURES = Counter("segraft_runtime_failures_total", "batches on which the runtime failed")
