"""Resize images to a model's square input, and map error maps back to image coordinates.

Modes of `resize`:

* `fit` preserves the aspect ratio and fills the margins by reflection, which avoids artificial edges;
* `stretch` scales both sides to the square;
* `crop` preserves the aspect ratio and keeps the central square;
* `tile` preserves the aspect ratio and cuts a long image into several squares (`pipelines.images.tiling`);
* `tile2` to `tile4` cut a large image into 2 to 4 tiles along its shorter side;
* `auto` is `tile2` for images that would otherwise lose a third of their resolution, else `tile`.

All are deterministic and leave an image of the right size unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.model_settings import Resize
from pipelines.images.tiling import Grid, grid

# Ratio of an image's shorter side to the input's side above which `auto` places two tiles along it.
LARGE = 1.5


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """The model input of one image.

    Attributes:
        tiles: uint8 [tiles, S, S, 3].
        height: height of the original image in pixels.
        width: width of the original image in pixels.
    """

    tiles: NDArray[np.uint8]
    height: int
    width: int


def prepare(pixels: NDArray[np.uint8], size: int, resize: Resize) -> NDArray[np.uint8]:
    """Resize `pixels` (uint8 [H, W, 3], RGB) with antialiasing to uint8 [tiles, size, size, 3].

    `fit`, `stretch` and `crop` give one tile.

    Raises:
        ValueError: `pixels` has another shape or type, or `resize` is unknown.
    """
    check_pixels(pixels)
    height, width = pixels.shape[:2]
    if resize == "crop":
        return _central_square(pixels, size)[np.newaxis]
    tiles = tile_grid(height, width, size, resize)
    if tiles is not None:
        return tiles.cut(_resized(pixels, tiles.height, tiles.width))
    top, left, inner_height, inner_width = placement(height, width, size, resize)
    pixels = _resized(pixels, inner_height, inner_width)
    margins = ((top, size - top - inner_height), (left, size - left - inner_width), (0, 0))
    return np.pad(pixels, margins, mode="symmetric")[np.newaxis]


def tile_grid(height: int, width: int, size: int, resize: Resize) -> Grid | None:
    """Return the tile grid of an image of `height` x `width` pixels, or None if `resize` does not tile."""
    if resize == "auto":
        return grid(height, width, size, across=2 if min(height, width) > LARGE * size else 1)
    if not resize.startswith("tile"):
        return None
    if resize not in get_args(Resize):
        raise ValueError(_unknown(resize))
    return grid(height, width, size, across=int(resize.removeprefix("tile") or 1))


def restore_map(error_map: NDArray[np.float32], height: int, width: int, resize: Resize) -> NDArray[np.float32]:
    """Map the error map [h, w] of a prepared image to the coordinates of its original: float32 [height, width].

    Crops the margins added by `fit` and scales bilinearly.
    """
    inner = np.ascontiguousarray(error_map, dtype=np.float32)
    if resize == "fit":
        top, left, inner_height, inner_width = placement(height, width, max(error_map.shape), resize)
        inner = np.ascontiguousarray(inner[top : top + inner_height, left : left + inner_width])
    return np.asarray(Image.fromarray(inner).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def _central_square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resized(pixels[top : top + side, left : left + side], size, size)


def _resized(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    # `reducing_gap` performs most of a large reduction by fast box averaging: 20 megapixels take milliseconds.
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))


def placement(height: int, width: int, size: int, resize: Resize) -> tuple[int, int, int, int]:
    """Return top, left, height and width, in pixels of the square, of the area filled by an image of `height` x
    `width`.

    Raises:
        ValueError: `resize` is neither `fit` nor `stretch`.
    """
    if resize == "stretch":
        return 0, 0, size, size
    if resize != "fit":
        raise ValueError(_unknown(resize))
    scale = size / max(height, width)
    inner_height = min(size, max(1, round(height * scale)))
    inner_width = min(size, max(1, round(width * scale)))
    return (size - inner_height) // 2, (size - inner_width) // 2, inner_height, inner_width


def check_pixels(pixels: NDArray[np.uint8]) -> None:
    """Raise ValueError unless `pixels` is a non-empty uint8 array [H, W, 3]."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"expected uint8 [H, W, 3] with at least one pixel, got {pixels.dtype} {list(pixels.shape)}")


def _unknown(resize: str) -> str:
    return f"resize is {resize!r}; allowed are {', '.join(get_args(Resize))}"
