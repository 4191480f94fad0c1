"""Pictures of an evaluation: verdicts, scores with the threshold drawn in, curves, and the worst mistakes.

Drawn with matplotlib's Agg canvas and without pyplot, so that any thread may draw and nothing is left open.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.datasets.original_images import original_images, read_mask
from pipelines.images.preprocess import restore_map
from pipelines.registry.package import Package
from pipelines.tasks.anomaly.subset_scoring import score_each

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tasks.anomaly.test_scores import TestScores

GOOD, ANOMALY, LINE = "#3b6ea5", "#c8553d", "#222222"
GALLERY = 6
_LARGEST_SIDE = 480


def draw_figures(
    folder: Path, run: dict[str, Any], package: Package, tested: TestScores, report: dict[str, Any]
) -> None:
    """Draw every picture that the test scores allow into `folder`, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    threshold = package.card.threshold
    _save(confusion_matrix(report["confusion"], threshold), folder / "confusion_matrix.png")
    histogram = score_histogram(tested.good, tested.anomalies, package.reference["score"], threshold, report["policy"])
    _save(histogram, folder / "score_histogram.png")
    if len(tested.good) and len(tested.anomalies):
        _save(curves(tested.good, tested.anomalies, threshold, report["metrics"]), folder / "curves.png")
    misses, alarms = worst(tested.rows, threshold)
    for chosen, title, name in (
        (misses, _title("missed", "anomalies", "lowest", report["confusion"]["false_negative"]), "worst_misses.png"),
        (
            alarms,
            _title("alarmed", "good images", "highest", report["confusion"]["false_positive"]),
            "worst_alarms.png",
        ),
    ):
        if len(chosen):
            _save(gallery(run["project"], package, chosen, title), folder / name)


def worst(rows: pd.DataFrame, threshold: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the worst misses and the worst false alarms, at most six each; without a mistake, the closest calls."""
    anomalies, good = rows[rows["label"] == "anomaly"], rows[rows["label"] == "good"]
    missed, alarmed = anomalies[anomalies["score"] <= threshold], good[good["score"] > threshold]
    return (
        (missed if len(missed) else anomalies).nsmallest(GALLERY, "score"),
        (alarmed if len(alarmed) else good).nlargest(GALLERY, "score"),
    )


def confusion_matrix(counts: dict[str, int], threshold: float) -> Figure:
    """Draw the four counts, shaded by their share of the row."""
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
    """Draw the anomaly scores of the test and validation images, with the threshold as a line."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate([good, anomalies, validation, [threshold]])
    low, high = float(everything.min()), float(everything.max())
    # Anomalies often score a hundred times as high as good images: then only a logarithmic scale shows both.
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
    good: NDArray[np.float64], anomalies: NDArray[np.float64], threshold: float, figures: dict[str, dict[str, float]]
) -> Figure:
    """Draw recall over false-positive rate and precision over recall, with the served threshold as a dot."""
    cuts = np.unique(np.concatenate([good, anomalies]))[::-1]
    found = np.array([0, *((anomalies >= cut).sum() for cut in cuts)])
    alarms = np.array([0, *((good >= cut).sum() for cut in cuts)])
    recall, rate = found / len(anomalies), alarms / len(good)
    precision = found / np.maximum(found + alarms, 1)
    served_found, served_alarms = int((anomalies > threshold).sum()), int((good > threshold).sum())
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(rate, recall, color=GOOD)
    left.plot(served_alarms / len(good), served_found / len(anomalies), "o", color=ANOMALY, label="served threshold")
    left.plot([0, 1], [0, 1], color=LINE, linewidth=0.6, linestyle=":")
    left.set(xlabel="false-positive rate", ylabel="recall", title=f"AUROC {_with_interval(figures['auroc'])}")
    right.plot(recall[1:], precision[1:], color=GOOD)
    if served_found + served_alarms:
        served = served_found / len(anomalies), served_found / (served_found + served_alarms)
        right.plot(*served, "o", color=ANOMALY, label="served threshold")
    title = f"Average precision {_with_interval(figures['average_precision'])}"
    right.set(xlabel="recall", ylabel="precision", title=title, ylim=(-0.02, 1.02))
    for axes in (left, right):
        axes.legend(frameon=False, loc="lower center")
    return figure


def gallery(project: str, package: Package, rows: pd.DataFrame, title: str) -> Figure:
    """Draw each image as it was sent, and beside it its heat map; a mask is outlined where there is one."""
    figure = Figure(figsize=(5.2, 2.6 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False)
    figure.suptitle(title)
    scored = list(score_each(package, original_images(project, rows)))
    # One scale for all, from nought: on its own, a heat map of mere noise would glow too.
    hottest = max(float(one.error_map.max()) for _, one in scored)
    for (pixels, one), (_, row), pair in zip(scored, rows.iterrows(), grid, strict=True):
        height, width = pixels.shape[:2]
        heat = restore_map(one.error_map, height, width, package.card.resize)
        step = max(1, -(-max(height, width) // _LARGEST_SIDE))
        kind = row["type"] if isinstance(row["type"], str) and row["type"] else row["label"]
        _picture(pair[0], pixels[::step, ::step], f"{kind} · {row['sha256'][:10]}")
        _picture(pair[1], pixels[::step, ::step], f"score {row['score']:.4g}")
        pair[1].imshow(heat[::step, ::step], cmap="inferno", alpha=0.6, vmin=0, vmax=hottest)
        if row["label"] == "anomaly" and isinstance(row["mask_key"], str) and row["mask_key"]:
            mask = read_mask(project, row)[::step, ::step]
            if mask.any() and not mask.all():
                pair[0].contour(mask, levels=[0.5], colors=["#39d353"], linewidths=1.2)
    return figure


def _title(act: str, images: str, end: str, mistakes: int) -> str:
    """Return a gallery's title, which says so when there is no mistake to show."""
    if mistakes:
        kind = "Misses" if act == "missed" else "False alarms"
        return f"{kind}: the {images} with the {end} scores, of {mistakes}"
    return f"None {act}: the {images} with the {end} scores"


def _picture(axes: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    axes.imshow(pixels)
    # Types are words of the sender: a stray $ is no mathematics.
    axes.set_title(title, fontsize=8, parse_math=False)
    axes.set_axis_off()


def _with_interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_figure(str(path), dpi=110)
