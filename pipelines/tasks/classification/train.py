"""Trains the classifier of a run on its pack.

Killed and started again, it goes on from the checkpoint of the fine-tuning in S3. The result names the trained network,
`model.keras`, in the run's package folder.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.backbones import Backbone, load_backbone
from pipelines.config.project import load_project
from pipelines.errors import StorageError, TrainingFailed
from pipelines.registry.package import WEIGHTS
from pipelines.registry.package_store import package_uri
from pipelines.steps import PackRef, Run, TrainedModel, TrainingParameters
from pipelines.storage.s3 import Storage, split_uri
from pipelines.tasks.classification.run_data import class_names, classification_settings, labelled_images
from pipelines.tasks.classification.training_record import OutOfFold, TrainingRecord, store_record
from pipelines.training.checkpoints import Checkpoint
from pipelines.training.progress import ProgressRow

if TYPE_CHECKING:
    from pipelines.tasks.classification.fitting.data import LabelledImages
    from pipelines.tasks.classification.fitting.fit import FitSettings, Fitted
    from pipelines.training.mlflow_log import TrainingLog
    from pipelines.training.state import Progress, TrainingState

# Of the learning rate, where the training starts from the champion's weights.
FROM_CHAMPION = 0.3
CHECKPOINT_SECONDS = 20.0
CHECKPOINT_VARIABLE = "INSPECTLINE_CHECKPOINT_SECONDS"


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        backbone: the network in front of the head.
        origin_sha256: digest of the pretrained weights that it goes back to.
        learning_rate: factor on the learning rate of the fine-tuning.
    """

    backbone: Backbone
    origin_sha256: str
    learning_rate: float


def train(run: Run, pack: PackRef) -> TrainedModel:
    """Train on the pack's training images and store the network.

    Raises:
        NotEnoughImages: there are fewer than two classes.
        BadWeights: the backbone is not there, and cannot be downloaded.
        TrainingFailed: the loss is not finite, or there is no champion to start from.
        StorageError: S3 failed.
        RegistryError: MLflow stayed away.
    """
    from pipelines.tasks.classification.fitting.fit import fit

    bucket = load_project(run.project).bucket
    classes = class_names(run, pack)
    training = labelled_images(pack, "training", classes)
    validation = labelled_images(pack, "validation", classes)
    start = _start(run, Storage(bucket))
    settings = fit_settings(run, start.learning_rate)
    say(f"{len(training)} training and {len(validation)} validation images of {len(classes)} classes")
    checkpoint = Checkpoint.of(bucket, run)
    state, waiting = checkpoint.load() or (None, {})
    if state:
        say(f"going on from the checkpoint at step {state.step}, {state.elapsed:.0f} s used")
    log, row = _open_log(run), ProgressRow(run.training_id)
    if log:
        log.take_up(waiting)

    def on_progress(progress: Progress) -> None:
        say(str(progress))
        if log:  # a training outside the catalogue has none
            row.note(progress)
        if log and progress.ended:
            log.epoch(progress.epoch, {"loss": progress.loss, "learning_rate": progress.learning_rate})

    def on_checkpoint(standing: TrainingState) -> None:
        try:
            checkpoint.save(standing, log.waiting() if log else None)
        except StorageError as error:
            say(f"no checkpoint at step {standing.step}: {error}")

    fitted = fit(
        start.backbone,
        training,
        validation,
        len(classes),
        settings,
        embeddings=_embeddings(pack, start.backbone, training),
        state=state,
        say=say,
        on_progress=on_progress,
        on_checkpoint=on_checkpoint,
        checkpoint_seconds=float(os.environ.get(CHECKPOINT_VARIABLE, CHECKPOINT_SECONDS)),
    )
    uri = package_uri(bucket, run.project, run.version_id, run.training_id)
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        weights_uri = _store(fitted, uri, Path(folder))
    record = TrainingRecord(
        classes, start.backbone.name, start.origin_sha256, settings.layers, fitted.fine_tuned, fitted.notes
    )
    out_of_fold = None if fitted.out_of_fold is None else OutOfFold(fitted.out_of_fold, training.labels)
    store_record(uri, record, out_of_fold)
    if log:
        log.parameters(_logged(run, start, settings, fitted, len(training), len(classes)))
        log.close()
    return TrainedModel(
        weights_uri=weights_uri,
        epochs=fitted.epochs,
        steps=fitted.steps,
        seconds=round(fitted.seconds, 1),
        images_per_second=round(fitted.images_per_second, 1),
        stopped=fitted.stopped,
        precision="float32",
    )


def fit_settings(run: Run, learning_rate: float = 1.0) -> FitSettings:
    """Return what the run's settings and the parameters of its trigger form ask of the training."""
    from pipelines.tasks.classification.fitting.fit import FitSettings

    model, parameters = classification_settings(run), run.parameters
    if not isinstance(parameters, TrainingParameters):
        raise TrainingFailed(f"{run.project}: run {run.training_id} evaluates the champion and trains nothing")
    return FitSettings(
        layers=model.layers,
        open_layers=model.open_layers,
        epochs=parameters.epochs or model.epochs,
        batch_size=model.batch_size,
        seconds=60 * float(parameters.time_budget_minutes or model.time_budget_minutes),
        seed=model.seed,
        learning_rate=learning_rate,
    )


def _start(run: Run, storage: Storage) -> Start:
    """Return the pretrained backbone, or the champion's where the run is to start from its weights."""
    settings = classification_settings(run)
    if not run.fine_tuning:
        backbone = load_backbone(settings.backbone, settings.input_size, storage, say)
        return Start(backbone, backbone.sha256, 1.0)
    if run.champion is None or not run.champion.package_uri:
        raise TrainingFailed(f"{run.project} has no champion whose weights are in S3; train from scratch")
    import json

    import keras

    from pipelines.registry.package import CARD
    from pipelines.tasks.classification.package import ClassificationCard

    bucket, prefix = split_uri(f"{run.champion.package_uri.rstrip('/')}/")
    card = ClassificationCard.model_validate(json.loads(Storage(bucket).get(f"{prefix}{CARD}")))
    if card.input_size != settings.input_size:
        raise TrainingFailed(
            f"{run.project}: the champion takes images of {card.input_size} pixels and model.input_size is"
            f" {settings.input_size}: train from scratch"
        )
    say(f"starting from the backbone of the champion, {run.champion.package_uri}")
    with tempfile.TemporaryDirectory(prefix="champion-") as folder:
        network = keras.models.load_model(Storage(bucket).download(f"{prefix}{WEIGHTS}", Path(folder) / WEIGHTS))
    network = keras.Model(network.input, {"embedding": network.output["embedding"]}, name="champion")
    from pipelines.backbones.keras_networks import weights_digest

    return Start(Backbone(card.backbone, weights_digest(network), network), card.backbone_sha256, FROM_CHAMPION)


def _embeddings(pack: PackRef, backbone: Backbone, training: LabelledImages) -> NDArray[np.float32]:
    """Return the embeddings of the training images, computed once for a pack and a backbone and kept in S3."""
    import io
    import zipfile

    from pipelines.errors import NotFound
    from pipelines.tasks.classification.fitting.network import embed

    bucket, folder = split_uri(pack.uri)
    storage = Storage(bucket)
    key = f"{folder}/embedding-{backbone.sha256[:16]}-{pack.digest[:16]}.npz"
    try:
        with np.load(io.BytesIO(storage.get(key)), allow_pickle=False) as archive:
            if np.array_equal(archive["rows"], training.rows):
                say("the embeddings of the training images are there already")
                return np.asarray(archive["embedding"], np.float32)
    except (NotFound, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    say(f"embedding {len(training)} images with {backbone.name}")
    embeddings = embed(backbone.network, training.images[training.rows])
    stream = io.BytesIO()
    np.savez(stream, rows=training.rows, embedding=embeddings)
    storage.put(key, stream.getvalue())
    return embeddings


def _store(fitted: Fitted, uri: str, folder: Path) -> str:
    path = folder / WEIGHTS
    fitted.network.save(path)
    bucket, prefix = split_uri(uri)
    return Storage(bucket).upload(path, f"{prefix}/{WEIGHTS}")


def _open_log(run: Run) -> TrainingLog | None:
    if not run.mlflow_run_id:
        return None
    from pipelines.training.mlflow_log import NO_RETRIES, TrainingLog

    os.environ.update(NO_RETRIES)
    return TrainingLog(run.mlflow_run_id, say)


def _logged(run: Run, start: Start, settings: FitSettings, fitted: Fitted, images: int, classes: int) -> dict[str, Any]:
    """Return the parameters that describe the training in MLflow."""
    return {
        "training.backbone": start.backbone.name,
        "training.backbone_sha256": start.origin_sha256,
        "training.layers": settings.layers,
        "training.open_layers": settings.open_layers,
        "training.fine_tuned": fitted.fine_tuned,
        "training.head_strength": fitted.strength,
        "training.log_loss_gained": fitted.difference or "not fine-tuned",
        "training.epochs": settings.epochs or "as many as the time allows",
        "training.steps": fitted.steps,
        "training.batch_size": settings.batch_size,
        "training.time_budget_seconds": settings.seconds,
        "training.seed": settings.seed,
        "training.images": images,
        "training.classes": classes,
        "training.start_from": getattr(run.parameters, "start_from", "scratch"),
    }


def say(line: str) -> None:
    """Print a line for the task's log."""
    print(line, flush=True)
