"""Trains the restoration autoencoder on good images: `fit()`. Independent of S3, packs and MLflow.

On a GPU the training step also renders its batch (`synthetic.device`).

Batches depend on the seed and the step only, so the state of a training is small: the step, the time used, the weights
and the optimizer's variables. A training resumed from a state continues as if it had not been interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipelines.errors import TrainingFailed
from pipelines.tasks.anomaly.fitting.batches import Batch, BatchStream, Drawn, Images, of_one_part, validation_batches
from pipelines.tasks.anomaly.fitting.precision import faster_precision
from pipelines.tasks.anomaly.fitting.state import FitSettings, Fitted, Pace, RunningMean, Stopped, as_array
from pipelines.tasks.anomaly.restoration.anomaly_score import pieces, roughness
from pipelines.tasks.anomaly.restoration.loss import training_loss
from pipelines.tasks.anomaly.restoration.network import TRAINED_OUTPUTS, build_network, named_weights, set_weights
from pipelines.tasks.anomaly.restoration.normality import (
    LOOKED_AT_FOR_EVIDENCE,
    Usual,
    nearest_parts,
    shown_parts,
    usual_maps,
    usual_pattern,
)
from pipelines.tasks.anomaly.synthetic.defects import is_aligned
from pipelines.tasks.anomaly.synthetic.device import draws_on_device, painted
from pipelines.tasks.anomaly.synthetic.real_defects import Annotated
from pipelines.tasks.anomaly.synthetic.sampling import spread, whole_batches
from pipelines.training.state import Progress, TrainingState

# An epoch of a small set passes over its images several times: epochs of two steps would be mostly overhead.
LEAST_STEPS = 20
WARM_UP = 40
VALIDATE_SECONDS = 4.0
REPORT_SECONDS = 10.0
CHECKPOINT_SECONDS = 20.0
CLOCK_GRACE = 0.1
# Decay of the exponential moving average of the weights, over about the last fifty steps.
AVERAGING = 0.98


class Restoration(keras.Model):
    """The network with its loss, used in training only; the network itself is saved and exported.

    With `textures` [T, S, S], it also accepts recipes and renders their images (`synthetic.device`).
    """

    def __init__(self, network: keras.Model, textures: NDArray[np.float32] | None = None) -> None:
        super().__init__()
        self.network = network
        self.textures = None
        if textures is not None:
            self.textures = self.add_weight(textures.shape, dtype="float32", trainable=False, name="textures")
            self.textures.assign(textures)

    def call(self, image: Any, training: bool = False) -> Any:
        """Return the outputs that the loss is computed from, by name; for a recipe, also the `damaged` and the `clean`
        images.
        """
        drawn: dict[str, Any] = {}
        if isinstance(image, dict):
            image, clean = painted(image, self.textures)
            drawn = {"damaged": image, "clean": clean}
        answer = self.network(image, training=training)
        return drawn | {name: answer[name] for name in TRAINED_OUTPUTS}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the training loss of damaged images `x` and clean images in `y`; if `x` is a recipe, both are in
        `y_pred`.
        """
        # Keras's PyTorch trainer passes `x` and `y` as numpy arrays.
        if isinstance(x, dict):
            damaged, clean, unlocated = y_pred["damaged"], y_pred["clean"], ops.convert_to_tensor(y)
        else:
            damaged, clean, unlocated = (ops.convert_to_tensor(array) for array in (x, *y))
        return training_loss(damaged, clean, unlocated, **{name: y_pred[name] for name in TRAINED_OUTPUTS})


def fit(
    images: Images,
    settings: FitSettings,
    *,
    validation: Images | None = None,
    annotated: Annotated | None = None,
    weights: dict[str, list[NDArray[Any]]] | None = None,
    state: TrainingState | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_checkpoint: Callable[[TrainingState], None] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Fitted:
    """Train on good `images` [n, S, S, 3] uint8 and return the network with its averaged weights, in float32.

    `validation` images are used for the validation loss only; `annotated` are real anomalies to train on. `weights`
    (`named_weights` of another network) start a fine-tuning; `state` resumes an interrupted training, with the time it
    used. `on_progress` is called at the end of each epoch and every ten seconds, `on_checkpoint` every
    `checkpoint_seconds` (20) and at the end. Raises TrainingFailed.
    """
    if len(images) == 0:
        raise TrainingFailed("there are no good training images; put some into the inbox and run again")
    batches = BatchStream(images, settings.batch_size, settings.seed, annotated, on_device=draws_on_device())
    training = _Training(images, settings, weights, state, batches.textures)
    watched = validation_batches(validation, settings.batch_size, settings.seed) if validation is not None else []
    checkpointed = reported = training.elapsed()
    validated = -math.inf

    def report() -> None:
        nonlocal reported, validated
        reported = training.elapsed()
        done = training.is_done()
        measure = watched and (training.epoch_ended() or done) and (done or reported - validated > VALIDATE_SECONDS)
        loss = training.loss_of(watched) if measure else None
        validated = training.elapsed() if measure else validated
        if on_progress:
            on_progress(training.progress(loss))

    stream = batches.from_step(training.step)
    try:
        while not training.is_done():
            training.take(next(stream))
            if training.epoch_ended() or training.elapsed() - reported > REPORT_SECONDS:
                report()
            if training.epoch_ended():
                training.loss = RunningMean()
            if on_checkpoint and training.elapsed() - checkpointed >= checkpoint_seconds:
                on_checkpoint(training.state())
                checkpointed = training.elapsed()
    finally:
        stream.close()
    if training.loss.count:
        report()
    if on_checkpoint:
        on_checkpoint(training.state())
    return training.fitted(images)


class _Training:
    """A running training: the network, its optimizer and its progress."""

    def __init__(
        self,
        images: Images,
        settings: FitSettings,
        weights: dict[str, list[NDArray[Any]]] | None,
        state: TrainingState | None,
        textures: NDArray[np.float32] | None = None,
    ) -> None:
        self._begun = time.monotonic() - (state.elapsed if state else 0.0)
        keras.utils.set_random_seed(settings.seed)
        self.settings = settings
        self.precision = state.precision if state else settings.precision or faster_precision()
        self.network = build_network(settings.preset, settings.input_size, self.precision)
        if weights is not None:
            set_weights(self.network, weights)
        self.model = Restoration(self.network, textures)
        self.optimizer = keras.optimizers.AdamW(
            settings.learning_rate,
            weight_decay=1e-4,
            clipnorm=1.0,
            use_ema=True,
            ema_momentum=AVERAGING,
            gradient_accumulation_steps=settings.accumulation if settings.accumulation > 1 else None,
        )
        self.model.compile(optimizer=self.optimizer)
        self.optimizer.build(self.network.trainable_variables)
        self.variables = [*self.network.variables, *self.optimizer.variables]
        self.step, self.loss = 0, RunningMean()
        if state:
            self._restore(state)
        self.steps_per_epoch = max(LEAST_STEPS, math.ceil(len(images) / settings.batch_size))
        self.last_step = settings.most_steps(self.steps_per_epoch, surface=not is_aligned(of_one_part(images)))
        self.pace = Pace(settings.batch_size)
        self.rate = 0.0

    def elapsed(self) -> float:
        """Return the seconds used, including those before an interruption."""
        return time.monotonic() - self._begun

    def is_done(self) -> bool:
        """Return whether the last step is done or the time is up."""
        return self.step >= self.last_step or self.elapsed() >= self.settings.seconds

    def epoch_ended(self) -> bool:
        """Return whether the step just taken was the last of its epoch."""
        return self.step > 0 and self.step % self.steps_per_epoch == 0

    def take(self, batch: Batch) -> None:
        """Take one step."""
        # Time drives the schedule only if the time limit ends the training, so that otherwise two runs with the same
        # seed have the same schedule.
        part = max(self.step / self.last_step, self.elapsed() / self.settings.seconds - CLOCK_GRACE)
        self.rate = learning_rate(self.settings.learning_rate, self.step, part)
        self.optimizer.learning_rate.assign(self.rate)
        self.loss.add(_loss(self.model.train_on_batch(*batch, return_dict=True)))
        self.step += 1
        self.pace.stepped()
        if not math.isfinite(self.loss.total):
            raise TrainingFailed(f"the loss is not a number any more at step {self.step}; check the training images")

    def loss_of(self, batches: list[Drawn]) -> float:
        """Return the mean loss of batches, without training on them."""
        return float(np.mean([_loss(self.model.test_on_batch(*batch, return_dict=True)) for batch in batches]))

    def progress(self, validation_loss: float | None) -> Progress:
        """Return the progress of the training."""
        return Progress(
            epoch=math.ceil(self.step / self.steps_per_epoch),
            epochs=math.ceil(self.last_step / self.steps_per_epoch),
            ended=self.epoch_ended() or self.is_done(),
            loss=self.loss.value(),
            validation_loss=validation_loss,
            learning_rate=self.rate,
            images_per_second=self.pace.images_per_second(),
            elapsed=self.elapsed(),
            seconds=self.settings.seconds,
        )

    def state(self) -> TrainingState:
        """Return a copy of the state from which the training can resume."""
        arrays = [as_array(variable) for variable in self.variables]
        return TrainingState(self.step, self.elapsed(), self.precision, self.loss.total, self.loss.count, arrays)

    def stopped(self) -> Stopped:
        """Return what ended the training."""
        if self.step < self.last_step:
            return "time"
        return "epochs" if self.settings.epochs and not self.settings.steps else "steps"

    def fitted(self, images: Images) -> Fitted:
        """Return the network with averaged weights and the statistics of its images, and the measurements."""
        self.optimizer.finalize_variable_values(self.network.trainable_variables)
        return Fitted(
            network=completed(self.network, self.settings, images),
            epochs=self.step // self.steps_per_epoch,
            steps=self.step,
            seconds=self.elapsed(),
            images_per_second=self.pace.images_per_second(),
            stopped=self.stopped(),
            precision=self.precision,
        )

    def _restore(self, state: TrainingState) -> None:
        if [tuple(own.shape) for own in self.variables] != [array.shape for array in state.arrays]:
            raise TrainingFailed("the checkpoint belongs to another network; start the training again by force")
        for variable, value in zip(self.variables, state.arrays, strict=True):
            variable.assign(value)
        self.step, self.loss = state.step, RunningMean(state.loss_sum, state.loss_count)


def learning_rate(highest: float, step: int, part: float) -> float:
    """Return the learning rate at `part` (0 to 1) of the training: linear warm-up, then cosine decay to 1 % of
    `highest`.
    """
    fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
    return highest * fall * min(1.0, (step + 1) / WARM_UP)


def completed(network: keras.Model, settings: FitSettings, images: Images) -> keras.Model:
    """Return the network in float32 with the statistics of good `images` [n, S, S, 3] (`normality`)."""
    aligned = is_aligned(of_one_part(images))
    parts = shown_parts(images, aligned)
    learnt = named_weights(network)

    def scaled(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        pixels: NDArray[np.float32] = images[rows].astype(np.float32) / np.float32(255)
        return pixels

    def output_of(rows: NDArray[np.int64], usual: Usual | None, output: str) -> NDArray[np.float32]:
        """Return one output of the network for some of the images, in batches of one size."""
        judging = build_network(settings.preset, settings.input_size, usual=usual)
        set_weights(judging, learnt)
        batches = whole_batches(rows, settings.batch_size)
        outputs = [judging.predict_on_batch(scaled(part))[output] for part in batches]
        return np.concatenate(outputs)[: len(rows)]

    rows = np.concatenate(parts)
    # Without statistics, the network's error is the softplus of the logarithm of the relative error; invert it.
    logs = np.log(np.expm1(output_of(rows, None, "error")[..., 0]))
    maps = [usual_maps(part, aligned) for part in np.split(logs, np.cumsum([len(part) for part in parts])[:-1])]
    usual = Usual.of_maps(
        np.stack([usual_pattern(images[part]) for part in parts]),
        np.stack([middle for middle, _ in maps]),
        np.stack([width for _, width in maps]),
        pieces=pieces(surface=not aligned),
        surface=not aligned,
    )
    # Sample all images, including those of parts too rare for maps of their own.
    everything = spread(len(images), LOOKED_AT_FOR_EVIDENCE)
    batches = np.array_split(everything, -(-len(everything) // settings.batch_size))
    rough = np.concatenate([as_array(roughness(scaled(rows)))[:, 0] for rows in batches])
    shown = np.concatenate([nearest_parts(images[rows], usual.patterns) for rows in batches])
    usual = usual.with_evidence(output_of(everything, usual, "evidence"), rough, shown)
    whole = build_network(settings.preset, settings.input_size, usual=usual)
    set_weights(whole, learnt)
    return whole


def _loss(logs: Any) -> float:
    return float(as_array(logs["loss"]))
