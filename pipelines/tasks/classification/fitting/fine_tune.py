"""Trains the head and the upper blocks of a classifier's network on random views of the images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipelines.errors import TrainingFailed
from pipelines.tasks.classification.fitting.augmentation import draw_views, show
from pipelines.tasks.classification.fitting.data import LabelledImages
from pipelines.training.state import Progress, TrainingState

LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.1
WARM_UP = 0.05  # share of the training
AVERAGING = 0.99  # decay of the moving average of the weights
MOST_EPOCHS = 30  # without a number of epochs; more gained nothing on sets of 1,000 images
REPORT_SECONDS = 10.0
CHECKPOINT_SECONDS = 20.0


@dataclass(frozen=True)
class FineTuning:
    """How the upper blocks are trained.

    Attributes:
        epochs: passes over the images; None as many as the time allows, at most 30.
        seconds: time limit.
        batch_size: images per step.
        seed: seed of the order and of the views.
        learning_rate: highest learning rate.
    """

    epochs: int | None
    seconds: float
    batch_size: int = 32
    seed: int = 0
    learning_rate: float = LEARNING_RATE


@dataclass(frozen=True)
class Tuned:
    """What a fine-tuning did; the network's weights are changed in place.

    Attributes:
        epochs: completed passes.
        steps: steps taken.
        seconds: time used, including that before an interruption.
        images_per_second: mean speed of the steps.
        stopped: what ended it.
    """

    epochs: int
    steps: int
    seconds: float
    images_per_second: float
    stopped: Literal["epochs", "steps", "time"]


class _Trained(keras.Model):
    """The network behind random views, with what training needs; the network itself is saved and exported."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__(name="fine_tuning")
        self.network = network

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Return the logits of views of images."""
        views = show(
            ops.cast(inputs["images"], "float32"), inputs["transform"], inputs["contrast"], inputs["brightness"]
        )
        return self.network(views, training=training)["logits"]


def fine_tune(
    network: keras.Model,
    data: LabelledImages,
    classes: int,
    settings: FineTuning,
    *,
    state: TrainingState | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_checkpoint: Callable[[TrainingState], None] = lambda state: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Tuned:
    """Train the trainable layers of a network that `open_upper_layers` prepared, with AdamW and a cosine schedule.

    With a number of epochs and without a time limit that ends it, the same seed gives the same weights.

    Args:
        network: backbone and head; keeps the moving average of its weights at the end.
        data: the images to learn from.
        classes: number of classes.
        settings: how to train.
        state: where an interrupted training stands. Default None: from the start.
        on_progress: called about every ten seconds and after each epoch.
        on_checkpoint: called with the state about every `checkpoint_seconds`.
        checkpoint_seconds: see `on_checkpoint`. Default 20.

    Raises:
        TrainingFailed: the loss is not finite.
    """
    trained = _Trained(network)
    optimizer = keras.optimizers.AdamW(
        settings.learning_rate, weight_decay=WEIGHT_DECAY, use_ema=True, ema_momentum=AVERAGING
    )
    # Not jit-compiled: XLA compiles longer on a CPU than a short fine-tuning gains.
    trained.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    optimizer.build(network.trainable_variables)
    steps_per_epoch = max(1, math.ceil(len(data) / settings.batch_size))
    epochs = settings.epochs or MOST_EPOCHS
    last, step, before = epochs * steps_per_epoch, 0, 0.0
    if state is not None:
        step, before = state.step, state.elapsed
        for variable, array in zip(_variables(network, optimizer), state.arrays, strict=True):
            variable.assign(array)
    began = reported = kept = time.monotonic()
    began -= before
    first_step, losses = step, []
    stopped: Literal["epochs", "steps", "time"] = "epochs"
    for places in _order(data, settings, step, last):
        elapsed = time.monotonic() - began
        if elapsed > settings.seconds:
            stopped = "time"
            break
        optimizer.learning_rate = settings.learning_rate * _schedule(max(step / last, elapsed / settings.seconds))
        inputs, targets = _batch(data, places, classes, np.random.default_rng((settings.seed, step, 1)))
        loss = trained.train_on_batch(inputs, targets, sample_weight=data.weights[places])
        losses.append(float(loss))
        if not math.isfinite(losses[-1]):
            raise TrainingFailed(f"the loss of the fine-tuning is {losses[-1]} at step {step}: lower the learning rate")
        step += 1
        now, ended = time.monotonic(), step % steps_per_epoch == 0
        if ended or now - reported > REPORT_SECONDS:
            reported = now
            speed = (step - first_step) * settings.batch_size / max(now - began - before, 1e-9)
            epoch = math.ceil(step / steps_per_epoch)
            rate = float(optimizer.learning_rate)
            mean = float(np.mean(losses[-steps_per_epoch:]))
            on_progress(Progress(epoch, epochs, ended, mean, None, rate, speed, now - began, settings.seconds))
        if now - kept > checkpoint_seconds:
            kept = now
            arrays = [ops.convert_to_numpy(variable) for variable in _variables(network, optimizer)]
            on_checkpoint(TrainingState(step, now - began, "float32", 0.0, 0, arrays))
    optimizer.finalize_variable_values(network.trainable_variables)
    seconds = time.monotonic() - began
    speed = (step - first_step) * settings.batch_size / max(seconds - before, 1e-9)
    return Tuned(step // steps_per_epoch, step, seconds, speed, stopped)


def _variables(network: keras.Model, optimizer: keras.Optimizer) -> list[keras.Variable]:
    return [*network.trainable_variables, *optimizer.variables]


def _schedule(progress: float) -> float:
    """Return the share of the highest learning rate: a linear warm-up, then half a cosine."""
    if progress < WARM_UP:
        return max(progress / WARM_UP, 0.02)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP)))) + 1e-3


def _order(data: LabelledImages, settings: FineTuning, first: int, last: int) -> Iterator[NDArray[np.int64]]:
    """Yield the places of the images of steps `first` to `last`; each epoch passes over all in another order.

    Every batch is whole: the last one of an epoch is filled from its beginning, so that no backend compiles twice.
    """
    per_epoch = max(1, math.ceil(len(data) / settings.batch_size))
    for step in range(first, last):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng((settings.seed, epoch)).permutation(len(data))
        yield np.resize(np.roll(order, -place * settings.batch_size), settings.batch_size)


def _batch(
    data: LabelledImages, places: NDArray[np.int64], classes: int, rng: np.random.Generator
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
    images = np.asarray(data.batch(places))
    views = draw_views(len(places), images.shape[1], rng)
    targets = np.full((len(places), classes), LABEL_SMOOTHING / classes, np.float32)
    targets[np.arange(len(places)), data.labels[places]] += 1 - LABEL_SMOOTHING
    inputs: dict[str, NDArray[Any]] = {
        "images": images,
        "transform": views.transform,
        "contrast": views.contrast,
        "brightness": views.brightness,
    }
    return inputs, targets
