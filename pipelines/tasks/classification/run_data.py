"""The classes, the settings and the images of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.config.model_settings import ClassificationSettings
from pipelines.datasets.pack import open_pack
from pipelines.datasets.versions import PROPOSED
from pipelines.errors import BadDataset, NotEnoughImages
from pipelines.steps import PackRef, Run
from pipelines.tasks.classification.fitting.data import LabelledImages

if TYPE_CHECKING:
    import pandas as pd

PROPOSED_WEIGHT = 0.3  # of an image whose class was predicted and that nobody has confirmed


def classification_settings(run: Run) -> ClassificationSettings:
    """Return the section `model` of the run's settings.

    Raises:
        BadDataset: the run is of another task.
    """
    if not isinstance(run.settings.model, ClassificationSettings):
        raise BadDataset(f"run {run.training_id} of {run.project} is of the task {run.task}, not classification")
    return run.settings.model


def class_names(run: Run, pack: PackRef) -> tuple[str, ...]:
    """Return the names of the classes of the training images, sorted.

    Raises:
        NotEnoughImages: there are fewer than two.
    """
    index = open_pack(pack).index
    names = tuple(sorted(set(index.loc[index["subset"] == "training", "label"])))
    if len(names) < 2:
        raise NotEnoughImages(
            f"dataset version {run.version_id} of {run.project} has {len(names)} classes of training images, and a"
            " classifier takes two: add images of another class"
        )
    return names


def _weights(rows: pd.DataFrame) -> NDArray[np.float32]:
    if PROPOSED not in rows.columns:  # a pack of an older version
        return np.ones(len(rows), np.float32)
    return np.where(rows[PROPOSED], PROPOSED_WEIGHT, 1.0).astype(np.float32)


def labelled_images(pack: PackRef, subset: str, classes: Sequence[str]) -> LabelledImages:
    """Return the images of a subset whose class is one of `classes`, by reference, in the order of the manifest."""
    opened = open_pack(pack)
    index = opened.index
    places = {name: place for place, name in enumerate(classes)}
    rows = index[(index["subset"] == subset) & index["label"].isin(places)]
    return LabelledImages(
        images=opened.images,
        rows=rows["first"].to_numpy(np.int64),
        labels=np.array([places[label] for label in rows["label"]], dtype=np.int64),
        groups=rows["group_key"].to_numpy(str),
        weights=_weights(rows),
    )
