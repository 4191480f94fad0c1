"""Reads and writes the catalogue's accuracy checks: one row a run, with the time at which it was mailed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from monitoring.accuracy.measure import Measured
from monitoring.state_log import StateLog
from pipelines.catalogue.schema import accuracy_checks, samples

LOG = StateLog(accuracy_checks, ("below", "met"), "met")


def names(connection: Connection, check: Mapping[Any, Any]) -> dict[str, str]:
    """Return the file names of a check's example images, as they came, by SHA-256."""
    worst = Measured.from_json(check["results"]["measured"]).worst
    hashes = {sha256 for one in worst for confusion in one.confusions for sha256 in confusion.examples}
    query = select(samples.c.sha256, samples.c.source_key).where(
        samples.c.project == check["project"], samples.c.sha256.in_(hashes)
    )
    return {row.sha256: row.source_key.rpartition("/")[2] for row in connection.execute(query)}
