"""From an image and its reconstruction to an error map and one anomaly score, in `keras.ops`.

Fine structure is compared by gradient-magnitude similarity at several scales (Xue et al., "Gradient magnitude
similarity deviation", IEEE TIP 2014; multi-scale as in Zavrtanik et al., "Reconstruction by inpainting for
visual anomaly detection", 2021), colour by the difference of local means. An error counts by how much it
exceeds what the network expects of itself there (Kendall and Gal, "What uncertainties do we need in Bayesian
deep learning for computer vision?", 2017): the grain of a metal cannot be predicted, a weld can. The map is
smoothed, so that one noisy pixel does not condemn an image, and the score is its maximum: a defect counts the
same wherever it lies.
"""

from __future__ import annotations

from typing import Any

from keras import ops

SCALES = 3
SIMILARITY_FLOOR = 0.002
COLOUR_WEIGHT = 2.0
COLOUR_FIELD = 5
SMOOTHING = 5
LEAST_EXPECTED = 0.1
# The network folds 2 x 2 pixels into one and pads with zeros: what it draws at the very edge, it draws half
# blind.
EDGE = 4

Tensor = Any


def gradient_magnitude(grey: Tensor) -> Tensor:
    """Return the Prewitt gradient magnitude of [N, H, W, 1], edges mirrored, as [N, H, W, 1]."""
    padded = ops.pad(grey, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    # Separable: a sum of three one way, a difference across two the other way.
    down = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    across = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    horizontal = (down[:, :, 2:] - down[:, :, :-2]) / 3
    vertical = (across[:, 2:] - across[:, :-2]) / 3
    return ops.sqrt(ops.square(horizontal) + ops.square(vertical) + 1e-8)


def gradient_error(image: Tensor, restored: Tensor) -> list[Tensor]:
    """Return 1 - gradient-magnitude similarity (0 to 1) at each scale s, of sides H / 2^s, from RGB [N, H, W,
    3] in 0 to 1.
    """
    first, second = (ops.mean(picture, axis=-1, keepdims=True) for picture in (image, restored))
    errors = []
    for scale in range(SCALES):
        if scale:
            first, second = ops.average_pool(first, 2, 2), ops.average_pool(second, 2, 2)
        one, other = gradient_magnitude(first), gradient_magnitude(second)
        errors.append(ops.square(one - other) / (ops.square(one) + ops.square(other) + SIMILARITY_FLOOR))
    return errors


def pixel_error(image: Tensor, restored: Tensor) -> Tensor:
    """Return the error of each pixel [N, H, W, 1], at least 0, from RGB [N, H, W, 3] in 0 to 1, sides divisible
    by 4.
    """
    total = 0.0
    for scale, error in enumerate(gradient_error(image, restored)):
        for _ in range(scale):
            error = ops.repeat(ops.repeat(error, 2, axis=1), 2, axis=2)
        total = total + error / SCALES
    colour = ops.average_pool(image - restored, COLOUR_FIELD, 1, "same")
    return total + COLOUR_WEIGHT * ops.mean(ops.abs(colour), axis=-1, keepdims=True)


def error_map(image: Tensor, restored: Tensor, expected: Tensor) -> Tensor:
    """Return the error map [N, H, W], at least 0, of `image` and `restored` [N, H, W, 3] in 0 to 1.

    It is the smoothed error in units of the smoothed error `expected` [N, H, W, 1] there: about 1 or less where
    the network restores as well as it usually does. The outermost `EDGE` pixels are not compared; they take the
    values of those beside them.
    """
    image, restored, expected = (part[:, EDGE:-EDGE, EDGE:-EDGE] for part in (image, restored, expected))
    relative = smooth(pixel_error(image, restored)) / (smooth(expected) + LEAST_EXPECTED)
    return ops.pad(relative[..., 0], ((0, 0), (EDGE, EDGE), (EDGE, EDGE)), mode="symmetric")


def smooth(values: Tensor) -> Tensor:
    """Return [N, H, W, C] averaged twice over `SMOOTHING` x `SMOOTHING` pixels."""
    return ops.average_pool(ops.average_pool(values, SMOOTHING, 1, "same"), SMOOTHING, 1, "same")


def anomaly_score(error: Tensor) -> Tensor:
    """Return the anomaly score [N] of error maps [N, H, W]: their maximum."""
    return ops.max(error, axis=(1, 2))


def embedding(features: Tensor) -> Tensor:
    """Return the embedding [N, d] of bottleneck features [N, h, w, d]: their mean over the image."""
    return ops.mean(features, axis=(1, 2))
