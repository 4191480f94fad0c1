"""Plain numbers that describe an image: what the profile shows, and what drift is measured on.

Numpy alone, a few milliseconds whatever the image's size: colour and light are taken from a regular grid of pixels,
sharpness and noise, which are properties of neighbouring pixels, from tiles at full resolution.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DESCRIPTORS = (
    "width",  # pixels
    "height",  # pixels
    "brightness",  # mean luminance, 0..1
    "contrast",  # standard deviation of luminance, 0..0.5
    "sharpness",  # standard deviation of the Laplacian of luminance, 0 and up
    "saturation",  # mean HSV saturation, 0..1
    "noise",  # standard deviation of the noise (Immerkær 1996), in units of luminance, 0 and up
    "entropy",  # of the luminance histogram, bits, 0..8
    "shadows",  # share of pixels almost black, 0..1
    "highlights",  # share of pixels almost white, 0..1
    "warmth",  # mean of red minus blue, -1..1
)
_SAMPLED = 1 << 14  # pixels
_TILE = 64  # pixels
_TILES = 4  # a side, at most
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32) / 255  # ITU-R BT.601
# The same in 256ths, so that second differences, taken twice, fit 16 bits with luminance in eighths of a level.
_LUMA_256, _LEVEL = (77, 150, 29), 8


def describe(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Return the `DESCRIPTORS` of `pixels`, uint8 [H, W, 3] RGB; deterministic, every value finite."""
    height, width = pixels.shape[:2]
    step = math.ceil(math.sqrt(height * width / _SAMPLED))
    # Channel by channel: numpy is ten times as fast along a plane as across three neighbours.
    red, green, blue = (np.ascontiguousarray(pixels[::step, ::step, channel]) for channel in range(3))
    luminance = _luminance(red, green, blue)
    brightest = np.maximum(np.maximum(red, green), blue)
    spread = (brightest - np.minimum(np.minimum(red, green), blue)).astype(np.float32)
    levels = (luminance * 255 + np.float32(0.5)).astype(np.intp)
    histogram = np.bincount(levels.ravel(), minlength=256) / luminance.size
    shares = histogram[histogram > 0]
    sharpness, noise = _detail(pixels)
    values = {
        "width": width,
        "height": height,
        "brightness": luminance.mean(),
        "contrast": _deviation(luminance),
        "sharpness": sharpness,
        "saturation": (spread / np.maximum(brightest, 1)).mean(),
        "noise": noise,
        "entropy": max(0.0, -(shares * np.log2(shares)).sum()),
        "shadows": np.count_nonzero(luminance <= 8 / 255) / luminance.size,
        "highlights": np.count_nonzero(luminance >= 247 / 255) / luminance.size,
        "warmth": (float(red.sum(dtype=np.int64)) - float(blue.sum(dtype=np.int64))) / (255 * red.size),
    }
    return {name: float(values[name]) for name in DESCRIPTORS}


def _detail(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Return sharpness and noise, both from second differences of luminance over evenly spread tiles."""
    height, width = pixels.shape[:2]
    if min(height, width) < 3:
        return 0.0, 0.0
    rows, columns = _starts(height), _starts(width)
    cut = np.stack([pixels[row : row + _TILE, column : column + _TILE] for row in rows for column in columns])
    red, green, blue = (cut[..., channel] * np.uint16(weight) for channel, weight in enumerate(_LUMA_256))
    tiles = ((red + green + blue) // np.uint16(256 // _LEVEL)).astype(np.int16)
    twice = 2 * tiles
    down = tiles[:, :-2] + tiles[:, 2:] - twice[:, 1:-1]
    laplacian = down[:, :, 1:-1] + tiles[:, 1:-1, :-2] + tiles[:, 1:-1, 2:] - twice[:, 1:-1, 1:-1]
    # Immerkær, "Fast noise variance estimation", CVIU 64 (1996): a mask that structure does not excite, the second
    # difference of second differences; sigma = sqrt(pi/2) / 6 x mean of its absolute response
    response = down[:, :, :-2] + down[:, :, 2:] - 2 * down[:, :, 1:-1]
    noise = math.sqrt(math.pi / 2) / 6 * float(np.abs(response).mean())
    return _deviation(laplacian.astype(np.float32)) / (255 * _LEVEL), noise / (255 * _LEVEL)


def _starts(side: int) -> NDArray[np.intp]:
    """Return where tiles begin along a side of `side` pixels: evenly spread, and no more than it takes to cover it."""
    count = min(_TILES, -(-side // _TILE))
    return np.linspace(0, max(0, side - _TILE), count, dtype=np.intp)


def _deviation(values: NDArray[np.float32]) -> float:
    apart = (values - values.mean()).ravel()
    return float(np.sqrt(np.dot(apart, apart) / len(apart)))


def _luminance(red: NDArray[np.uint8], green: NDArray[np.uint8], blue: NDArray[np.uint8]) -> NDArray[np.float32]:
    return red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]
