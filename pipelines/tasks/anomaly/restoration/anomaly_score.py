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
image. `fused` weighs seven pieces of evidence: the largest value, the mean of the highest five percent, and the mean,
of the excess and of the second opinion, and what the latter thinks of the whole; a pit shows in the first, a crack in
the second, a stained surface in the third. On a surface two more count, the second opinion along the most suspicious
paths across it: a faint crack is long. Each counts by how far it lies beyond what good images show, or, where these
have outliers, beyond their mean, and at most fully (`normality`, which also makes up for what smooth good images
show less of: rough ones are not to hide their defects). Errors and second opinion have an equal say, paths as much as
both: along a path the grain, which has no length, averages out, and a pit or a stain does not.
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
# The network folds 2 x 2 pixels into one and pads with zeros: what it draws at the very edge, it draws half
# blind. In pixels of the error map, which has half the image's side.
EDGE = 2
HIGHEST = 0.05
# What a relative error of nothing counts as, before its logarithm is taken.
FAINTEST = 0.02
# How rough an image is, its smoother fields of 2^3 x 2^3 pixels tell: a defect, which lies in others, has no say. And
# the least fine structure of a pixel, 0 to 1: below it one camera's noise is as good as another's.
ROUGHNESS_HALVINGS, SMOOTHER_SHARE = 3, 0.25
LEAST_STRUCTURE = 0.002
# Paths are looked for in a map halved at least once, and until its side is this or a little more, of a third and of two
# thirds of its side. A turn by an eighth costs them so much of a logit.
PATHS_SIDE = 32
LENGTHS = 1 / 3, 2 / 3
TURN = 0.5
# How many pieces of evidence each opinion has: errors, second opinion, and on surfaces the second opinion along paths;
# and how much say.
OPINIONS = (3, 4, 2)
SAY = (1, 1, 2)
# The second opinion's logit where there is no image any more.
OUTSIDE = -4.0

Tensor = Any

# The eight ways a path may go, rows and columns, each opposite the one four places on; and the convolution [3, 3, 8, 3]
# that tells, for each way, what lies ahead: an eighth to one side, straight on, an eighth to the other.
_WAYS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
_AHEAD = np.zeros((3, 3, len(_WAYS), 3), np.float32)
for _way in range(len(_WAYS)):
    for _turn in range(3):
        _rows, _columns = _WAYS[(_way + _turn - 1) % len(_WAYS)]
        _AHEAD[1 + _rows, 1 + _columns, _way, _turn] = 1

# Prewitt's operator, across and down.
_PREWITT = np.stack([np.tile([-1.0, 0.0, 1.0], (3, 1)), np.tile([-1.0, 0.0, 1.0], (3, 1)).T], axis=-1)
_PREWITT = (_PREWITT / 3).astype(np.float32)[:, :, None, :]


def gradient_magnitude(grey: Tensor) -> Tensor:
    """Return the Prewitt gradient magnitude of [N, H, W, 1], edges repeated, as [N, H, W, 1]."""
    # One convolution: its gradient costs a third of that of sliced sums.
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
    return _mirrored(relative, EDGE)


def _mirrored(values: Tensor, reach: int) -> Tensor:
    """Return `values` [N, H, W, C] continued by `reach` places on every side, mirrored.

    By slices: `ops.pad` repeats the last place instead where PyTorch is the backend (Keras 3.15).
    """
    for axis in (1, 2):
        before = (slice(None),) * axis
        near = [values[(*before, slice(place, place + 1))] for place in reversed(range(reach))]
        far = [values[(*before, slice(-place, 1 - place or None))] for place in range(1, reach + 1)]
        values = ops.concatenate([*near, values, *far], axis=axis)
    return values


def excess(error: Tensor, middle: Tensor | float = 0.0, width: Tensor | float = 1.0) -> Tensor:
    """Return by how many widths the logarithm of the relative `error` [N, H, W, 1] exceeds its usual `middle`."""
    return (ops.log(error + FAINTEST) - middle) / width


def shown_excess(found: Tensor) -> Tensor:
    """Return the excess as an error of at least 0, log(1 + e^x): near 0 far below the usual, the excess far above."""
    return ops.softplus(found)


def roughness(image: Tensor) -> Tensor:
    """Return how rough the surface of RGB [N, H, W, 3] in 0 to 1 is, as [N, 1]; sides divisible by 8.

    It is the logarithm of the mean absolute fine structure of the roughest of the smoothest quarter of an image's
    fields, so that a defect has no part in it unless it covers most of the image.
    """
    grey = ops.mean(image, axis=-1, keepdims=True)
    fields = halved(ops.abs(grey - smooth(smooth(grey))), ROUGHNESS_HALVINGS)
    flat = ops.reshape(fields, (-1, fields.shape[1] * fields.shape[2]))
    smoothest = ops.top_k(-flat, max(1, round(SMOOTHER_SHARE * flat.shape[1])))[0]
    return ops.log(LEAST_STRUCTURE - smoothest[:, -1:])


def evidence(error: Tensor, defect: Tensor, anomalous: Tensor, paths: bool = False) -> Tensor:
    """Return [N, 7]: largest value, mean of the highest twentieth, and mean, of the excess `error` and of the smoothed
    logits `defect`, both [N, H, W, 1], and the logit `anomalous` [N, 1]. With `paths` [N, 9]: also the largest mean of
    `defect` along a path, of a third and of two thirds of the side.
    """
    found = []
    for values in (error, smooth(defect)):
        flat = ops.reshape(values, (-1, values.shape[1] * values.shape[2]))
        highest = ops.top_k(flat, max(1, round(HIGHEST * flat.shape[1])))[0]
        found += [highest[:, 0], ops.mean(highest, axis=1), ops.mean(flat, axis=1)]
    parts = [ops.stack(found, axis=1), anomalous]
    if paths:
        coarse = halved(defect, max(1, int(math.log2(defect.shape[1] / PATHS_SIDE))))
        parts.append(along_paths(coarse))
    return ops.concatenate(parts, axis=1)


def along_paths(values: Tensor) -> Tensor:
    """Return the largest mean [N, 2] of `values` [N, H, H, 1] along any path of a third and of two thirds of the side.

    A path goes one of eight ways, at each pixel straight on or, at the cost of `TURN`, an eighth aside. The best one
    through a pixel is the best one from it and the best one to it; both grow by one pixel at a time (dynamic
    programming, as of Fischler, Tenenbaum and Wolf, "Detection of roads and linear structures in low-resolution aerial
    imagery", 1981).
    """
    # Counted from where there is no image: the zeros that a convolution pads with cost nothing then.
    here = values - OUTSIDE
    reaches = [round(share * values.shape[1] / 2) for share in LENGTHS]
    half = len(_WAYS) // 2
    best, found = ops.repeat(here, 2 * half, axis=-1), []
    for reach in range(1, reaches[-1] + 1):
        ahead = ops.depthwise_conv(best, _AHEAD, 1, "same")
        aside = ops.maximum(ahead[..., 0::3], ahead[..., 2::3]) - TURN
        best = here + ops.maximum(ahead[..., 1::3], aside)
        if reach in reaches:
            both = best[..., :half] + best[..., half:] - here
            found.append(ops.max(both, axis=(1, 2, 3)) / (2 * reach + 1) + OUTSIDE)
    return ops.stack(found, axis=1)


def pieces(surface: bool) -> int:
    """Return how many pieces of evidence there are, on a surface or of objects."""
    return sum(OPINIONS if surface else OPINIONS[:2])


def shares(count: int) -> NDArray[np.float32]:
    """Return the weight of each of `count` pieces, together 1: errors and second opinion have an equal say, and paths,
    which are of surfaces alone, as much as both.
    """
    opinions = len(OPINIONS) if count == sum(OPINIONS) else 2
    sizes, say = OPINIONS[:opinions], SAY[:opinions]
    told = [one / (sum(say) * size) for size, one in zip(sizes, say, strict=True)]
    return np.repeat(told, sizes).astype(np.float32)


def fused_score(found: Tensor) -> Tensor:
    """Return the fused score [N], 0 to 1, from evidence [N, pieces], of which 0 counts half: the weighted mean of its
    logistic functions, so that no piece of evidence, however large, outvotes the others.
    """
    return ops.sum(ops.sigmoid(found) * shares(found.shape[1]), axis=1)


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
