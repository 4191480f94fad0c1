"""Convert images of more than eight bits per channel to eight bits.

The format's value range is mapped linearly to 0…255. A TIFF declares its bit depth. Most 12-bit cameras, however, save
16-bit files without declaring it, which would come out almost black: an image whose maximum is within 12 bits (4,095)
is therefore read as 12-bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import BadImage

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281  # TIFF 6.0, section 8


def to_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Convert a loaded greyscale image of more than eight bits per pixel to uint8 [H, W, 3].

    Raises:
        BadImage: some pixels are not finite numbers.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadImage("the image holds pixels that are no finite numbers (NaN or infinite): save it as 8 or 16 bits")
    black, white = _range(values, image)
    scaled = (values.astype(np.float64) - black) * (255 / (white - black))
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


def _range(values: NDArray[np.generic], image: Image.Image) -> tuple[float, float]:
    """Return the pixel values that map to black and to white."""
    low, high = float(values.min()), float(values.max())
    tags = getattr(image, "tag_v2", {})
    declared = _first(tags.get(_MAX_SAMPLE_VALUE))
    if low >= 0 and declared > 0 and high <= declared < 2**31:
        return 0.0, declared
    ranges: tuple[float, ...]
    if values.dtype.kind == "f":
        ranges = (1.0, 255.0, 4095.0, 65535.0)
    else:
        bits = _first(tags.get(_BITS_PER_SAMPLE))
        if 8 < bits < 16 and low >= 0 and high < 2**bits:
            return 0.0, 2**bits - 1
        ranges = (255.0, 4095.0, 65535.0) if image.mode == "I" else (4095.0, 65535.0)
    if low >= 0:
        for brightest in ranges:
            if high <= brightest:
                return 0.0, brightest
    return low, max(high, low + 1)  # no customary range below zero or beyond 16 bits: use the image's own


def _first(tag: object) -> float:
    """Return a TIFF tag's first number, or 0."""
    value = tag[0] if isinstance(tag, tuple) and tag else tag
    return float(value) if isinstance(value, int | float) else 0.0
