"""Settings, results and running measurements of a training."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

Stopped = Literal["epochs", "steps", "time"]
# Number of steps of 16 images after which no measured set of objects gained accuracy, and one whose test images differ
# from its training images lost much; surfaces, which are shown in eight orientations, gain for longer
# (benchmarks/HISTORY.md, "Time"). The larger presets were not measured and are limited by time only.
ENOUGH_STEPS = {"small": 1_200}
SURFACES_TAKE = 3
_WITHOUT_END = 1_000_000


@dataclass(frozen=True)
class FitSettings:
    """The settings of a training, which ends by `epochs` or `steps`, or by `seconds`, whichever comes first.

    Two trainings with the same seed and precision that both end by steps or epochs give the same weights.

    Attributes:
        preset: size of the network, a key of `network.CHANNELS`.
        input_size: side of the images, in pixels.
        batch_size: images per step.
        epochs: number of epochs; None for the number of steps that is enough for the preset.
        seconds: time limit.
        seed: seed of weights and batches.
        learning_rate: highest learning rate.
        precision: Keras dtype policy; None measures which is faster.
        steps: number of steps, instead of `epochs`.
        share: share of the steps of the preset to take, without `epochs` and `steps`.
        accumulation: steps whose mean gradient changes the weights.
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
        """Return the number of the last step, unless the time limit ends the training before; `surface` says whether
        the images show a surface rather than an object in a fixed position.
        """
        if self.steps:
            return self.steps
        if self.epochs:
            return self.epochs * steps_per_epoch
        return round(self.share * ENOUGH_STEPS.get(self.preset, _WITHOUT_END) * (SURFACES_TAKE if surface else 1))


@dataclass(frozen=True)
class Fitted:
    """A trained network and measurements of its training.

    Attributes:
        network: the network, in float32, with averaged weights.
        epochs: complete epochs.
        steps: steps taken.
        seconds: time used, including that before an interruption.
        images_per_second: training speed, without the first steps.
        stopped: what ended the training.
        precision: Keras dtype policy it was trained in.
    """

    network: keras.Model
    epochs: int
    steps: int
    seconds: float
    images_per_second: float
    stopped: Stopped
    precision: str


@dataclass
class RunningMean:
    """The mean of added values.

    Attributes:
        total: their sum.
        count: their number.
    """

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        """Add a value."""
        self.total += value
        self.count += 1

    def value(self) -> float:
        """Return the mean; NaN without values."""
        return self.total / self.count if self.count else math.nan


class Pace:
    """Measures images per second, without the first `left_out` (2) steps, in which backends compile."""

    def __init__(self, batch_size: int, left_out: int = 2) -> None:
        self._batch_size = batch_size
        self._left_out = left_out
        self._steps = 0
        self._since = time.monotonic()

    def stepped(self) -> None:
        """Count a step that has just ended."""
        self._steps += 1
        if self._steps == self._left_out:
            self._since = time.monotonic()

    def images_per_second(self) -> float:
        """Return the mean speed so far; 0 during the first steps."""
        counted = self._steps - self._left_out
        return counted * self._batch_size / max(time.monotonic() - self._since, 1e-9) if counted > 0 else 0.0


def as_array(value: Any) -> NDArray[Any]:
    """Return a backend's tensor or variable as a numpy array."""
    return np.asarray(keras.ops.convert_to_numpy(value))
