"""What a package says of the test images: the input of every metric and plot of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.pixel_metrics import PixelCounts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ScoredTestSet:
    """The test images of a dataset version, scored.

    Attributes:
        rows: the manifest's test rows with a column `score`.
        pixels: pixel counts of the images whose defects are known.
        masked: number of test anomalies with a mask.
    """

    rows: pd.DataFrame
    pixels: PixelCounts
    masked: int

    @property
    def good(self) -> NDArray[np.float64]:
        return self._of("good")

    @property
    def anomalies(self) -> NDArray[np.float64]:
        return self._of("anomaly")

    def _of(self, label: str) -> NDArray[np.float64]:
        return self.rows.loc[self.rows["label"] == label, "score"].to_numpy(dtype=np.float64)
