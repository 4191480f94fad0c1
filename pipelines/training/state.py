"""The state of a running training: what a checkpoint holds, and what is reported of its progress."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands, all that a checkpoint holds.

    `step` steps are done in `elapsed` seconds; `loss_sum` and `loss_count` are of the epoch begun. `arrays` are
    the variables of the network, then of the optimizer.
    """

    step: int
    elapsed: float
    precision: str
    loss_sum: float
    loss_count: int
    arrays: list[NDArray[Any]]


@dataclass(frozen=True)
class Progress:
    """What can be said of a running training. `epoch` counts from 1; `ended` is False in the middle of one."""

    epoch: int
    epochs: int
    ended: bool
    loss: float
    validation_loss: float | None
    learning_rate: float
    images_per_second: float
    elapsed: float
    seconds: float

    def __str__(self) -> str:
        validation = "" if self.validation_loss is None else f" · validation {self.validation_loss:.4f}"
        speed = f"{self.images_per_second:.0f} images/s"
        time_used = clock(self.elapsed) + (f" of {clock(self.seconds)}" if math.isfinite(self.seconds) else "")
        return f"epoch {self.epoch} of {self.epochs} · loss {self.loss:.4f}{validation} · {speed} · {time_used}"


def clock(seconds: float) -> str:
    """Return seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
