"""What a package says of the test images: the input of every metric and plot of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PredictedSet:
    """The test images of a dataset version, classified.

    Attributes:
        rows: their manifest rows.
        classes: names of the classes, in the order of the probabilities.
        probabilities: float32 [n, classes].
        set_threshold: least probability of a class in the conformal set.
        unknown: number of test images left out, of classes that the model does not know. Default 0.
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    set_threshold: float
    unknown: int = 0

    @property
    def labels(self) -> NDArray[np.int64]:
        """The place of the class of each image, [n]."""
        places = {name: place for place, name in enumerate(self.classes)}
        return np.array([places[label] for label in self.rows["label"]], dtype=np.int64)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The place of the most probable class of each image, [n]."""
        return self.probabilities.argmax(axis=1).astype(np.int64)

    @property
    def groups(self) -> list[str]:
        """The group of each image, [n]."""
        return list(self.rows["group_key"])

    @property
    def sets(self) -> NDArray[np.bool_]:
        """The conformal set of each image, bool [n, classes]; the most probable class is always in it."""
        sets = self.probabilities >= self.set_threshold
        sets[np.arange(len(sets)), self.predicted] = True
        return sets
