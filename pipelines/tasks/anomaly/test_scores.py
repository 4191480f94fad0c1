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
class TestScores:
    """The test rows of a manifest with a column `score`, and the pixel counts of those whose defects are known."""

    __test__ = False  # not a test, whatever pytest makes of the name

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
