"""Decode the class values of masks."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import BadImage
from pipelines.images.decode import decode_pixels, open_header, upright

_CLASS_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def open_mask(data: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode the mask of an image of `size` (width, height) into bool [height, width], true where it marks a defect.

    A pixel marks a defect if it exceeds a quarter of the maximum, which excludes soft edges and compression artefacts.
    In a class map (maximum at most 16) every non-zero pixel does.

    Raises:
        BadImage: the file is not a readable image, or differs in size.
    """
    width, height = size
    image = open_header(data, max_pixels=max(width * height, 1), kind="mask")
    levels = upright(decode_pixels(image), image).max(axis=2)
    if levels.shape != (height, width):
        raise BadImage(
            f"the mask is {levels.shape[1]} x {levels.shape[0]} pixels and its image {width} x {height}: "
            "draw it at the image's size"
        )
    brightest = int(levels.max())
    return levels > (0 if brightest <= 16 else brightest // 4)


def read_classes(data: bytes, size: tuple[int, int]) -> NDArray[np.uint16]:
    """Decode the class map of an image of `size` (width, height) into uint16 [height, width]; 0 is background.

    The pixel values of a bilevel, greyscale or palette image are the class values, unchanged: 0, 1, 2…, palette
    indices, or 0 and 255. A colour image has no class values; every pixel it marks has class 1.

    Raises:
        BadImage: the file is not a readable image, or differs in size.
    """
    marked = open_mask(data, size)  # refuses unreadable files and applies the EXIF orientation
    image = Image.open(io.BytesIO(data))
    if image.mode not in _CLASS_MODES:
        return marked.astype(np.uint16)
    values = np.asarray(image).astype(np.int64)
    if values.shape != marked.shape:
        raise BadImage("the class map is turned by EXIF: save it upright, at the size of its image")
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise BadImage("the class map has values outside 0 to 65535: save it in 16 bits")
    return values.astype(np.uint16)
