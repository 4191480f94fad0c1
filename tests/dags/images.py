"""Pictures of a part: a bright disc on a dark ground; a defect is a dark blot on it. Learnt in seconds."""

import io

import numpy as np
from PIL import Image

SIDE = 64


def part(number: int, *, defect: bool = False) -> tuple[bytes, bytes]:
    """Return a PNG of part `number` and the PNG of its mask (black without a defect)."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIDE, :SIDE]
    centre = SIDE / 2 + rng.normal(0, 1, 2)
    disc = np.hypot(y - centre[0], x - centre[1]) < SIDE * 0.38
    pixels = np.where(disc, 180.0, 40.0) + rng.normal(0, 6, (SIDE, SIDE))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if defect:
        top, left = (centre + rng.normal(0, 5, 2)).astype(int) - 5
        mask[top : top + 10, left : left + 10] = 255
        pixels[mask > 0] = 20
    colour = np.clip(pixels[..., None] * (1.0, 0.95, 0.9), 0, 255).astype(np.uint8)
    return _png(colour), _png(mask)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
