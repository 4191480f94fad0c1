"""Gaussian blur of training images by products with small weight matrices. Requires numpy only.

Equals `scipy.ndimage.gaussian_filter` in mode "reflect", in float32 and in a fraction of its time: a batch needs some
thirty blurs, on CPU cores that the network uses as well.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pipelines.tasks.anomaly.synthetic.shapes import Floats

TRUNCATE = 4.0  # standard deviations


def radius(sigma: float) -> int:
    """Return the radius in pixels of the kernel of a blur of standard deviation `sigma` (pixels)."""
    return int(TRUNCATE * sigma + 0.5)


def grown(part: slice, by: int, size: int) -> slice:
    """Return a range of rows or columns extended by `by` at both ends, clipped to an image of `size` pixels."""
    return slice(max(0, part.start - by), min(size, part.stop + by))


def blurred(image: Floats, sigma: float, rows: slice, columns: slice, often: bool = False) -> Floats:
    """Return the blurred rows and columns [h, w, C] of `image` [S, S, C]; `sigma` (pixels) is at most S / 4. `often`
    (False) caches the weights for this sigma.
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

    `part` holds the rows and columns `place` of the image, which is zero elsewhere.
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
    """Return the weight [h, w] of each pixel of `place` for each of `wanted`, on a line of `size`, mirrored."""
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
