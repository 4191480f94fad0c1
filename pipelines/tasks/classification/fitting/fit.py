"""Fits a classifier: embeddings, the head, then fine-tuning, kept only if validation says that it is better."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray

from pipelines.backbones import Backbone
from pipelines.evaluation.paired_bootstrap import mean_difference
from pipelines.steps import Estimate
from pipelines.tasks.classification.fitting.data import LabelledImages, log_losses
from pipelines.tasks.classification.fitting.dense_head import fit_dense_head
from pipelines.tasks.classification.fitting.fine_tune import CHECKPOINT_SECONDS, FineTuning, fine_tune
from pipelines.tasks.classification.fitting.head import tune_head
from pipelines.tasks.classification.fitting.network import classifier, embed, open_upper_layers, set_head
from pipelines.tasks.classification.temperature import fit_temperature
from pipelines.training.state import Progress, TrainingState

BOOTSTRAP_SAMPLES = 2000


@dataclass(frozen=True)
class FitSettings:
    """The settings of a training.

    Attributes:
        layers: dense layers behind the embedding.
        open_layers: convolutions of the backbone that fine-tuning trains; 0: the head alone.
        epochs: epochs of the fine-tuning; None as many as the time allows.
        batch_size: images per step of the fine-tuning.
        seconds: time limit of the whole.
        seed: seed of initialisation, folds, order and views.
        learning_rate: factor on the learning rate of the fine-tuning. Default 1.
    """

    layers: int = 1
    open_layers: int = 16
    epochs: int | None = None
    batch_size: int = 32
    seconds: float = 1800.0
    seed: int = 0
    learning_rate: float = 1.0


@dataclass(frozen=True)
class Fitted:
    """A trained classifier.

    Attributes:
        network: see `pipelines.tasks.classification.fitting.network.classifier`.
        fine_tuned: whether the upper blocks of the backbone were trained.
        out_of_fold: float32 [n, classes], logits of the training images by heads fitted without them; None where the
            network is not the backbone with a linear head.
        strength: the inverse penalty of the head; None with several layers.
        difference: how much lower the log-loss of the fine-tuned network is on validation; None without fine-tuning.
        epochs: completed epochs of the fine-tuning.
        steps: its steps.
        images_per_second: its speed; that of the embedding without fine-tuning.
        seconds: time used by the whole.
        stopped: what ended it.
        notes: sentences on what was done.
    """

    network: keras.Model
    fine_tuned: bool
    out_of_fold: NDArray[np.float32] | None
    strength: float | None
    difference: Estimate | None
    epochs: int
    steps: int
    images_per_second: float
    seconds: float
    stopped: Literal["epochs", "steps", "time"]
    notes: list[str] = field(default_factory=list)


def fit(
    backbone: Backbone,
    training: LabelledImages,
    validation: LabelledImages,
    classes: int,
    settings: FitSettings,
    *,
    embeddings: NDArray[np.float32] | None = None,
    state: TrainingState | None = None,
    say: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_checkpoint: Callable[[TrainingState], None] = lambda state: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Fitted:
    """Train a classifier within the time limit.

    Args:
        backbone: the pretrained network.
        training: images to learn from, each class at least once.
        validation: images that decide whether the fine-tuned network is kept; none: it is not.
        classes: number of classes.
        settings: how to train.
        embeddings: float32 [n, d], of the training images. Default None: computed here.
        state: where an interrupted fine-tuning stands. Default None.
        say: takes lines for the log.
        on_progress: takes the progress of the fine-tuning.
        on_checkpoint: takes the state of the fine-tuning.
        checkpoint_seconds: time between states.

    Raises:
        TrainingFailed: the loss of the fine-tuning is not finite.
    """
    keras.utils.set_random_seed(settings.seed)
    began = time.monotonic()
    if embeddings is None:
        embeddings = embed(backbone.network, training.images[training.rows])
    speed = len(training) / max(time.monotonic() - began, 1e-9)
    network = classifier(backbone, classes, settings.layers)
    out_of_fold = strength = None
    if settings.layers == 1:
        tuned = tune_head(embeddings, training.labels, training.groups, training.weights, seed=settings.seed)
        set_head(network, tuned.head)
        out_of_fold, strength = tuned.out_of_fold, tuned.strength
        right = float((out_of_fold.argmax(axis=1) == training.labels).mean())
        say(f"head: cross-validated accuracy {right:.3f}, log-loss {tuned.log_loss[strength]:.3f}, C = {strength:g}")
    else:
        fit_dense_head(network, embeddings, training.labels, training.weights, seed=settings.seed)
    used = time.monotonic() - began
    as_head = Fitted(network, False, out_of_fold, strength, None, 0, 0, speed, used, "steps")
    left = settings.seconds - used - len(validation) / max(speed, 1.0)
    if not settings.open_layers:
        return as_head
    if not len(validation):
        return replace(
            as_head,
            notes=[
                "No validation images: the backbone was not fine-tuned, since nothing could tell"
                " whether that made it better."
            ],
        )
    if left < 5 and settings.epochs is None and state is None:
        return replace(as_head, notes=["The time budget was used up by the head: the backbone was not fine-tuned."])
    return _fine_tuned(
        as_head,
        training,
        validation,
        classes,
        settings,
        left,
        state,
        say,
        on_progress,
        on_checkpoint,
        checkpoint_seconds,
        began,
    )


def _fine_tuned(
    before: Fitted,
    training: LabelledImages,
    validation: LabelledImages,
    classes: int,
    settings: FitSettings,
    seconds: float,
    state: TrainingState | None,
    say: Callable[[str], None],
    on_progress: Callable[[Progress], None],
    on_checkpoint: Callable[[TrainingState], None],
    checkpoint_seconds: float,
    began: float,
) -> Fitted:
    """Fine-tune a copy of the network, and return whichever is better on validation."""
    network = before.network
    kept = [np.array(weight) for weight in network.get_weights()]
    logits = predict_logits(network, validation)
    opened = open_upper_layers(network, settings.open_layers)
    say(f"fine-tuning the head and {opened} convolutions for at most {seconds:.0f} s")
    defaults = FineTuning(settings.epochs, max(seconds, 1.0), settings.batch_size, settings.seed)
    how = replace(defaults, learning_rate=defaults.learning_rate * settings.learning_rate)
    tuned = fine_tune(
        network,
        training,
        classes,
        how,
        state=state,
        on_progress=on_progress,
        on_checkpoint=on_checkpoint,
        checkpoint_seconds=checkpoint_seconds,
    )
    tuned_logits = predict_logits(network, validation)
    difference = mean_difference(
        _calibrated_losses(logits, validation.labels),
        _calibrated_losses(tuned_logits, validation.labels),
        groups=list(validation.groups),
        samples=BOOTSTRAP_SAMPLES,
        seed=settings.seed,
    )
    accuracy, tuned_accuracy = (
        float((each.argmax(axis=1) == validation.labels).mean()) for each in (logits, tuned_logits)
    )
    better = difference.low > 0
    note = (
        f"Fine-tuning {'was kept' if better else 'was dropped'}: on {len(validation)} validation images it lowers the"
        f" log-loss by {difference}; accuracy {accuracy:.3f} before, {tuned_accuracy:.3f} after."
    )
    say(note)
    if not better:
        network.set_weights(kept)
    return replace(
        before,
        fine_tuned=better,
        out_of_fold=None if better else before.out_of_fold,
        difference=difference,
        epochs=tuned.epochs,
        steps=tuned.steps,
        images_per_second=tuned.images_per_second,
        seconds=time.monotonic() - began,
        stopped=tuned.stopped,
        notes=[note],
    )


def predict_logits(network: keras.Model, data: LabelledImages, batch_size: int = 32) -> NDArray[np.float32]:
    """Return the logits [m, classes] of images."""
    parts = []
    for start in range(0, len(data), batch_size):
        places = np.arange(start, min(start + batch_size, len(data)))
        images = np.zeros((batch_size, *data.images.shape[1:]), np.float32)
        images[: len(places)] = data.batch(places)
        parts.append(np.asarray(network.predict_on_batch(images)["logits"], np.float32)[: len(places)])
    return np.concatenate(parts) if parts else np.zeros((0, network.output["logits"].shape[-1]), np.float32)


def _calibrated_losses(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the log-loss of each image after the temperature that suits these images best."""
    return log_losses((logits / fit_temperature(logits, labels)).astype(np.float32), labels)
