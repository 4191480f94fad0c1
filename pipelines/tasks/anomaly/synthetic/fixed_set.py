"""A fixed set of synthetic defects, for the evaluation of models where there are too few real ones.

The defect drawn on an image depends on the image's digest only: the same image has the same defect in every run, so
that all models are evaluated on the same images. Training uses other generators, so that no model has an advantage from
having learnt these defects.

The kinds are scratches, spots, blurred smears and displaced patches; sizes are relative to the image.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

KINDS = ("scratch", "spot", "smear", "displaced")

Pixels = NDArray[np.uint8]


def with_defect(pixels: Pixels, sha256: str) -> tuple[Pixels, str]:
    """Return a copy of `pixels` (uint8 [H, W, 3]) with the defect that belongs to `sha256`, and the defect's kind."""
    seed = int.from_bytes(hashlib.sha256(f"synthetic defect {sha256}".encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    height, width = pixels.shape[:2]
    unit = min(height, width)
    # Away from the border, since a part seldom fills its image.
    row, column = rng.uniform(0.3, 0.7) * height, rng.uniform(0.3, 0.7) * width
    angle = rng.uniform(0, np.pi)
    if kind == "scratch":
        shape = (rng.uniform(0.12, 0.25) * unit, max(0.9, rng.uniform(0.008, 0.016) * unit))
    elif kind == "spot":
        radius = rng.uniform(0.04, 0.08) * unit
        shape = (radius, radius * rng.uniform(0.6, 1))
    else:
        radius = rng.uniform(0.08, 0.14) * unit
        shape = (radius, radius * rng.uniform(0.7, 1))
    area, cover = _ellipse(height, width, row, column, angle, *shape)
    before = pixels[area].astype(np.float32)
    # Darker on bright surfaces, brighter on dark ones, so that it is visible on both.
    sign = -1 if before.mean() > 110 else 1
    if kind in ("scratch", "spot"):
        after = before + sign * rng.uniform(60, 110)
    elif kind == "smear":
        after = _blurred(before, max(2, round(0.05 * unit))) + sign * rng.uniform(20, 35)
    else:
        after = _elsewhere(pixels, area, rng) + sign * rng.uniform(25, 45)
    mixed = before + cover[..., None] * (after - before)
    changed = pixels.copy()
    changed[area] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return changed, kind


def _ellipse(
    height: int, width: int, row: float, column: float, angle: float, along: float, across: float
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """Return the rectangle around an ellipse with these half axes, and the coverage of its pixels, 0 to 1."""
    reach = along + 2
    top, bottom = max(0, int(row - reach)), min(height, int(row + reach) + 1)
    left, right = max(0, int(column - reach)), min(width, int(column + reach) + 1)
    y, x = np.mgrid[top:bottom, left:right] - np.array([row, column]).reshape(2, 1, 1)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    distance = np.hypot(u / along, v / across)
    # Antialias the edge over about a pixel.
    cover = np.clip((1 - distance) * min(along, across) + 0.5, 0, 1)
    return (slice(top, bottom), slice(left, right)), cover.astype(np.float32)


def _blurred(values: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Return the mean over squares of 2 * reach + 1 pixels a side, by cumulative sums along each axis."""
    for axis in (0, 1):
        padding = [(reach + 1, reach) if dimension == axis else (0, 0) for dimension in range(values.ndim)]
        total = np.cumsum(np.pad(values, padding, mode="edge"), axis=axis, dtype=np.float64)
        length = total.shape[axis]
        ahead = np.take(total, range(2 * reach + 1, length), axis=axis)
        behind = np.take(total, range(length - 2 * reach - 1), axis=axis)
        values = ((ahead - behind) / (2 * reach + 1)).astype(np.float32)
    return values


def _elsewhere(pixels: Pixels, area: tuple[slice, slice], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a patch of the same size from a random place, rotated by 180 degrees."""
    rows, columns = area
    high, wide = rows.stop - rows.start, columns.stop - columns.start
    top = int(rng.integers(0, pixels.shape[0] - high + 1))
    left = int(rng.integers(0, pixels.shape[1] - wide + 1))
    return pixels[top : top + high, left : left + wide][::-1, ::-1].astype(np.float32)
