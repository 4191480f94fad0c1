"""Random views of images for fine-tuning: crops, mirroring, small rotations, and changes of light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

LEAST_AREA = 0.6  # of a crop, as a share of the image
ROTATION = 0.17  # radians, at most
LIGHT = 0.2  # relative change of contrast and brightness, at most


@dataclass(frozen=True)
class Views:
    """How the images of a batch are shown.

    Attributes:
        transform: float32 [n, 8], projective transforms from the view's pixels to the image's, as
            `keras.ops.image.affine_transform` takes them.
        contrast: float32 [n, 1, 1, 1], factor about the middle grey.
        brightness: float32 [n, 1, 1, 3], added to each channel.
    """

    transform: NDArray[np.float32]
    contrast: NDArray[np.float32]
    brightness: NDArray[np.float32]


def draw_views(count: int, size: int, rng: np.random.Generator) -> Views:
    """Draw how `count` images of `size` pixels a side are shown."""
    scale = np.sqrt(rng.uniform(LEAST_AREA, 1.0, count))
    angle = rng.uniform(-ROTATION, ROTATION, count)
    mirror = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    middle = (size - 1) / 2
    room = (1 - scale) * middle
    across, down = rng.uniform(-1, 1, (2, count)) * room
    a, b = scale * np.cos(angle) * mirror, -scale * np.sin(angle)
    c, d = scale * np.sin(angle) * mirror, scale * np.cos(angle)
    transform = np.zeros((count, 8), np.float32)
    transform[:, 0], transform[:, 1], transform[:, 2] = a, b, middle + across - a * middle - b * middle
    transform[:, 3], transform[:, 4], transform[:, 5] = c, d, middle + down - c * middle - d * middle
    contrast = rng.uniform(1 - LIGHT, 1 + LIGHT, (count, 1, 1, 1)).astype(np.float32)
    common, tint = rng.uniform(-LIGHT, LIGHT, (count, 1, 1, 1)), rng.uniform(-LIGHT, LIGHT, (count, 1, 1, 3)) / 4
    return Views(transform, contrast, (127.5 * (common + tint)).astype(np.float32))


def show(images: Any, transform: Any, contrast: Any, brightness: Any) -> Any:
    """Return the views of images, float [n, S, S, 3] from 0 to 255; what lies beyond an image is its reflection."""
    turned = ops.image.affine_transform(images, transform, interpolation="bilinear", fill_mode="reflect")
    return ops.clip((turned - 127.5) * contrast + 127.5 + brightness, 0.0, 255.0)
