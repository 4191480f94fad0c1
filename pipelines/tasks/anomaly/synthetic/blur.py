"""Gaussian blur of images in training, by products with small matrices of weights: numpy only.

The same as `scipy.ndimage.gaussian_filter` in its mode "reflect", in single precision and in a fraction of its time:
what is drawn into a batch is blurred some thirty times, on processors that the network wants, too.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pipelines.tasks.anomaly.synthetic.shapes import Floats

TRUNCATE = 4.0  # standard deviations


def radius(sigma: float) -> int:
    """Return how many pixels away a blur of standard deviation `sigma` (pixels) takes from."""
    return int(TRUNCATE * sigma + 0.5)


def grown(part: slice, by: int, size: int) -> slice:
    """Return a range of rows or columns with `by` more at both ends, as far as an image of `size` has them."""
    return slice(max(0, part.start - by), min(size, part.stop + by))


def blurred(image: Floats, sigma: float, rows: slice, columns: slice, often: bool = False) -> Floats:
    """Return rows and columns [h, w, C] of `image` [S, S, C], blurred; `sigma` is a quarter of S at most. What a sigma
    that comes `often` needs is remembered.
    """
    size, by = len(image), radius(sigma)
    taken = grown(rows, by, size), grown(columns, by, size)
    return blurred_part(image[taken], sigma, taken, (rows, columns), size, often)


def blurred_part(
    part: Floats,
    sigma: float,
    place: tuple[slice, slice],
    wanted: tuple[slice, slice],
    size: int,
    often: bool = False,
) -> Floats:
    """Return the rows and columns `wanted` [h, w, C] of a blurred image of `size` pixels a side.

    Of the image only `part` is given, whose rows and columns are `place`; beyond it the image counts as zero.
    """
    (rows, columns), (above, left) = wanted, place
    if radius(sigma) == 0:
        return part[
            rows.start - above.start : rows.stop - above.start, columns.start - left.start : columns.stop - left.start
        ]
    if often:
        weights = _all_weights(sigma, size)
        down, right = weights[rows, above], weights[columns, left]
    else:
        down, right = _weights(rows, above, sigma, size), _weights(columns, left, sigma, size)
    height, width, channels = part.shape
    half = (down @ part.reshape(height, width * channels)).reshape(len(down), width, channels)
    turned = np.ascontiguousarray(half.swapaxes(1, 2)).reshape(len(down) * channels, width)
    return (turned @ right.T).reshape(len(down), channels, len(right)).swapaxes(1, 2)


@lru_cache(maxsize=4)
def _all_weights(sigma: float, size: int) -> Floats:
    return _weights(slice(0, size), slice(0, size), sigma, size)


def _weights(wanted: slice, place: slice, sigma: float, size: int) -> Floats:
    """Return by how much each place [w] of a line of `size`, mirrored at its ends, counts for each wanted one [h]."""
    by = radius(sigma)
    kernel = np.zeros(2 * size, np.float32)
    kernel[: by + 1] = np.exp(-0.5 * np.square(np.arange(by + 1) / sigma))
    kernel /= 2 * kernel.sum() - kernel[0]
    to, of = np.arange(wanted.start, wanted.stop)[:, None], np.arange(place.start, place.stop)
    weights: Floats = kernel.take(np.abs(to - of))
    if wanted.start < by:
        weights += kernel.take(to + of + 1)
    if wanted.stop > size - by:
        weights += kernel.take(2 * size - 1 - to - of)
    return weights
