"""How far a running training is, in its row of the catalogue, for whoever asked for it and waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

from pipelines.catalogue import transaction
from pipelines.catalogue.schema import now, trainings
from pipelines.errors import CatalogueError

if TYPE_CHECKING:
    from pipelines.training.state import Progress

EVERY_SECONDS = 3.0
REST_SECONDS = 60.0  # a catalogue that is away holds training up no more often than this


class ProgressRow:
    """The row of one training; written every few seconds, and not at all while the catalogue is away."""

    def __init__(self, training_id: str) -> None:
        self._training_id = training_id
        self._next = 0.0

    def note(self, progress: Progress) -> None:
        """Write how far the training is, unless that was done a moment ago."""
        if time.monotonic() < self._next:
            return
        pause = EVERY_SECONDS
        try:
            with transaction() as connection:
                connection.execute(
                    update(trainings)
                    .where(trainings.c.training_id == self._training_id)
                    .values(progress=summary(progress) | {"at": now().isoformat(timespec="seconds")})
                )
        except CatalogueError:
            pause = REST_SECONDS
        self._next = time.monotonic() + pause


def summary(progress: Progress) -> dict[str, Any]:
    """Return the progress of a training: `percent` of the epochs or of the time, whichever ends it first."""
    done = max((progress.epoch - (not progress.ended)) / progress.epochs, progress.elapsed / progress.seconds)
    return {
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "seconds": round(progress.elapsed, 1),
        "time_budget_seconds": round(progress.seconds, 1),
        "percent": round(100 * min(1.0, done), 1),
    }
