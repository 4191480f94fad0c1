"""Plots of a classifier's evaluation: confusion matrix, reliability, and the most certain errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipelines.datasets.original_images import original_images
from pipelines.evaluation.classification_metrics import BINS
from pipelines.evaluation.plots import ANOMALY, GOOD, LINE, picture, save
from pipelines.images.preprocess import prepare
from pipelines.steps import EvaluationReport
from pipelines.tasks.classification.predicted_set import PredictedSet

WORST = 12
SIDE = 224
_MOST_NAMED = 40  # classes whose names and counts are legible


def draw_plots(folder: Path, project: str, tested: PredictedSet, report: EvaluationReport) -> None:
    """Draw every plot into `folder`, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    save(confusion_matrix(tested, report), folder / "confusion_matrix.png")
    save(reliability(tested, report), folder / "reliability.png")
    if (tested.predicted != tested.labels).any():
        save(worst_errors(project, tested), folder / "worst_errors.png")


def confusion_matrix(tested: PredictedSet, report: EvaluationReport) -> Figure:
    """Plot the confusion matrix, shaded by the share of the row."""
    n = len(tested.classes)
    table = np.zeros((n, n), dtype=int)
    np.add.at(table, (tested.labels, tested.predicted), 1)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = min(16.0, 3.2 + 0.45 * n)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= _MOST_NAMED:
        for (row, column), count in np.ndenumerate(table):
            if count:
                colour = "white" if shares[row, column] > 0.6 else LINE
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
        # Names are entered by users, and a $ must not start math text.
        axes.set_xticks(range(n), tested.classes, rotation=60, ha="right", parse_math=False)
        axes.set_yticks(range(n), tested.classes, parse_math=False)
    axes.set(xlabel="predicted class", ylabel="class")
    axes.set_title(f"{len(tested.labels)} test images, accuracy {report.metrics['accuracy']}")
    return figure


def reliability(tested: PredictedSet, report: EvaluationReport) -> Figure:
    """Plot accuracy by certainty, and how many images have it."""
    certainty = tested.probabilities.max(axis=1)
    right = tested.predicted == tested.labels
    bins = np.minimum((certainty * BINS).astype(int), BINS - 1)
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    filled = [place for place in range(BINS) if (bins == place).any()]
    means = [float(certainty[bins == place].mean()) for place in filled]
    accuracies = [float(right[bins == place].mean()) for place in filled]
    upper.plot([0, 1], [0, 1], color=LINE, linewidth=0.6, linestyle=":")
    upper.plot(means, accuracies, "o-", color=GOOD)
    upper.set(ylabel="accuracy", ylim=(-0.02, 1.02))
    upper.set_title(f"Expected calibration error {report.metrics['calibration_error']}")
    edges = np.linspace(0, 1, BINS + 1).tolist()
    lower.hist([certainty[right], certainty[~right]], edges, stacked=True, color=[GOOD, ANOMALY])
    lower.set(xlabel="certainty", ylabel="images", xlim=(0, 1))
    return figure


def worst_errors(project: str, tested: PredictedSet) -> Figure:
    """Show the most certain errors with their class, and what they were taken for."""
    certainty = tested.probabilities.max(axis=1)
    wrong = np.flatnonzero(tested.predicted != tested.labels)
    chosen = wrong[np.argsort(-certainty[wrong], kind="stable")][:WORST]
    columns = min(4, len(chosen))
    figure = Figure(figsize=(2.6 * columns, 2.9 * -(-len(chosen) // columns)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(-(-len(chosen) // columns), columns)).reshape(-1)
    for place, pixels in zip(chosen, original_images(project, tested.rows.iloc[chosen]), strict=True):
        taken, shown = tested.classes[tested.predicted[place]], tested.classes[tested.labels[place]]
        title = f"{shown}\ntaken for {taken}, {certainty[place]:.0%}"
        picture(axes[int(np.flatnonzero(chosen == place)[0])], prepare(pixels, SIDE, "fit")[0], title)
    for empty in axes[len(chosen) :]:
        empty.set_axis_off()
    return figure
