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
from pipelines.storage import Storage

if TYPE_CHECKING:
    from pipelines.models.progress import TrainingState


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of one training is kept: `<project>/<version_id>/checkpoint/<training_id>/state.npz`."""

    storage: Storage
    key: str

    @classmethod
    def of(cls, bucket: str, run: dict[str, Any]) -> Checkpoint:
        """Return the checkpoint of a run."""
        folder = f"{run['project']}/{run['version_id']}/checkpoint/{run['training_id']}"
        return cls(Storage(bucket), f"{folder}/state.npz")

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint; an S3 put is seen whole or not at all. Raises StorageError."""
        standing = {
            "step": state.step,
            "elapsed": state.elapsed,
            "precision": state.precision,
            "loss_sum": state.loss_sum,
            "loss_count": state.loss_count,
        }
        stream = io.BytesIO()
        arrays: dict[str, Any] = {f"array_{place:05d}": array for place, array in enumerate(state.arrays)}
        np.savez(stream, standing=np.array(json.dumps(standing)), **arrays)
        self.storage.put(self.key, stream.getvalue())

    def load(self) -> TrainingState | None:
        """Return the state to go on from; None if there is none, or none that can be read.

        Raises StorageError.
        """
        from pipelines.models.progress import TrainingState

        try:
            data = self.storage.get(self.key)
        except NotFound:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                names = sorted(name for name in archive.files if name.startswith("array_"))
                standing = json.loads(str(archive["standing"]))
                return TrainingState(**standing, arrays=[archive[name] for name in names])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def delete(self) -> None:
        """Delete it; the training is complete. Raises StorageError."""
        self.storage.delete(self.key)
