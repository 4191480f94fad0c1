"""Renders `GET /metrics`: all metrics in Prometheus' text format, with the journal's state at the time of the scrape.

With several workers, each writes its metrics to files in `PROMETHEUS_MULTIPROC_DIR`, which `python -m serving` sets;
any worker answers for all of them.
"""

import os
from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from serving.recording.journal import Journal, JournalError

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


class _JournalCollector(Collector):
    """Reads the journal's state on each scrape; all workers share one journal."""

    def __init__(self, journal: Journal):
        self._journal = journal

    def collect(self) -> Iterable[Metric]:
        """Return how many predictions wait and were set aside; nothing if the journal cannot be read."""
        try:
            counts = self._journal.counts()
        except JournalError:
            return
        for name, text in (("waiting", "wait for the catalogue"), ("set_aside", "were set aside as unusable")):
            yield GaugeMetricFamily(f"inspectline_journal_{name}", f"Predictions that {text}.", value=counts[name])


def render_metrics(journal: Journal) -> tuple[bytes, str]:
    """Return the metrics of all workers in Prometheus' text format, and its content type."""
    shared = CollectorRegistry()
    shared.register(_JournalCollector(journal))
    if os.environ.get(MULTIPROCESS):
        MultiProcessCollector(shared)
        return generate_latest(shared), CONTENT_TYPE_LATEST
    return generate_latest(REGISTRY) + generate_latest(shared), CONTENT_TYPE_LATEST
