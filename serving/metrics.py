"""Prometheus metrics of serving: requests, batches, predictions and model versions.

`serving.metrics_exposition` renders them for `GET /metrics`.
"""

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# Methods that clients invent share one label value, which bounds the number of series.
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


def request_answered(method: str, call: str, status: int, seconds: float) -> None:
    """Count an answered request; `seconds` is the time taken."""
    REQUESTS.labels(method if method in _METHODS else "other", call, status).inc()
    LATENCY.labels(call).observe(seconds)
    if status >= 400:
        REFUSALS.labels(status).inc()


def version_taken(project: str, version: str, before: str | None) -> None:
    """Count a swap from version `before` to `version`, and set the gauge of serving versions."""
    SWAPS.labels(project).inc()
    if before is not None and before != version:
        SERVING.labels(project, before).set(0)
    SERVING.labels(project, version).set(1)


def version_gone(project: str, version: str) -> None:
    """Set the gauge of a version that stopped serving without a successor."""
    SERVING.labels(project, version).set(0)


def batch_observer(project: str) -> Callable[[int, int], None]:
    """Return the `observe` function of a project's batches: it takes a batch's size and the queue's length."""
    queue = QUEUE.labels(project)

    def observe(size: int, queued: int) -> None:
        BATCH_SIZE.observe(size)
        queue.set(queued)

    return observe
