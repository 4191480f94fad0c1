"""From an image, its restoration and the second opinion on both to an error map and one anomaly score, in
`keras.ops`.

Fine structure is compared by gradient-magnitude similarity at several scales (Xue et al., "Gradient magnitude
similarity deviation", IEEE TIP 2014; multi-scale as in Zavrtanik et al., "Reconstruction by inpainting for
visual anomaly detection", 2021), colour by the difference of local means. An error counts by how much it
exceeds what the network expects of itself there (Kendall and Gal, "What uncertainties do we need in Bayesian
deep learning for computer vision?", 2017): the grain of a metal cannot be predicted, a weld can.

The logarithm of that ratio is then compared with what is usual at its place (`models.usual`), in units of its width
there: the excess.

Two scores come of it. `reconstruction` is the largest excess, smoothed so that one noisy pixel does not condemn an
image. `fused` weighs, in units of their spread over good images, seven pieces of evidence: the largest value, the mean
of the highest five percent, and the mean, of the excess and of the second opinion, and what the latter thinks of the
whole; a pit shows in the first, a crack in the second, a stained surface in the third. On a surface two more count, the
second opinion along the most suspicious lines across it: a faint crack is long. Each counts at most fully: a good image
with one odd place is not to be ranked above a bad one by that place alone.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipelines.models.resample import doubled, halved

SCALES = 3
SIMILARITY_FLOOR = 0.002
COLOUR_WEIGHT = 2.0
SMOOTHING = 3
LEAST_EXPECTED = 0.1
# The network folds 2 x 2 pixels into one and pads with zeros: what it draws at the very edge, it draws half
# blind. In pixels of the error map, which has half the image's side.
EDGE = 2
HIGHEST = 0.05
# What a relative error of nothing counts as, before its logarithm is taken.
FAINTEST = 0.02
# Lines are looked for in a map halved at least once, and until its side is this or a little more, in so many
# directions, of a third and of two thirds of its side.
LINES_SIDE, DIRECTIONS = 32, 12
LENGTHS = 1 / 3, 2 / 3
# The second opinion's logit where there is no image any more.
OUTSIDE = -4.0

Tensor = Any

# Prewitt's operator, across and down.
_PREWITT = np.stack([np.tile([-1.0, 0.0, 1.0], (3, 1)), np.tile([-1.0, 0.0, 1.0], (3, 1)).T], axis=-1)
_PREWITT = (_PREWITT / 3).astype(np.float32)[:, :, None, :]


def gradient_magnitude(grey: Tensor) -> Tensor:
    """Return the Prewitt gradient magnitude of [N, H, W, 1], edges repeated, as [N, H, W, 1]."""
    padded = ops.concatenate([grey[:, :1], grey, grey[:, -1:]], axis=1)
    padded = ops.concatenate([padded[:, :, :1], padded, padded[:, :, -1:]], axis=2)
    # One convolution: its gradient costs a third of that of sliced sums.
    slopes = ops.conv(padded, _PREWITT, 1, "valid")
    return ops.sqrt(ops.sum(ops.square(slopes), axis=-1, keepdims=True) + 1e-8)


def gradient_error(image: Tensor, restored: Tensor) -> list[Tensor]:
    """Return 1 - gradient-magnitude similarity (0 to 1) at each scale s, of sides H / 2^s, from RGB [N, H, W,
    3] in 0 to 1.
    """
    first, second = (ops.mean(picture, axis=-1, keepdims=True) for picture in (image, restored))
    errors = []
    for scale in range(SCALES):
        if scale:
            first, second = halved(first), halved(second)
        one, other = gradient_magnitude(first), gradient_magnitude(second)
        errors.append(ops.square(one - other) / (ops.square(one) + ops.square(other) + SIMILARITY_FLOOR))
    return errors


def colour_error(image: Tensor, restored: Tensor) -> Tensor:
    """Return the mean absolute difference [N, H/4, W/4, 1] of the local means of RGB [N, H, W, 3] in 0 to 1."""
    return ops.mean(ops.abs(halved(image - restored, 2)), axis=-1, keepdims=True)


def pixel_error(image: Tensor, restored: Tensor) -> Tensor:
    """Return the error [N, H/2, W/2, 1], at least 0, from RGB [N, H, W, 3] in 0 to 1, sides divisible by 4."""
    fine, middle, coarse = gradient_error(image, restored)
    total = (halved(fine) + middle + doubled(coarse)) / SCALES
    return total + COLOUR_WEIGHT * doubled(colour_error(image, restored))


def relative_error(image: Tensor, restored: Tensor, expected: Tensor) -> Tensor:
    """Return the error map [N, H/2, W/2, 1], at least 0, of `image` and `restored` [N, H, W, 3] in 0 to 1.

    It is the smoothed error in units of the smoothed error `expected` [N, H/2, W/2, 1] there: about 1 or less where
    the network restores as well as it usually does. The outermost `EDGE` pixels are not compared; they take the
    values of those beside them.
    """
    image, restored = (part[:, 2 * EDGE : -2 * EDGE, 2 * EDGE : -2 * EDGE] for part in (image, restored))
    expected = expected[:, EDGE:-EDGE, EDGE:-EDGE]
    relative = smooth(pixel_error(image, restored)) / (smooth(expected) + LEAST_EXPECTED)
    return ops.pad(relative, ((0, 0), (EDGE, EDGE), (EDGE, EDGE), (0, 0)), mode="symmetric")


def excess(error: Tensor, middle: Tensor | float = 0.0, width: Tensor | float = 1.0) -> Tensor:
    """Return by how many widths the logarithm of the relative `error` [N, H, W, 1] exceeds its usual `middle`."""
    return (ops.log(error + FAINTEST) - middle) / width


def shown_excess(found: Tensor) -> Tensor:
    """Return the excess as an error of at least 0, log(1 + e^x): near 0 far below the usual, the excess far above."""
    return ops.softplus(found)


def evidence(error: Tensor, defect: Tensor, anomalous: Tensor, lines: bool = False) -> Tensor:
    """Return [N, 7]: largest value, mean of the highest twentieth, and mean, of the excess `error` and of the smoothed
    logits `defect`, both [N, H, W, 1], and the logit `anomalous` [N, 1]. With `lines` [N, 9]: also the largest mean of
    `defect` along a line, of a third and of two thirds of the side.
    """
    found = []
    for values in (error, smooth(defect)):
        flat = ops.reshape(values, (-1, values.shape[1] * values.shape[2]))
        highest = ops.top_k(flat, max(1, round(HIGHEST * flat.shape[1])))[0]
        found += [highest[:, 0], ops.mean(highest, axis=1), ops.mean(flat, axis=1)]
    pieces = [ops.stack(found, axis=1), anomalous]
    if lines:
        coarse = halved(defect, max(1, int(math.log2(defect.shape[1] / LINES_SIDE))))
        pieces.append(ops.stack([along_lines(coarse, share) for share in LENGTHS], axis=1))
    return ops.concatenate(pieces, axis=1)


def along_lines(values: Tensor, share: float) -> Tensor:
    """Return the largest mean [N] of `values` [N, H, H, 1] along any straight line of `share` of the side."""
    length = 2 * round(share * values.shape[1] / 2) + 1
    reach = length // 2
    padded = ops.pad(values, ((0, 0), (reach, reach), (reach, reach), (0, 0)), constant_values=OUTSIDE)
    return ops.max(ops.conv(padded, line_kernels(length), 1, "valid"), axis=(1, 2, 3))


@lru_cache(maxsize=8)
def line_kernels(length: int) -> NDArray[np.float32]:
    """Return lines [length, length, 1, 12] through the middle of a square, each summing to 1, soft by half a pixel."""
    middle, kernels = length // 2, np.zeros((length, length, 1, DIRECTIONS), np.float32)
    along = np.linspace(-middle, middle, 4 * length)
    for direction in range(DIRECTIONS):
        turn = np.pi * direction / DIRECTIONS
        line = np.zeros((length, length), np.float32)
        line[np.rint(middle + along * np.sin(turn)).astype(int), np.rint(middle + along * np.cos(turn)).astype(int)] = 1
        line = gaussian_filter(line, 0.5)
        kernels[..., 0, direction] = line / line.sum()
    return kernels


def fused_score(found: Tensor) -> Tensor:
    """Return the fused score [N], 0 to 1, from evidence [N, pieces] in standard deviations: the mean of its logistic
    functions, so that no piece of evidence, however large, outvotes the others.
    """
    return ops.mean(ops.sigmoid(found), axis=1)


def reconstruction_score(error: Tensor) -> Tensor:
    """Return the largest error [N] of error maps [N, H, W, 1]."""
    return ops.max(error, axis=(1, 2, 3))


def weighted_error(error: Tensor, defect: Tensor) -> Tensor:
    """Return an error map [N, H, W, 1] that counts more where the second opinion's logits see a defect: the product of
    the error and the probability, neither of which can veto the other.
    """
    return (error + LEAST_EXPECTED) * (ops.sigmoid(smooth(defect)) + LEAST_EXPECTED)


def smooth(values: Tensor) -> Tensor:
    """Return [N, H, W, C] averaged twice over `SMOOTHING` x `SMOOTHING` pixels."""
    return ops.average_pool(ops.average_pool(values, SMOOTHING, 1, "same"), SMOOTHING, 1, "same")


def embedding(features: Tensor) -> Tensor:
    """Return the embedding [N, d] of bottleneck features [N, h, w, d]: their mean over the image."""
    return ops.mean(features, axis=(1, 2))
