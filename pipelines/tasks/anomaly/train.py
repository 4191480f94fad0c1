"""Trains the network of a run on its pack.

Killed and started again, on this machine or another, it goes on from the checkpoint in S3. The result names the
trained network, `model.keras`, in the run's package folder; `pipelines.tasks.anomaly.export` completes it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.config.project import load_project
from pipelines.errors import StorageError, TrainingFailed
from pipelines.registry.package import WEIGHTS
from pipelines.registry.package_store import package_uri
from pipelines.steps import PackRef, Run, TrainedModel, TrainingParameters
from pipelines.storage.s3 import Storage, split_uri
from pipelines.tasks.anomaly.training_set import annotated_anomalies, anomaly_settings, known_samples, select
from pipelines.training.checkpoints import Checkpoint
from pipelines.training.progress import ProgressRow

if TYPE_CHECKING:
    from pipelines.tasks.anomaly.fitting.batches import Selection
    from pipelines.tasks.anomaly.fitting.state import FitSettings, Fitted
    from pipelines.training.mlflow_log import TrainingLog
    from pipelines.training.state import Progress, TrainingState

# Steps as large as those of a training from scratch would undo what the champion knows, and as many are not needed.
FINE_TUNING, FINE_TUNING_TIME = 0.3, 0.3
CHECKPOINT_SECONDS = 20.0
CHECKPOINT_VARIABLE = "INSPECTLINE_CHECKPOINT_SECONDS"
SHOWN = 6


def train(run: Run, pack: PackRef) -> TrainedModel:
    """Train on the pack's good training images and store the network.

    Raises TrainingFailed, StorageError, RegistryError (MLflow stayed away).
    """
    from pipelines.tasks.anomaly.fitting.trainer import fit

    bucket = load_project(run.project).bucket
    settings = fit_settings(run)
    training, validation = select(pack, "training", known_samples(run, say)), select(pack, "validation")
    annotated = annotated_anomalies(run, pack)
    if not len(training):
        raise TrainingFailed(f"{run.project}: dataset version {run.version_id} has no good training images")
    checkpoint = Checkpoint.of(bucket, run)
    state, waiting = checkpoint.load() or (None, {})
    say(f"{len(training)} training and {len(validation)} validation images, {settings.input_size} pixels a side")
    if len(annotated.located) or len(annotated.unlocated):
        say(f"{len(annotated.located)} annotated anomalies with a mask and {len(annotated.unlocated)} without")
    if annotated.left_out:
        say(f"{annotated.left_out} annotated anomalies teach nothing: cut into tiles, they need a mask; draw them one")
    if training.fresh is not None:
        say(f"{int(training.fresh.sum())} of the training images are new to the champion")
    if state:
        say(f"going on from the checkpoint at step {state.step}, {state.elapsed:.0f} s used")
    log = open_log(run)
    row = ProgressRow(run.training_id)
    if log:
        log.take_up(waiting)

    def on_progress(progress: Progress) -> None:
        say(str(progress))
        if log:  # a training outside the catalogue has none
            row.note(progress)
        if log and progress.ended:
            log.epoch(progress.epoch, curve_values(progress))

    fitted = fit(
        training,
        settings,
        validation=validation,
        annotated=annotated,
        weights=None if state else starting_weights(run),
        state=state,
        on_progress=on_progress,
        on_checkpoint=lambda standing: keep(checkpoint, standing, log),
        checkpoint_seconds=float(os.environ.get(CHECKPOINT_VARIABLE, CHECKPOINT_SECONDS)),
    )
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        weights_uri = store(fitted, package_uri(bucket, run.project, run.version_id, run.training_id), Path(folder))
        if log:
            say("logging parameters, curves and reconstructions")
            log.parameters(logged_parameters(run, settings, fitted, len(training)))
            log.artifact(
                picture(fitted, validation if len(validation) else training, settings, Path(folder)), "training"
            )
            log.close()
    return TrainedModel(
        weights_uri=weights_uri,
        epochs=fitted.epochs,
        steps=fitted.steps,
        seconds=round(fitted.seconds, 1),
        images_per_second=round(fitted.images_per_second, 1),
        stopped=fitted.stopped,
        precision=fitted.precision,
    )


def fit_settings(run: Run) -> FitSettings:
    """Return what the run's settings and the parameters of its trigger form ask of the training."""
    from pipelines.tasks.anomaly.fitting.state import FitSettings

    model, parameters = anomaly_settings(run), training_parameters(run)
    settings = FitSettings(
        preset=model.preset,
        input_size=model.input_size,
        batch_size=model.batch_size,
        accumulation=model.gradient_accumulation_steps,
        epochs=parameters.epochs or model.epochs,
        seconds=60 * float(parameters.time_budget_minutes or model.time_budget_minutes),
        seed=model.seed,
    )
    if run.fine_tuning:
        return fine_tuning(settings, 1.0 if parameters.time_budget_minutes else FINE_TUNING_TIME)
    return settings


def fine_tuning(settings: FitSettings, time: float = FINE_TUNING_TIME) -> FitSettings:
    """Return the settings of a fine-tuning in place of a training from scratch, with a share `time` of its seconds."""
    return replace(
        settings,
        learning_rate=settings.learning_rate * FINE_TUNING,
        seconds=settings.seconds * time,
        share=FINE_TUNING_TIME,
    )


def training_parameters(run: Run) -> TrainingParameters:
    """Return the parameters of a retraining; an evaluation trains nothing."""
    if not isinstance(run.parameters, TrainingParameters):
        raise TrainingFailed(f"{run.project}: run {run.training_id} evaluates the champion and trains nothing")
    return run.parameters


def starting_weights(run: Run) -> dict[str, list[np.ndarray]] | None:
    """Return the champion's weights where the run is to start from them.

    Raises TrainingFailed if there are none.
    """
    if not run.fine_tuning:
        return None
    if run.champion is None or not run.champion.package_uri:
        raise TrainingFailed(f"{run.project} has no champion whose weights are in S3; train from scratch")
    from pipelines.tasks.anomaly.restoration.inference_model import load_network
    from pipelines.tasks.anomaly.restoration.network import named_weights

    bucket, prefix = split_uri(f"{run.champion.package_uri.rstrip('/')}/{WEIGHTS}")
    with tempfile.TemporaryDirectory(prefix="champion-") as folder:
        path = Storage(bucket).download(prefix, Path(folder) / WEIGHTS)
        say(f"starting from the champion's weights, {run.champion.package_uri}")
        return named_weights(load_network(path))


def keep(checkpoint: Checkpoint, state: TrainingState, log: TrainingLog | None) -> None:
    """Save a checkpoint; if S3 is away, training goes on and the next one is tried."""
    try:
        checkpoint.save(state, log.waiting() if log else None)
    except StorageError as error:
        say(f"no checkpoint at step {state.step}: {error}")


def store(fitted: Fitted, uri: str, folder: Path) -> str:
    """Upload the trained network as `model.keras` of the package at `uri` and return its address."""
    path = folder / WEIGHTS
    fitted.network.save(path)
    bucket, prefix = split_uri(uri)
    return Storage(bucket).upload(path, f"{prefix}/{WEIGHTS}")


def open_log(run: Run) -> TrainingLog | None:
    """Return the log of the run's MLflow run, if it has one."""
    if not run.mlflow_run_id:
        return None
    from pipelines.training.mlflow_log import NO_RETRIES, TrainingLog

    os.environ.update(NO_RETRIES)
    return TrainingLog(run.mlflow_run_id, say)


def curve_values(progress: Progress) -> dict[str, float]:
    """Return what the curves show of an epoch."""
    values = {
        "loss": progress.loss,
        "learning_rate": progress.learning_rate,
        "images_per_second": progress.images_per_second,
        "seconds": progress.elapsed,
    }
    if progress.validation_loss is not None:
        values["validation_loss"] = progress.validation_loss
    return values


def logged_parameters(run: Run, settings: FitSettings, fitted: Fitted, images: int) -> dict[str, Any]:
    """Return the parameters that describe the training in MLflow."""
    import keras

    from pipelines.tasks.anomaly.restoration.network import named_weights

    return {
        "training.preset": settings.preset,
        "training.input_size": settings.input_size,
        "training.batch_size": settings.batch_size,
        "training.gradient_accumulation_steps": settings.accumulation,
        "training.epochs": settings.epochs or "as many as are enough",
        "training.steps": fitted.steps,
        "training.time_budget_seconds": settings.seconds,
        "training.seed": settings.seed,
        "training.learning_rate": settings.learning_rate,
        "training.start_from": training_parameters(run).start_from,
        "training.images": images,
        "training.weights": sum(array.size for arrays in named_weights(fitted.network).values() for array in arrays),
        "training.precision": fitted.precision,
        "training.backend": keras.backend.backend(),
    }


def picture(fitted: Fitted, images: Selection, settings: FitSettings, folder: Path) -> Path:
    """Draw some images with synthetic defects, restored, and their error maps; return the file."""
    from pipelines.tasks.anomaly.fitting.batches import validation_batches
    from pipelines.tasks.anomaly.fitting.state import as_array
    from pipelines.tasks.anomaly.restoration.plots import reconstruction_sheet
    from pipelines.tasks.anomaly.restoration.resample import doubled

    count = min(SHOWN, len(images))
    ((damaged, (clean, _)),) = validation_batches(images, count, settings.seed, most=count)
    answer = fitted.network(damaged, training=False)
    errors = as_array(doubled(answer["error"]))[..., 0]
    path = folder / "reconstructions.png"
    reconstruction_sheet(clean, damaged, as_array(answer["restored"]), errors).save(path)
    return path


def say(line: str) -> None:
    """Print a line for the task's log."""
    print(line, flush=True)
