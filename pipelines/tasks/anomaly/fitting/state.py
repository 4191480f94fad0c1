"""What is told and kept of a running training: its progress, its state, and what came of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

Stopped = Literal["epochs", "steps", "time"]
# After so many steps of 16 images, no set of objects that was tried gained by more, and one lost much, whose test
# images show what the training's do not; surfaces, turned and mirrored and so seen eight ways, gain for longer
# (benchmarks/HISTORY.md, "Time"). The larger presets were not measured: time ends them.
ENOUGH_STEPS = {"small": 1_200}
SURFACES_TAKE = 3
_WITHOUT_END = 1_000_000


@dataclass(frozen=True)
class FitSettings:
    """What a training is told: sizes, `epochs` or `seconds` (whichever ends first), the seed, the step size.

    `steps`, if given, takes the place of `epochs`; without either, the training takes as many steps as are enough for
    its preset, or a `share` (1) of them. A step is one batch; the weights change after `accumulation` (1) of them, by
    the mean of their gradients. `precision` is a Keras dtype policy; None, the default, measures which is
    faster. Two trainings of one seed that both end by steps or epochs, in one precision, agree.
    """

    preset: str = "small"
    input_size: int = 128
    batch_size: int = 16
    epochs: int | None = None
    seconds: float = 240.0
    seed: int = 0
    learning_rate: float = 2e-3
    precision: str | None = None
    steps: int | None = None
    share: float = 1.0
    accumulation: int = 1

    def most_steps(self, steps_per_epoch: int, surface: bool) -> int:
        """Return the number of the last step, if time does not end the training before; `surface`: of images that show
        one, and not something in its place.
        """
        if self.steps:
            return self.steps
        if self.epochs:
            return self.epochs * steps_per_epoch
        return round(self.share * ENOUGH_STEPS.get(self.preset, _WITHOUT_END) * (SURFACES_TAKE if surface else 1))


@dataclass(frozen=True)
class Fitted:
    """A trained network, in float32, and how its training went."""

    network: keras.Model
    epochs: int
    steps: int
    seconds: float
    images_per_second: float
    stopped: Stopped
    precision: str


@dataclass
class RunningMean:
    """The mean of what was added since it was made."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Add a value."""
        self.total += value
        self.count += 1

    def value(self) -> float:
        """Return the mean, NaN of nothing."""
        return self.total / self.count if self.count else math.nan


class Pace:
    """Images a second, without the first steps, in which backends compile."""

    def __init__(self, batch_size: int, left_out: int = 2) -> None:
        self._batch_size = batch_size
        self._left_out = left_out
        self._steps = 0
        self._since = time.monotonic()

    def stepped(self) -> None:
        """Count one step that has just ended."""
        self._steps += 1
        if self._steps == self._left_out:
            self._since = time.monotonic()

    def images_per_second(self) -> float:
        """Return the mean speed so far; 0 as long as only the first steps are done."""
        counted = self._steps - self._left_out
        return counted * self._batch_size / max(time.monotonic() - self._since, 1e-9) if counted > 0 else 0.0


def as_array(value: Any) -> NDArray[Any]:
    """Return a backend's tensor or variable as a numpy array."""
    return np.asarray(keras.ops.convert_to_numpy(value))
