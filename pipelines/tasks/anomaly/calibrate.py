"""Completes a model package: scores the validation samples, sets the threshold on them, and keeps both in the package.

What serving later calls anomalous, and what drift compares with, is decided here.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.project import load_project
from pipelines.datasets.bit_depth import reference_descriptors
from pipelines.errors import BadDataset, NotEnoughImages
from pipelines.images.descriptors import DESCRIPTORS
from pipelines.images.preprocess import PreparedImage
from pipelines.registry.client import RegisteredVersion, fetch
from pipelines.registry.package import GRAPH, REFERENCE, WEIGHTS, noted_versions
from pipelines.registry.package_store import fetch_files, package_uri, publish_files, working_folder
from pipelines.registry.reference import write_reference
from pipelines.steps import ModelPackage, PackRef, Run
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.package import read_card, write_card
from pipelines.tasks.anomaly.subset_scoring import prepared_images, score_each
from pipelines.tasks.anomaly.threshold import choose
from pipelines.tasks.anomaly.training_set import anomaly_settings

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 4  # images that serving scores again before it takes a version


def calibrate(run: Run, pack: PackRef, package: ModelPackage | None) -> ModelPackage:
    """Set the threshold of an exported model on the run's dataset version and publish its complete package.

    `package` is what the export step returned; None for an evaluation, which keeps the champion's weights and sets its
    threshold anew. Run again, it writes the same again.

    Returns the complete package. Raises NotEnoughImages without good validation images, BadPackage or
    BadDataset if something cannot be read.
    """
    from pipelines.datasets.versions import read_manifest

    project = load_project(run.project)
    manifest = read_manifest(run.dataset.manifest_uri)
    good = manifest[manifest["subset"] == "validation"].sort_values("sha256")
    anomalies = manifest[manifest["subset"] == "anomaly/threshold"].sort_values("sha256")
    target = package_uri(project.bucket, run.project, run.version_id, run.training_id)

    with working_folder() as folder:
        origin = _collect(run, package, folder)
        graph = ScoringGraph(folder / GRAPH, origin["input_size"], origin["resize"], threads=2)
        scored: list[tuple[float, NDArray[np.float32]]] = []
        examples: list[PreparedImage] = []
        for image, prediction in score_each(graph, prepared_images(run, pack, good, graph, origin["bits"])):
            scored.append(
                (prediction.score, prediction.embedding)
            )  # without the error maps, which would fill the memory
            if len(examples) < EXAMPLES:
                examples.append(image)
        anomaly_scores = [
            prediction.score
            for _, prediction in score_each(graph, prepared_images(run, pack, anomalies, graph, origin["bits"]))
        ]
        if not scored:
            raise NotEnoughImages(
                f"dataset version {run.version_id} of {run.project} has no good validation images to set a"
                " threshold on: add good images, then retrain"
            )
        scores = np.array([value for value, _ in scored], dtype=np.float64)
        policy = run.settings.threshold.model_dump(exclude={"review_false_positive_rate"})
        choice = choose(scores, anomaly_scores, **policy)
        notes = choice.report.notes + _grouping_note(good)
        write_reference(
            folder,
            score=scores.astype(np.float32),
            embedding=np.stack([embedding for _, embedding in scored]),
            sha256=list(good["sha256"]),
            descriptors=reference_descriptors(run.project, list(good["sha256"]), origin["bits"]),
            descriptor_names=list(DESCRIPTORS),
            examples=examples,
        )
        write_card(
            folder,
            project=run.project,
            **origin,
            threshold=choice.value,
            threshold_policy=choice.policy,
            threshold_detail=replace(choice.report, notes=notes),
            score_range={
                "p50": float(np.quantile(scores, 0.5)),
                "p99": float(np.quantile(scores, 0.99)),
                "max": float(scores.max()),
            },
            version_id=run.version_id,
            training_id=run.training_id,
            git_revision=run.git_revision,
            package_versions=noted_versions(),
        )
        publish_files(folder, target)
    exported = package or ModelPackage(package_uri=target)
    return replace(
        exported,
        package_uri=target,
        threshold=choice.value,
        policy=choice.policy,
        notes=notes,
        scores_uri=f"{target}/{REFERENCE}",
    )


def _collect(run: Run, package: ModelPackage | None, folder: Path) -> dict[str, Any]:
    """Bring graph and weights into `folder` and return what the card says of how they were made."""
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
        card = read_card(kept)
        return {name: getattr(card, name) for name in ("preset", "input_size", "resize", "bits", "onnx_tolerance")}
    fetch_files(package.package_uri, folder)
    settings = anomaly_settings(run)
    return {
        "preset": settings.preset,
        "input_size": settings.input_size,
        "resize": settings.resize,
        "bits": run.dataset.bits,
        "onnx_tolerance": package.tolerance,
    }


def _grouping_note(good: pd.DataFrame) -> list[str]:
    """Say what a conformal promise supposes where images come in groups: they are not exchangeable one by one."""
    groups = good["group_key"].nunique()
    if groups >= len(good):
        return []
    return [
        f"The {len(good)} validation images come from {groups} groups. The promised false-positive rate supposes that"
        " images of one group resemble each other no more than images of different groups; where they do, the rate"
        " varies more from group to group than the interval says."
    ]
