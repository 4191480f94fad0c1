"""Draws an error map over its image, on a colour scale shared by all images that a version judges.

Regions that match the model's expectation stay uncoloured. `limit` is the map value that corresponds to the threshold;
it is the middle of the scale, and marked on the colour bar.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.images.preprocess import Resize, restore_map

LONGEST_SIDE = 1024  # pixels, of what is drawn
_BAR = 14  # pixels
_STRONGEST = 0.75  # of the colour, over the image
# From transparent over yellow and orange (the limit) to dark red: a scale safe for red-green colour blindness.
_STOPS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_COLOURS = np.array([[255, 255, 204], [254, 217, 118], [253, 141, 60], [227, 26, 28], [128, 0, 38]], np.float32)
_STRENGTH = np.array([0.0, 0.15, 0.75, 1.0, 1.0])


def backdrop(pixels: NDArray[np.uint8]) -> Image.Image:
    """Return the image, uint8 [H, W, 3], scaled down to the size of the drawing."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), reducing_gap=2.0)
    return picture


def draw(picture: Image.Image, error_map: NDArray[np.float32], resize: Resize, limit: float) -> bytes:
    """Return a PNG: `picture` in grey under the error map [h, w] in colour, and the colour bar on its right."""
    width, height = picture.size
    restored = restore_map(error_map, height, width, resize)
    place = np.clip(restored / (2 * limit), 0, 1)  # the limit is in the middle
    grey = np.asarray(picture.convert("L"), np.float32)[..., np.newaxis]
    strength = (_STRONGEST * np.interp(place, _STOPS, _STRENGTH))[..., np.newaxis]
    colours = _coloured(place)
    drawn = np.concatenate([grey * (1 - strength) + colours * strength, _scale(height)], axis=1)
    result = Image.fromarray(np.clip(drawn + 0.5, 0, 255).astype(np.uint8))
    marks = ImageDraw.Draw(result)
    marks.line([(width, height // 2), (width + _BAR, height // 2)], fill="black", width=2)
    stream = io.BytesIO()
    result.save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _coloured(place: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.stack([np.interp(place, _STOPS, _COLOURS[:, channel]) for channel in range(3)], axis=-1)


def _scale(height: int) -> NDArray[np.floating]:
    """Return the colour bar, [height, _BAR, 3]: the largest error on top, a white margin on its left."""
    bar = np.repeat(_coloured(np.linspace(1, 0, height))[:, np.newaxis], _BAR, axis=1)
    bar[:, :2] = 255
    return bar
