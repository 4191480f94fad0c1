"""Computes the error map and the anomaly score of an image from its restoration and from the second network's logits,
in `keras.ops`.

Fine structure is compared by gradient-magnitude similarity at several scales (Xue et al., "Gradient magnitude
similarity deviation", IEEE TIP 2014; multi-scale as in Zavrtanik et al., "Reconstruction by inpainting for
visual anomaly detection", 2021), colour by the difference of local means. The error is divided by the error that
the network predicts for its own restoration (Kendall and Gal, "What uncertainties do we need in Bayesian deep
learning for computer vision?", 2017): the grain of a metal cannot be predicted, a weld can.

The excess is the logarithm of that ratio, standardised at each pixel by the median and the width that good images
have there (`normality`).

There are two scores. `reconstruction` is the maximum of the excess, which is smoothed so that a single noisy pixel
does not flag an image. `fused` is a weighted mean of seven pieces of evidence: the maximum, the mean of the highest
five percent and the mean, each of the excess and of the second network's logits, and that network's logit of the whole
image. A pit raises the first, a crack the second, a stained surface the third. Surfaces add two: the largest means of
the logits along paths, since a faint crack is long. Each piece passes through a logistic function fitted to good images
and corrected for their roughness (`normality`). Errors and logits have equal weight, and paths as much as both
together: along a path the grain averages out, a crack does not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipelines.tasks.anomaly.restoration.resample import doubled, halved

SCALES = 3
SIMILARITY_FLOOR = 0.002
COLOUR_WEIGHT = 2.0
SMOOTHING = 3
LEAST_EXPECTED = 0.1
# Width of the border that is left out, in pixels of the error map (half the image's side): the network pads with zeros
# and restores the outermost pixels badly.
EDGE = 2
HIGHEST = 0.05
# Added to the relative error before its logarithm is taken.
FAINTEST = 0.02
# Roughness is measured on this share of the smoothest fields of 2^3 x 2^3 pixels, so that a defect does not affect it.
# Fine structure below LEAST_STRUCTURE (0 to 1) is camera noise.
ROUGHNESS_HALVINGS, SMOOTHER_SHARE = 3, 0.25
LEAST_STRUCTURE = 0.002
# Paths are searched in a map that is halved at least once and until its side is less than twice PATHS_SIDE. Their
# lengths are shares of the side; TURN is the cost in logits of a turn by 45 degrees.
PATHS_SIDE = 32
LENGTHS = 1 / 3, 2 / 3
TURN = 0.5
# Number of pieces of evidence from each source, and the source's weight: errors, logits of the second network, and, on
# surfaces only, logits along paths.
OPINIONS = (3, 4, 2)
SAY = (1, 1, 2)
# The logit assumed beyond the border of the image.
OUTSIDE = -4.0

Tensor = Any

# The eight directions of a path as steps (row, column), each opposite to the direction four places on; and the
# depthwise kernel [3, 3, 8, 3] that reads, for each direction, the next pixel: 45 degrees to one side, straight on, 45
# degrees to the other side.
_WAYS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
_AHEAD = np.zeros((3, 3, len(_WAYS), 3), np.float32)
for _way in range(len(_WAYS)):
    for _turn in range(3):
        _rows, _columns = _WAYS[(_way + _turn - 1) % len(_WAYS)]
        _AHEAD[1 + _rows, 1 + _columns, _way, _turn] = 1

# Prewitt operator, horizontal and vertical.
_PREWITT = np.stack([np.tile([-1.0, 0.0, 1.0], (3, 1)), np.tile([-1.0, 0.0, 1.0], (3, 1)).T], axis=-1)
_PREWITT = (_PREWITT / 3).astype(np.float32)[:, :, None, :]


def gradient_magnitude(grey: Tensor) -> Tensor:
    """Return the Prewitt gradient magnitude of [N, H, W, 1], edges repeated, as [N, H, W, 1]."""
    # A convolution, because its backward pass costs a third of that of sliced sums.
    slopes = ops.conv(_mirrored(grey, 1), _PREWITT, 1, "valid")
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
        image_slope, restored_slope = gradient_magnitude(first), gradient_magnitude(second)
        errors.append(
            ops.square(image_slope - restored_slope)
            / (ops.square(image_slope) + ops.square(restored_slope) + SIMILARITY_FLOOR)
        )
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

    The smoothed error is divided by the smoothed error `expected` [N, H/2, W/2, 1]: about 1 or less where the network
    restores as well as it predicts. The outermost `EDGE` pixels are not compared; they mirror their neighbours.
    """
    image, restored = (part[:, 2 * EDGE : -2 * EDGE, 2 * EDGE : -2 * EDGE] for part in (image, restored))
    expected = expected[:, EDGE:-EDGE, EDGE:-EDGE]
    relative = smooth(pixel_error(image, restored)) / (smooth(expected) + LEAST_EXPECTED)
    return _mirrored(relative, EDGE)


def _mirrored(values: Tensor, reach: int) -> Tensor:
    """Return `values` [N, H, W, C] padded by `reach` pixels on every side, mirrored with the edge pixel repeated.

    Uses slices, because `ops.pad` repeats the last pixel instead with the PyTorch backend (Keras 3.15).
    """
    for axis in (1, 2):
        before = (slice(None),) * axis
        near = [values[(*before, slice(place, place + 1))] for place in reversed(range(reach))]
        far = [values[(*before, slice(-place, 1 - place or None))] for place in range(1, reach + 1)]
        values = ops.concatenate([*near, values, *far], axis=axis)
    return values


def excess(error: Tensor, middle: Tensor | float = 0.0, width: Tensor | float = 1.0) -> Tensor:
    """Return the logarithm of the relative `error` [N, H, W, 1], less `middle` (0) and divided by `width` (1)."""
    return (ops.log(error + FAINTEST) - middle) / width


def shown_excess(signed: Tensor) -> Tensor:
    """Return the softplus of the excess: near 0 far below the median of good images, the excess itself far above."""
    return ops.softplus(signed)


def roughness(image: Tensor) -> Tensor:
    """Return the roughness [N, 1] of RGB [N, H, W, 3] in 0 to 1; sides divisible by 8.

    Roughness is the logarithm of the mean absolute fine structure in the roughest of the smoothest quarter of an
    image's fields, so that a defect does not affect it unless it covers most of the image.
    """
    grey = ops.mean(image, axis=-1, keepdims=True)
    fields = halved(ops.abs(grey - smooth(smooth(grey))), ROUGHNESS_HALVINGS)
    flat = ops.reshape(fields, (-1, fields.shape[1] * fields.shape[2]))
    smoothest = ops.top_k(-flat, max(1, round(SMOOTHER_SHARE * flat.shape[1])))[0]
    return ops.log(LEAST_STRUCTURE - smoothest[:, -1:])


def evidence(error: Tensor, defect: Tensor, anomalous: Tensor, paths: bool = False) -> Tensor:
    """Return the evidence [N, 7]: maximum, mean of the highest 5 % and mean of the excess `error`, the same of the
    smoothed logits `defect`, both [N, H, W, 1], and the logit `anomalous` [N, 1]. With `paths`, [N, 9]: also the
    largest mean of `defect` along a path of one third and of two thirds of the side.
    """
    statistics = []
    for values in (error, smooth(defect)):
        flat = ops.reshape(values, (-1, values.shape[1] * values.shape[2]))
        highest = ops.top_k(flat, max(1, round(HIGHEST * flat.shape[1])))[0]
        statistics += [highest[:, 0], ops.mean(highest, axis=1), ops.mean(flat, axis=1)]
    parts = [ops.stack(statistics, axis=1), anomalous]
    if paths:
        coarse = halved(defect, max(1, int(math.log2(defect.shape[1] / PATHS_SIDE))))
        parts.append(along_paths(coarse))
    return ops.concatenate(parts, axis=1)


def along_paths(values: Tensor) -> Tensor:
    """Return the largest mean [N, 2] of `values` [N, H, H, 1] along any path of 1/3 and of 2/3 of the side.

    A path has one of eight directions and continues at each pixel straight on or, at the cost of `TURN`, 45 degrees
    aside. The best path through a pixel joins the best path from it and the best path to it; both grow by one pixel an
    iteration (dynamic programming: Fischler, Tenenbaum and Wolf, "Detection of roads and linear structures in
    low-resolution aerial imagery", 1981).
    """
    # Measured from OUTSIDE, so that the zero padding of the convolution is the logit beyond the border.
    here = values - OUTSIDE
    reaches = [round(share * values.shape[1] / 2) for share in LENGTHS]
    half = len(_WAYS) // 2
    best, maxima = ops.repeat(here, 2 * half, axis=-1), []
    for reach in range(1, reaches[-1] + 1):
        ahead = ops.depthwise_conv(best, _AHEAD, 1, "same")
        aside = ops.maximum(ahead[..., 0::3], ahead[..., 2::3]) - TURN
        best = here + ops.maximum(ahead[..., 1::3], aside)
        if reach in reaches:
            both = best[..., :half] + best[..., half:] - here
            maxima.append(ops.max(both, axis=(1, 2, 3)) / (2 * reach + 1) + OUTSIDE)
    return ops.stack(maxima, axis=1)


def pieces(surface: bool) -> int:
    """Return the number of pieces of evidence: 9 for surfaces, 7 for objects."""
    return sum(OPINIONS if surface else OPINIONS[:2])


def shares(count: int) -> NDArray[np.float32]:
    """Return the weights [count], sum 1, of the pieces of evidence: errors and logits of the second network weigh the
    same, and paths, which only surfaces have, as much as both together.
    """
    opinions = len(OPINIONS) if count == sum(OPINIONS) else 2
    sizes, say = OPINIONS[:opinions], SAY[:opinions]
    weights = [weight / (sum(say) * size) for size, weight in zip(sizes, say, strict=True)]
    return np.repeat(weights, sizes).astype(np.float32)


def fused_score(standardised: Tensor) -> Tensor:
    """Return the fused score [N], 0 to 1, of standardised evidence [N, pieces]: the weighted mean of the logistic
    function of each piece, so that a single extreme piece cannot outweigh the others.
    """
    return ops.sum(ops.sigmoid(standardised) * shares(standardised.shape[1]), axis=1)


def reconstruction_score(error: Tensor) -> Tensor:
    """Return the largest error [N] of error maps [N, H, W, 1]."""
    return ops.max(error, axis=(1, 2, 3))


def weighted_error(error: Tensor, defect: Tensor) -> Tensor:
    """Return the error map [N, H, W, 1] weighted by the second network: the product of `error` and of the probability
    of the logits `defect`, each with a floor so that neither alone sets the product to 0.
    """
    return (error + LEAST_EXPECTED) * (ops.sigmoid(smooth(defect)) + LEAST_EXPECTED)


def smooth(values: Tensor) -> Tensor:
    """Return [N, H, W, C] averaged twice over `SMOOTHING` x `SMOOTHING` pixels."""
    return ops.average_pool(ops.average_pool(values, SMOOTHING, 1, "same"), SMOOTHING, 1, "same")


def embedding(features: Tensor) -> Tensor:
    """Return the embedding [N, d] of bottleneck features [N, h, w, d]: their mean over the image."""
    return ops.mean(features, axis=(1, 2))
