"""A training's checkpoint: one S3 object, replaced as a whole, so that any worker can take the training up
again.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import NotFound
from pipelines.steps import Run
from pipelines.storage import keys
from pipelines.storage.s3 import Storage

if TYPE_CHECKING:
    from pipelines.training.state import TrainingState


# Values of epochs that the curves do not show yet, by the epoch's number.
Waiting = dict[int, dict[str, float]]


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of one training is kept: `<project>/<version_id>/checkpoint/<training_id>/state.npz`."""

    storage: Storage
    key: str

    @classmethod
    def of(cls, bucket: str, run: Run) -> Checkpoint:
        """Return the checkpoint of a run."""
        return cls(Storage(bucket), keys.checkpoint(run.project, run.version_id, run.training_id))

    def save(self, state: TrainingState, waiting: Waiting | None = None) -> None:
        """Replace the checkpoint; an S3 put is seen whole or not at all. `waiting` are epochs that are done but
        in no curve yet. Raises StorageError.
        """
        standing = {
            "step": state.step,
            "elapsed": state.elapsed,
            "precision": state.precision,
            "loss_sum": state.loss_sum,
            "loss_count": state.loss_count,
        }
        curves = sorted((waiting or {}).items())
        stream = io.BytesIO()
        arrays: dict[str, Any] = {f"array_{place:05d}": array for place, array in enumerate(state.arrays)}
        texts: dict[str, Any] = {"standing": np.array(json.dumps(standing)), "waiting": np.array(json.dumps(curves))}
        np.savez(stream, **texts, **arrays)
        self.storage.put(self.key, stream.getvalue())

    def load(self) -> tuple[TrainingState, Waiting] | None:
        """Return the state to go on from, and the epochs that no curve shows yet; None if there is no state, or
        none that can be read. Raises StorageError.
        """
        from pipelines.training.state import TrainingState

        try:
            data = self.storage.get(self.key)
        except NotFound:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                names = sorted(name for name in archive.files if name.startswith("array_"))
                standing = json.loads(str(archive["standing"]))
                waiting = {int(number): dict(values) for number, values in json.loads(str(archive["waiting"]))}
                return TrainingState(**standing, arrays=[archive[name] for name in names]), waiting
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def delete(self) -> None:
        """Delete it; the training is complete. Raises StorageError."""
        self.storage.delete(self.key)
