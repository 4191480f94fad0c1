"""Completes a classifier's package: temperature and conformal set, from images that the network did not learn from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.config.project import load_project
from pipelines.datasets.bit_depth import reference_descriptors
from pipelines.errors import BadDataset, NotEnoughImages
from pipelines.images.descriptors import DESCRIPTORS
from pipelines.images.preprocess import PreparedImage
from pipelines.registry import package as packages
from pipelines.registry.client import RegisteredVersion, fetch
from pipelines.registry.onnx_session import open_session
from pipelines.registry.package import GRAPH, REFERENCE, WEIGHTS, noted_versions
from pipelines.registry.package_store import fetch_files, package_uri, publish_files, working_folder
from pipelines.registry.reference import write_reference
from pipelines.steps import ModelPackage, PackRef, Run
from pipelines.tasks.classification.package import LABEL, LOGITS, ClassificationCard, write_card
from pipelines.tasks.classification.predict import run_graph, softmax
from pipelines.tasks.classification.prepared_images import prepared_images
from pipelines.tasks.classification.run_data import classification_settings
from pipelines.tasks.classification.temperature import COVERAGE, fit_temperature, set_threshold
from pipelines.tasks.classification.training_record import OutOfFold, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable

EXAMPLES = 4  # images that serving predicts again before it takes a version
BATCH = 16


def calibrate(run: Run, pack: PackRef, package: ModelPackage | None) -> ModelPackage:
    """Set temperature and conformal set on the run's dataset version, and publish the complete package.

    The temperature rests on the out-of-fold logits of the head, if there are any, and the validation images; the
    conformal set on the validation images alone. Run again, it writes the same again.

    Args:
        run: the run.
        pack: its pack.
        package: what `export` returned; None for an evaluation, which keeps the champion's weights.

    Raises:
        NotEnoughImages: there are no validation images of the model's classes.
        BadPackage: the package cannot be read.
        BadDataset: a sample cannot be read.
    """
    from pipelines.datasets.versions import read_manifest

    target = package_uri(load_project(run.project).bucket, run.project, run.version_id, run.training_id)
    manifest = read_manifest(run.dataset.manifest_uri)
    with working_folder() as folder:
        origin, out_of_fold = _collect(run, package, folder)
        places = {name: place for place, name in enumerate(origin["classes"])}
        rows = manifest[(manifest["subset"] == "validation") & manifest["label"].isin(places)].sort_values("sha256")
        if not len(rows):
            raise NotEnoughImages(
                f"dataset version {run.version_id} of {run.project} has no validation images to set certainties on: add"
                " images of each class, then retrain"
            )
        labels = rows["label"].map(places).to_numpy(np.int64)
        session = open_session(folder / GRAPH, threads=2)
        logits, embeddings = [], []
        examples: list[PreparedImage] = []
        images = prepared_images(run, pack, rows, origin["input_size"], origin["resize"], origin["bits"])
        for batch in _batches(images):
            outputs = run_graph(session, folder / GRAPH, batch, len(places))
            logits.append(outputs[0])
            embeddings.append(outputs[1])
            examples += batch[: EXAMPLES - len(examples)]
        scores = np.concatenate(logits)
        judged = (scores, labels)
        if out_of_fold is not None:
            judged = (np.concatenate([out_of_fold.logits, scores]), np.concatenate([out_of_fold.labels, labels]))
        temperature = fit_temperature(*judged)
        threshold = set_threshold(scores, labels, temperature)
        notes = [*origin.pop("notes"), *_notes(len(rows))]
        write_reference(
            folder,
            score=softmax(scores / temperature).max(axis=1),
            embedding=np.concatenate(embeddings),
            sha256=list(rows["sha256"]),
            descriptors=reference_descriptors(run.project, list(rows["sha256"]), origin["bits"]),
            descriptor_names=list(DESCRIPTORS),
            examples=examples,
            more={LOGITS: scores, LABEL: labels},
        )
        write_card(
            folder,
            project=run.project,
            **origin,
            temperature=temperature,
            coverage=COVERAGE,
            set_threshold=threshold,
            validation_images=len(rows),
            notes=notes,
            version_id=run.version_id,
            training_id=run.training_id,
            git_revision=run.git_revision,
            package_versions=noted_versions(),
        )
        publish_files(folder, target)
    exported = package or ModelPackage(package_uri=target)
    return replace(exported, package_uri=target, notes=notes, scores_uri=f"{target}/{REFERENCE}")


def _batches(images: Iterable[PreparedImage]) -> Iterable[list[PreparedImage]]:
    batch: list[PreparedImage] = []
    for image in images:
        batch.append(image)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _collect(run: Run, package: ModelPackage | None, folder: Path) -> tuple[dict[str, Any], OutOfFold | None]:
    """Bring graph and weights into `folder`; return what the card says of how they were made, and the head's logits."""
    if package is None:
        if run.champion is None:
            raise BadDataset(f"run {run.training_id} of {run.project} has neither an exported model nor a champion")
        held = RegisteredVersion(
            run.project, run.champion.version, tags={"package_sha256": run.champion.package_sha256}
        )
        kept = fetch(held, weights=True)
        for name in (GRAPH, WEIGHTS):
            if (kept / name).is_file():
                shutil.copyfile(kept / name, folder / name)
        card = packages.read_card(kept, ClassificationCard)
        names = ("classes", "backbone", "backbone_sha256", "layers", "fine_tuned", "input_size", "resize", "bits")
        return {name: getattr(card, name) for name in (*names, "onnx_tolerance")} | {"notes": []}, None
    fetch_files(package.package_uri, folder)
    record, out_of_fold = read_record(package.package_uri)
    settings = classification_settings(run)
    return {
        **record.to_json(),
        "input_size": settings.input_size,
        "resize": settings.resize,
        "bits": run.dataset.bits,
        "onnx_tolerance": package.tolerance,
    }, out_of_fold


def _notes(images: int) -> list[str]:
    if images >= COVERAGE / (1 - COVERAGE):
        return []
    return [f"{images} validation images are too few for a conformal set at {COVERAGE:.0%}: it holds every class."]
