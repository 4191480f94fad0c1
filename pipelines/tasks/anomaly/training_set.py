"""Which images of a pack a training learns from: the good ones, which of them are new, and the annotated anomalies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.config.model_settings import AnomalySettings
from pipelines.datasets.original_images import read_mask
from pipelines.datasets.pack import open_pack
from pipelines.datasets.versions import read_manifest
from pipelines.errors import BadDataset
from pipelines.images.preprocess import prepare
from pipelines.images.tiling import parts
from pipelines.steps import PackRef, Run

if TYPE_CHECKING:
    from pipelines.tasks.anomaly.fitting.batches import Selection
    from pipelines.tasks.anomaly.synthetic.real_defects import Annotated


def anomaly_settings(run: Run) -> AnomalySettings:
    """Return the section `model` of the run's settings.

    Raises:
        BadDataset: the run is of another task.
    """
    if not isinstance(run.settings.model, AnomalySettings):
        raise BadDataset(f"run {run.training_id} of {run.project} is of the task {run.task}, not anomaly")
    return run.settings.model


def select(pack: PackRef, subset: str, trained_on: frozenset[str] = frozenset()) -> Selection:
    """Return the images of one subset of a pack, or their tiles, by reference; those not `known` are fresh."""
    from pipelines.tasks.anomaly.fitting.batches import Selection

    opened = open_pack(pack)
    tiles = opened.index["tiles"].to_numpy(np.int64)
    owner = np.repeat(np.arange(len(tiles)), tiles)
    rows = np.flatnonzero(opened.index["subset"].to_numpy()[owner] == subset)
    fresh = ~opened.index["sha256"].isin(trained_on).to_numpy()[owner[rows]] if trained_on else None
    shown = parts(tiles, opened.index[["height", "width"]].to_numpy(np.int64))
    return Selection(opened.images, rows, shown[rows], fresh)


def known_samples(run: Run, say: Callable[[str], None]) -> frozenset[str]:
    """Return the samples that the champion was trained on, where the run starts from it; else none."""
    if not run.fine_tuning or run.champion is None or not run.champion.package_uri:
        return frozenset()
    version, _, _ = run.champion.package_uri.rpartition("/model/")
    try:
        return frozenset(read_manifest(f"{version}/dataset/manifest.parquet")["sha256"])
    except BadDataset as error:
        say(f"it is not known which images are new to the champion, so all count alike: {error}")
        return frozenset()


def annotated_anomalies(run: Run, pack: PackRef) -> Annotated:
    """Return the anomalies that are there to be learnt from, subset `anomaly/training`.

    One without a mask that was cut into tiles is left out: which tile is anomalous, nobody said.
    """
    from pipelines.tasks.anomaly.synthetic.real_defects import Annotated

    settings = anomaly_settings(run)
    opened = open_pack(pack)
    square = (settings.input_size, settings.input_size)
    located, masks = [np.empty((0, *square, 3), np.uint8)], [np.empty((0, *square), np.uint8)]
    unlocated, left_out = [np.empty((0, *square, 3), np.uint8)], 0
    for _, row in opened.index[opened.index["subset"] == "anomaly/training"].iterrows():
        tiles = np.asarray(opened.images[row["first"] : row["first"] + row["tiles"]])
        if isinstance(row["mask_key"], str) and row["mask_key"]:
            shown, marks = marked_tiles(tiles, read_mask(run.project, row), settings)
            located.append(shown)
            masks.append(marks)
        elif len(tiles) == 1:
            unlocated.append(tiles)
        else:
            left_out += 1
    return Annotated(np.concatenate(located), np.concatenate(masks), np.concatenate(unlocated), left_out)


def marked_tiles(
    tiles: NDArray[np.uint8], mask: NDArray[np.bool_], settings: AnomalySettings
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return those of an image's prepared tiles [k, S, S, 3] on which its mask [H, W] marks something, and the mask on
    them, uint8 [m, S, S] (255: marked).
    """
    picture = np.repeat(255 * mask.astype(np.uint8)[..., None], 3, axis=2)
    marks = prepare(picture, settings.input_size, settings.resize)[..., 0]
    marked = marks.any(axis=(1, 2))
    return tiles[marked], marks[marked]
