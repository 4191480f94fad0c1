"""Looks up what a version said of an image before, in the catalogue."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.errors import CatalogueError
from pipelines.registry.client import RegisteredVersion
from serving import catalogue

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

_PAUSE_SECONDS = 30.0  # without the catalogue, before it is asked again: a prediction does not wait for it each time


class PastPredictions:
    """Past predictions of the versions that serve."""

    def __init__(self) -> None:
        self._away_until = 0.0

    def find(self, project: str, sha256: str, version: RegisteredVersion) -> RowMapping | None:
        """Return a prediction of `version` for the image with this SHA-256, as a row of the catalogue.

        None where there is none, also where the catalogue is away. Predictions from before the version was registered
        are another registry's.
        """
        if time.monotonic() < self._away_until:
            return None
        since = datetime.fromisoformat(version.created_at) if version.created_at else None
        try:
            return catalogue.find_prediction(project, sha256, version.version, since)
        except CatalogueError:
            self._away_until = time.monotonic() + _PAUSE_SECONDS
            return None
