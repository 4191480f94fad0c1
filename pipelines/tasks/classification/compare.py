"""Two versions on the same test samples, and what their accuracy says of promoting the first."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.datasets.original_images import original_images
from pipelines.errors import BadDataset, BadPackage
from pipelines.evaluation.classification_metrics import macro_f1, top_accuracy
from pipelines.evaluation.paired_bootstrap import mean_difference
from pipelines.steps import Estimate, Run, VersionMetrics
from pipelines.tasks.classification.package import ClassificationPackage
from pipelines.tasks.classification.predict import predict
from pipelines.tasks.interface import Comparison, Contender

if TYPE_CHECKING:
    import pandas as pd

BATCH = 16


def compare(run: Run, challenger: Contender, champion: Contender | None, samples: pd.DataFrame) -> Comparison:
    """Classify the test rows of a manifest by both versions, as they were sent, and judge the challenger.

    A sample whose class a version does not know counts as wrong for that version. A champion that cannot be read leaves
    the challenger to be judged alone, with the reason in `failure`. The challenger's own BadPackage rises.
    """
    rules = run.settings.promotion
    if not len(samples):
        nothing = VersionMetrics(challenger.version)
        return Comparison(False, ["there are no test images to judge it on"], "nothing", None, nothing)
    groups, names = list(samples["group_key"]), list(samples["label"])
    metrics, right = _judged(run.project, challenger, samples, names, groups)
    champion_metrics = difference = failure = None
    if champion is not None:
        try:
            champion_metrics, champion_right = _judged(run.project, champion, samples, names, groups)
            difference = mean_difference(right, champion_right, groups=groups, samples=rules.bootstrap_samples)
        except (BadPackage, BadDataset) as error:
            failure = str(error)
    accuracy = metrics.accuracy
    assert accuracy is not None
    reasons = []
    if accuracy.value < rules.minimum_accuracy:
        reasons.append(f"its accuracy, {accuracy}, is below the project's minimum of {rules.minimum_accuracy:g}")
    if champion is not None and difference is not None and difference.low < -rules.margin:
        reasons.append(
            f"its accuracy may be worse than that of champion version {champion.version} by more than the margin of"
            f" {rules.margin:g}: difference {difference}"
        )
    fit = not reasons
    if fit:
        reasons = [f"its accuracy, {accuracy}, meets the minimum of {rules.minimum_accuracy:g}"]
        if champion is not None and difference is not None:
            reasons.append(
                f"it is not worse than champion version {champion.version} beyond the margin of {rules.margin:g}:"
                f" difference {difference}"
            )
    basis = f"{len(names)} test images of {len(set(names))} classes"
    return Comparison(fit, reasons, basis, difference, metrics, champion_metrics, failure, _notes(challenger, champion))


def _judged(
    project: str, contender: Contender, samples: pd.DataFrame, names: list[str], groups: list[str]
) -> tuple[VersionMetrics, NDArray[np.float64]]:
    """Return the metrics of a version, and whether it is right on each sample, 0 or 1, [n]."""
    package = contender.package
    if not isinstance(package, ClassificationPackage):
        raise BadPackage(f"version {contender.version} is a package of another task: {package.card.task}")
    classes = (*package.card.classes, *sorted(set(names) - set(package.card.classes)))
    probabilities = np.zeros((len(names), len(classes)), np.float32)
    images, done = original_images(project, samples, package.card.bits), 0
    while batch := list(islice(images, BATCH)):
        for prediction in predict(package, batch):
            probabilities[done, : len(package.card.classes)] = prediction.probabilities
            done += 1
    places = {name: place for place, name in enumerate(classes)}
    labels = np.array([places[name] for name in names], dtype=np.int64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    accuracy: Estimate = top_accuracy(probabilities, labels)
    return VersionMetrics(contender.version, accuracy=accuracy, macro_f1=macro_f1(probabilities, labels, groups)), right


def _notes(challenger: Contender, champion: Contender | None) -> list[str]:
    """Say which classes the two versions do not share."""
    if champion is None:
        return []
    ours, theirs = (
        set(contender.package.card.classes) if isinstance(contender.package, ClassificationPackage) else set()
        for contender in (challenger, champion)
    )
    notes = []
    if new := sorted(ours - theirs):
        notes.append(f"New classes that the champion does not know: {', '.join(new)}.")
    if gone := sorted(theirs - ours):
        notes.append(f"Classes of the champion that have no training images any more: {', '.join(gone)}.")
    return notes
