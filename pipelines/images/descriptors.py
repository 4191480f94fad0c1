"""Compute scalar image descriptors, shown in the profile and monitored for drift.

Takes a few milliseconds regardless of image size: colour and brightness are computed on a regularly subsampled image,
sharpness and noise, which depend on neighbouring pixels, on tiles at full resolution. Uses numpy alone.
"""

from __future__ import annotations

import math
from functools import lru_cache

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
# The same weights in 256ths; with luminance in eighths of a level, second differences taken twice fit 16 bits.
_LUMA_256, _LEVEL = (77, 150, 29), 8


def describe(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Return the `DESCRIPTORS` of `pixels` (uint8 [H, W, 3], RGB) by name; deterministic, all values finite."""
    height, width = pixels.shape[:2]
    step = math.ceil(math.sqrt(height * width / _SAMPLED))
    # Separate planes are ten times as fast in numpy as interleaved channels.
    red, green, blue = (np.ascontiguousarray(pixels[::step, ::step, channel]) for channel in range(3))
    count = red.size
    luminance = _luminance(red, green, blue)
    brightest = np.maximum(np.maximum(red, green), blue)
    spread = (brightest - np.minimum(np.minimum(red, green), blue)).astype(np.float32)
    spread /= np.maximum(brightest, 1)
    levels = luminance * np.float32(255)
    levels += np.float32(0.5)
    histogram = np.bincount(levels.astype(np.intp).ravel(), minlength=256) / count
    shares = histogram[histogram > 0]
    sharpness, noise = _detail(pixels)
    values = {
        "width": width,
        "height": height,
        "brightness": luminance.sum() / count,
        "contrast": _deviation(luminance),
        "sharpness": sharpness,
        "saturation": spread.sum() / count,
        "noise": noise,
        "entropy": max(0.0, -(shares * np.log2(shares)).sum()),
        "shadows": np.count_nonzero(luminance <= 8 / 255) / count,
        "highlights": np.count_nonzero(luminance >= 247 / 255) / count,
        "warmth": (float(red.sum(dtype=np.int64)) - float(blue.sum(dtype=np.int64))) / (255 * count),
    }
    return {name: float(values[name]) for name in DESCRIPTORS}


def _detail(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Return sharpness and noise from second differences of luminance over evenly spaced tiles."""
    height, width = pixels.shape[:2]
    if min(height, width) < 3:
        return 0.0, 0.0
    rows, columns = _starts(height), _starts(width)
    cut = np.stack([pixels[row : row + _TILE, column : column + _TILE] for row in rows for column in columns])
    tiles: NDArray[np.uint16] = np.zeros(cut.shape[:3], np.uint16)
    for channel, weight in enumerate(_LUMA_256):
        weighted = cut[..., channel].astype(np.uint16)
        weighted *= weight
        tiles += weighted
    tiles //= 256 // _LEVEL
    # Flattening all rows of all tiles makes numpy three times as fast. Differences across the edges of tiles are
    # meaningless and excluded by `inner`.
    line, inner = tiles.astype(np.int16).ravel(), np.s_[:, 1:-1, 1:-1]
    down = _second_differences(line, tiles.shape[-1])
    laplacian = _second_differences(line, 1)
    laplacian += down
    # Immerkær, "Fast noise variance estimation", CVIU 64 (1996): a filter insensitive to image structure, the second
    # difference of second differences; sigma = sqrt(pi/2) / 6 x mean of its absolute response.
    response = np.abs(_second_differences(down, 1)).reshape(tiles.shape)[inner]
    noise = math.sqrt(math.pi / 2) / 6 * float(response.mean())
    sharpness = _deviation(laplacian.reshape(tiles.shape)[inner].astype(np.float32))
    return sharpness / (255 * _LEVEL), noise / (255 * _LEVEL)


def _second_differences(line: NDArray[np.int16], apart: int) -> NDArray[np.int16]:
    """Return line[i - apart] - 2 line[i] + line[i + apart] for each i; 0 at both ends."""
    differences = np.zeros_like(line)
    between = differences[apart:-apart]
    np.add(line[: -2 * apart], line[2 * apart :], out=between)
    between -= line[apart:-apart]
    between -= line[apart:-apart]
    return differences


@lru_cache(maxsize=64)
def _starts(side: int) -> tuple[int, ...]:
    """Return the evenly spaced start positions of tiles along `side` pixels, no more than needed to cover it."""
    count = min(_TILES, -(-side // _TILE))
    return tuple(np.linspace(0, max(0, side - _TILE), count, dtype=np.intp).tolist())


def _deviation(values: NDArray[np.float32]) -> float:
    apart = (values - values.sum() / values.size).ravel()
    return float(np.sqrt(np.dot(apart, apart) / len(apart)))


def _luminance(red: NDArray[np.uint8], green: NDArray[np.uint8], blue: NDArray[np.uint8]) -> NDArray[np.float32]:
    return red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]
