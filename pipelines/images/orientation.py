"""EXIF orientation (EXIF 2.32, tag 0x0112): which way stored pixels have to be turned to be upright."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

TAG = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})  # these swap width and height
_TURNS = {
    2: "mirrored",
    3: "turned by 180°",
    4: "mirrored upside down",
    5: "mirrored and turned by 90°",
    6: "turned by 90°",
    7: "mirrored and turned by 90°",
    8: "turned by 90°",
}

Pixels = TypeVar("Pixels", bound=NDArray[Any])


def orientation_of(image: Image.Image) -> int:
    """Return the orientation 1 to 8 that the file states; 1 if it states none, or a damaged one.

    Ask of a TIFF before it is decoded, which turns it and removes the tag, and of all else after: asking may decode.
    """
    try:
        is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
        value = image.tag_v2.get(TAG, 1) if is_tiff else image.getexif().get(TAG, 1)  # type: ignore[attr-defined]
    except Exception:  # damaged EXIF is ignored, since the pixels are intact
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Return pixels [H, W] or [H, W, C] as stored, turned upright; contiguous."""
    if orientation == 1:
        return pixels
    turn: Any = {
        2: lambda: pixels[:, ::-1],
        3: lambda: pixels[::-1, ::-1],
        4: lambda: pixels[::-1],
        5: lambda: pixels.swapaxes(0, 1),
        6: lambda: np.rot90(pixels, -1),
        7: lambda: pixels[::-1, ::-1].swapaxes(0, 1),
        8: lambda: np.rot90(pixels, 1),
    }[orientation]
    result: Any = np.ascontiguousarray(turn())
    return result


def describe_turn(orientation: int) -> str:
    """Return the orientation in words, such as `turned by 90°`."""
    return _TURNS[orientation]
