"""Bring an image of any shape to the square a model takes, and an error map back onto the image.

`fit` keeps proportions and mirrors the image into the margins, so that the network sees more of the same
surface instead of an artificial edge; `stretch` changes proportions and uses every pixel of the square. Both
are deterministic, and leave an image that already has the right size exactly as it is: packed images can go
through `score()` like any other.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Resize = Literal["fit", "stretch"]


def prepare(pixels: NDArray[np.uint8], size: int, resize: Resize) -> NDArray[np.uint8]:
    """Return `pixels` [H, W, 3] (uint8, RGB) as uint8 [size, size, 3].

    `resize` is `fit` or `stretch`. Antialiased.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    top, left, inner_height, inner_width = placement(height, width, size, resize)
    if (inner_height, inner_width) != (height, width):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        # The gap lets a box average do the first part of a large reduction: 20 megapixels take milliseconds.
        resized = image.resize((inner_width, inner_height), Image.Resampling.LANCZOS, reducing_gap=3.0)
        pixels = np.asarray(resized)
    if (inner_height, inner_width) == (size, size):
        return np.ascontiguousarray(pixels)
    margins = ((top, size - top - inner_height), (left, size - left - inner_width), (0, 0))
    return np.pad(pixels, margins, mode="symmetric")


def restore_map(error_map: NDArray[np.float32], height: int, width: int, resize: Resize) -> NDArray[np.float32]:
    """Lay the error map [h, w] of a prepared image back onto its image: float32 [height, width].

    The margins that `fit` added are cut off; the rest is scaled bilinearly.
    """
    rows, columns = error_map.shape
    top, left, inner_height, inner_width = placement(height, width, max(rows, columns), resize)
    inner = np.ascontiguousarray(error_map[top : top + inner_height, left : left + inner_width], dtype=np.float32)
    return np.asarray(Image.fromarray(inner).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def placement(height: int, width: int, size: int, resize: Resize) -> tuple[int, int, int, int]:
    """Return top, left, height and width, in pixels of the square, of the part that an image of `height` x
    `width` fills.
    """
    if resize == "stretch":
        return 0, 0, size, size
    if resize != "fit":
        raise ValueError(f"resize is {resize!r}; allowed are 'fit' and 'stretch'")
    scale = size / max(height, width)
    inner_height = min(size, max(1, round(height * scale)))
    inner_width = min(size, max(1, round(width * scale)))
    return (size - inner_height) // 2, (size - inner_width) // 2, inner_height, inner_width


def check_pixels(pixels: NDArray[np.uint8]) -> None:
    """Raise ValueError unless `pixels` is a non-empty uint8 array [H, W, 3]."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"expected uint8 [H, W, 3] with at least one pixel, got {pixels.dtype} {list(pixels.shape)}")
