"""Masks as annotations are read: where a mask marks anything, and which class each of its pixels bears."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import BadImage
from pipelines.images.decode import open_mask

_CLASS_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def read_classes(data: bytes, size: tuple[int, int]) -> NDArray[np.uint16]:
    """Decode the class map of an image of `size` (width, height) into uint16 [height, width]; 0 is background.

    A bilevel, grey or palette image holds its class values as they were drawn: 0, 1, 2…, a palette's indices, or 0 and
    255. A colour image has no class values; wherever it marks anything, it bears class 1.

    Raises:
        BadImage: the file is no readable image, or not of that size.
    """
    marked = open_mask(data, size)  # refuses what cannot be read, and turns by EXIF
    image = Image.open(io.BytesIO(data))
    if image.mode not in _CLASS_MODES:
        return marked.astype(np.uint16)
    values = np.asarray(image).astype(np.int64)
    if values.shape != marked.shape:
        raise BadImage("the class map is turned by EXIF: save it upright, at the size of its image")
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise BadImage("the class map has values outside 0 to 65535: save it in 16 bits")
    return values.astype(np.uint16)
