"""Chooses evenly spread images and cuts them into batches of equal size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` indices below `count`, ascending, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


def whole_batches(places: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """Return indices as [batches, batch_size], repeated from the first on to fill the last batch.

    A batch of another size would recompile the network.
    """
    count = -(-len(places) // batch_size)
    return np.resize(places, (count, batch_size))
