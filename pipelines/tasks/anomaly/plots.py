"""Plots of an anomaly detector's evaluation: verdicts, scores with the threshold, curves, and the worst errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from pipelines.datasets.original_images import original_images, read_mask
from pipelines.evaluation.plots import confusion_matrix, curves, picture, save, score_histogram
from pipelines.images.preprocess import restore_map
from pipelines.steps import EvaluationReport
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.subset_scoring import score_each

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.tasks.anomaly.scored_test_set import ScoredTestSet

GALLERY = 6


_LARGEST_SIDE = 480


def draw_plots(
    folder: Path, project_name: str, package: AnomalyPackage, tested: ScoredTestSet, report: EvaluationReport
) -> None:
    """Draw every plot that the test scores allow into `folder`, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    threshold = package.card.threshold
    save(confusion_matrix(report.confusion, threshold), folder / "confusion_matrix.png")
    histogram = score_histogram(
        tested.good, tested.anomalies, package.reference["score"], threshold, package.card.threshold_policy
    )
    save(histogram, folder / "score_histogram.png")
    if len(tested.good) and len(tested.anomalies):
        save(curves(tested.good, tested.anomalies, threshold, report.metrics), folder / "curves.png")
    misses, alarms = worst(tested.rows, threshold)
    for chosen, title, name in (
        (misses, _title("missed", "anomalies", "lowest", report.confusion["false_negative"]), "worst_misses.png"),
        (
            alarms,
            _title("alarmed", "good images", "highest", report.confusion["false_positive"]),
            "worst_alarms.png",
        ),
    ):
        if len(chosen):
            save(gallery(project_name, package, chosen, title), folder / name)


def worst(rows: pd.DataFrame, threshold: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the worst misses and the worst false alarms, at most six each; without a mistake, the closest calls."""
    anomalies, good = rows[rows["label"] == "anomaly"], rows[rows["label"] == "good"]
    missed, alarmed = anomalies[anomalies["score"] <= threshold], good[good["score"] > threshold]
    return (
        (missed if len(missed) else anomalies).nsmallest(GALLERY, "score"),
        (alarmed if len(alarmed) else good).nlargest(GALLERY, "score"),
    )


def gallery(project: str, package: AnomalyPackage, rows: pd.DataFrame, title: str) -> Figure:
    """Draw each image as it was sent, and beside it its heat map; a mask is outlined where there is one."""
    figure = Figure(figsize=(5.2, 2.6 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False)
    figure.suptitle(title)
    scored = list(score_each(package, original_images(project, rows, package.card.bits)))
    # One scale for all, from nought: on its own, a heat map of mere noise would glow too.
    hottest = max(float(prediction.error_map.max()) for _, prediction in scored)
    for (pixels, prediction), (_, row), pair in zip(scored, rows.iterrows(), grid, strict=True):
        height, width = pixels.shape[:2]
        heat = restore_map(prediction.error_map, height, width, package.card.resize)
        step = max(1, -(-max(height, width) // _LARGEST_SIDE))
        kind = row["type"] if isinstance(row["type"], str) and row["type"] else row["label"]
        picture(pair[0], pixels[::step, ::step], f"{kind} · {row['sha256'][:10]}")
        picture(pair[1], pixels[::step, ::step], f"score {row['score']:.4g}")
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
