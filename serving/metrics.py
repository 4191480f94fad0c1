"""What Prometheus reads: counts and times of requests, batches and predictions, and the state at the moment of asking.

With several workers, each writes its counts where all of them can read (`PROMETHEUS_MULTIPROC_DIR`, which
`python -m serving` sets), so that any of them answers for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from serving.recording.journal import JournalError

if TYPE_CHECKING:
    from serving.service import Service

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# Whatever a client invents must not make a series of its own.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

REQUESTS = Counter("inspectline_requests", "Requests answered, by call and HTTP status.", ["method", "call", "status"])
LATENCY = Histogram("inspectline_request_seconds", "Time to answer a request.", ["call"], buckets=_SECONDS)
BATCH_SIZE = Histogram(
    "inspectline_batch_images", "Images in one run of the network.", buckets=(1, 2, 3, 4, 6, 8, 12, 16)
)
PREDICTIONS = Counter("inspectline_predictions", "Predictions answered.", ["project", "version", "verdict"])
REMEMBERED = Counter("inspectline_predictions_remembered", "Predictions of an image that was known.", ["project"])
SWAPS = Counter("inspectline_swaps", "Versions taken into service, by each worker.", ["project"])
REFUSED = Counter("inspectline_versions_refused", "Tries of a version that was not taken.", ["project"])
REFUSALS = Counter("inspectline_refusals", "Requests that were refused, by HTTP status.", ["status"])
QUEUE = Gauge("inspectline_queue_images", "Images that wait for their run.", ["project"], multiprocess_mode="livesum")
SERVING = Gauge(
    "inspectline_version_serving", "1 for the version that serves.", ["project", "version"], multiprocess_mode="livemax"
)


class _Journal(Collector):
    """The journal's state, read when it is asked for: all workers share one journal."""

    def __init__(self, service: Service):
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Return how many predictions wait and were set aside; nothing if the journal cannot be read."""
        try:
            counts = self._service.journal.counts()
        except JournalError:
            return
        for name, text in (("waiting", "wait for the catalogue"), ("set_aside", "were set aside as unusable")):
            yield GaugeMetricFamily(f"inspectline_journal_{name}", f"Predictions that {text}.", value=counts[name])


def exposition(service: Service) -> tuple[bytes, str]:
    """Return all metrics of all workers in Prometheus' text format, and its content type."""
    common = CollectorRegistry()
    common.register(_Journal(service))
    if os.environ.get(MULTIPROCESS):
        MultiProcessCollector(common)
        return generate_latest(common), CONTENT_TYPE_LATEST
    return generate_latest(REGISTRY) + generate_latest(common), CONTENT_TYPE_LATEST


def request_answered(method: str, call: str, status: int, seconds: float) -> None:
    """Count a request."""
    REQUESTS.labels(method if method in _METHODS else "other", call, status).inc()
    LATENCY.labels(call).observe(seconds)
    if status >= 400:
        REFUSALS.labels(status).inc()


def version_taken(project: str, version: str, before: str | None) -> None:
    """Count a swap, and tell which version serves."""
    SWAPS.labels(project).inc()
    if before is not None and before != version:
        SERVING.labels(project, before).set(0)
    SERVING.labels(project, version).set(1)


def version_gone(project: str, version: str) -> None:
    """Tell that a version serves no more, and none in its place."""
    SERVING.labels(project, version).set(0)


def batches_told(project: str) -> Callable[[int, int], None]:
    """Return what notes each batch of a project: its size, and how many images are left waiting."""
    queue = QUEUE.labels(project)

    def told(size: int, left: int) -> None:
        BATCH_SIZE.observe(size)
        queue.set(left)

    return told
