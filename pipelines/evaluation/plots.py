"""Plots shared by evaluations: confusion matrix, score histogram, ROC and precision-recall curves.

Uses matplotlib's Agg canvas without pyplot, which is thread-safe and leaves no figures open.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.steps import Estimate

GOOD, ANOMALY, LINE = "#3b6ea5", "#c8553d", "#222222"


def confusion_matrix(counts: dict[str, int], threshold: float) -> Figure:
    """Plot the confusion matrix, shaded by the share of the row.

    Args:
        counts: `true_positive`, `false_negative`, `false_positive` and `true_negative`.
        threshold: the threshold, for the title.
    """
    table = np.array(
        [
            [counts["true_negative"], counts["false_positive"]],
            [counts["false_negative"], counts["true_positive"]],
        ]
    )
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.8, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        colour = "white" if shares[row, column] > 0.6 else LINE
        axes.text(column, row, f"{count}\n{shares[row, column]:.1%}", ha="center", va="center", color=colour)
    axes.set_xticks([0, 1], ["called good", "called anomalous"])
    axes.set_yticks([0, 1], ["good", "anomaly"], rotation=90, va="center")
    axes.set_title(f"Test images at threshold {threshold:.4g}")
    return figure


def score_histogram(
    good: NDArray[np.float64],
    anomalies: NDArray[np.float64],
    validation: NDArray[np.float32],
    threshold: float,
    policy: str,
) -> Figure:
    """Plot histograms of the anomaly scores of the test and validation images, with the threshold as a line."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate([good, anomalies, validation, [threshold]])
    low, high = float(everything.min()), float(everything.max())
    # Anomalies often score a hundred times as high as good images, which needs a logarithmic scale.
    logarithmic = low > 0 and high / low > 20
    span = (high - low) or abs(high) or 1.0
    edges = (np.geomspace(low, high, 50) if logarithmic else np.linspace(low, low + span, 50)).tolist()
    if logarithmic:
        axes.set_xscale("log")
    axes.hist(
        validation, edges, histtype="step", color=GOOD, linestyle="--", label=f"good, validation ({len(validation)})"
    )
    axes.hist(good, edges, color=GOOD, alpha=0.65, label=f"good, test ({len(good)})")
    if len(anomalies):
        axes.hist(anomalies, edges, color=ANOMALY, alpha=0.65, label=f"anomaly, test ({len(anomalies)})")
    axes.axvline(threshold, color=LINE, linewidth=1.6, label=f"threshold {threshold:.4g} ({policy.replace('_', ' ')})")
    axes.set_xlabel("anomaly score")
    axes.set_ylabel("images")
    axes.set_title("Anomaly scores and the threshold")
    axes.legend(frameon=False)
    return figure


def curves(
    good: NDArray[np.float64], anomalies: NDArray[np.float64], threshold: float, metrics: dict[str, Estimate]
) -> Figure:
    """Plot the ROC and the precision-recall curve, with the served threshold as a dot."""
    cuts = np.unique(np.concatenate([good, anomalies]))[::-1]
    detected = np.array([0, *((anomalies >= cut).sum() for cut in cuts)])
    alarms = np.array([0, *((good >= cut).sum() for cut in cuts)])
    recall, rate = detected / len(anomalies), alarms / len(good)
    precision = detected / np.maximum(detected + alarms, 1)
    served_detected, served_alarms = int((anomalies > threshold).sum()), int((good > threshold).sum())
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(rate, recall, color=GOOD)
    left.plot(served_alarms / len(good), served_detected / len(anomalies), "o", color=ANOMALY, label="served threshold")
    left.plot([0, 1], [0, 1], color=LINE, linewidth=0.6, linestyle=":")
    left.set(xlabel="false-positive rate", ylabel="recall", title=f"AUROC {metrics['auroc']}")
    right.plot(recall[1:], precision[1:], color=GOOD)
    if served_detected + served_alarms:
        served = served_detected / len(anomalies), served_detected / (served_detected + served_alarms)
        right.plot(*served, "o", color=ANOMALY, label="served threshold")
    title = f"Average precision {metrics['average_precision']}"
    right.set(xlabel="recall", ylabel="precision", title=title, ylim=(-0.02, 1.02))
    for axes in (left, right):
        axes.legend(frameon=False, loc="lower center")
    return figure


def picture(axes: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    """Show an image uint8 [H, W, 3] with its title and without axes."""
    axes.imshow(pixels)
    # Titles hold anomaly types entered by users, in which a $ must not start math text.
    axes.set_title(title, fontsize=8, parse_math=False)
    axes.set_axis_off()


def save(figure: Figure, path: Path) -> None:
    """Write a plot as PNG."""
    FigureCanvasAgg(figure).print_figure(str(path), dpi=110)
