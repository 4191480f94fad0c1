"""Synthetic defects, drawn on the fly on batches of clean images, for the network to remove. numpy only.

A defect is a mask and a filling. Masks: patches of thresholded smooth noise (Zavrtanik et al., DRAEM, ICCV
2021), thin curved scratches, soft blots. Fillings: a displaced part of another image of the batch (Schlüter et
al., NSA, ECCV 2022) or of the same one, one colour, a shade, noise. Half of the images get one to three
defects.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DEFECTIVE_SHARE = 0.6


def augment(images: NDArray[np.uint8], generator: np.random.Generator) -> Floats:
    """Return uint8 [N, S, S, 3] as float32 in 0 to 1, displaced by up to 4 % and with light varied by up to 10
    %.
    """
    n, size = images.shape[:2]
    reach = max(1, size // 24)
    shifts = generator.integers(-reach, reach + 1, (n, 2))
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    moved = np.stack(
        [
            padded[index, reach + down : reach + down + size, reach + right : reach + right + size]
            for index, (down, right) in enumerate(shifts)
        ]
    )
    gain = generator.uniform(0.92, 1.08, (n, 1, 1, 1)).astype(np.float32)
    offset = generator.uniform(-0.03, 0.03, (n, 1, 1, 1)).astype(np.float32)
    return np.clip(moved.astype(np.float32) / 255 * gain + offset, 0, 1)


def add_defects(images: Floats, generator: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return copies of `images` [N, S, S, 3] (0 to 1) with defects, and which pixels they cover, bool [N, S,
    S].
    """
    damaged = images.copy()
    n, size = images.shape[:2]
    touched = np.zeros((n, size, size), bool)
    for index in np.flatnonzero(generator.random(n) < DEFECTIVE_SHARE):
        for _ in range(generator.integers(1, 4)):
            mask = _MASKS[generator.integers(len(_MASKS))](size, generator)
            filling = _FILLINGS[generator.integers(len(_FILLINGS))](images, damaged[index], generator)
            cover = (mask * generator.uniform(0.3, 1.0)).astype(np.float32)[..., None]
            damaged[index] += cover * (filling - damaged[index])
            touched[index] |= mask > 0.1
    return np.clip(damaged, 0, 1, out=damaged), touched


def smooth_noise(size: int, cells: int, generator: np.random.Generator) -> Floats:
    """Return noise [size, size] about -1 to 1 that varies over `cells` fields a side, by bilinear
    interpolation.
    """
    grid = generator.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    at = np.linspace(0, cells, size, endpoint=False, dtype=np.float32)
    low = at.astype(np.intp)
    part = at - low
    part = part * part * (3 - 2 * part)
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def _patch(size: int, generator: np.random.Generator) -> Floats:
    """A few irregular patches: smooth noise above a level, within a blot, so that most stay small."""
    noise = smooth_noise(size, int(2 ** generator.integers(2, 6)), generator)
    inside = _blot(size, generator, 0.08, 0.35) > 0.3
    return np.clip((noise - generator.uniform(0.0, 0.3)) * 8, 0, 1) * inside


def _blot(size: int, generator: np.random.Generator, least: float = 0.02, most: float = 0.2) -> Floats:
    """A soft elliptic blot with radii of `least` to `most` of the side."""
    centre = generator.uniform(0, size, 2)
    radii = size * np.exp(generator.uniform(np.log(least), np.log(most), 2))
    turn = generator.uniform(0, np.pi)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    down, right = rows - centre[0], columns - centre[1]
    along = (down * np.cos(turn) + right * np.sin(turn)) / radii[0]
    across = (right * np.cos(turn) - down * np.sin(turn)) / radii[1]
    distance = along * along + across * across
    return np.exp(-(distance ** generator.choice([1.0, 2.0, 4.0]))).astype(np.float32)


def _scratch(size: int, generator: np.random.Generator) -> Floats:
    """A thin curve: a quadratic Bézier of one to three pixels' width, its course shaken by smooth noise."""
    start = generator.uniform(0, size, 2)
    length, turn = size * generator.uniform(0.1, 0.8), generator.uniform(0, 2 * np.pi)
    end = start + length * np.array([np.sin(turn), np.cos(turn)])
    bend = (start + end) / 2 + generator.normal(0, length * 0.2, 2)
    steps = np.linspace(0, 1, int(3 * length) + 2)[:, None]
    course = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
    shake = np.cumsum(generator.normal(0, generator.uniform(0, 0.35), course.shape), axis=0)
    course = course + shake - shake.mean(axis=0)
    canvas = np.zeros((size + 4, size + 4), np.float32)
    for offset in range(int(generator.integers(1, 4))):
        rows, columns = np.round(course + offset * np.array([np.cos(turn), -np.sin(turn)])).astype(np.intp).T + 2
        kept = (rows >= 1) & (rows < size + 3) & (columns >= 1) & (columns < size + 3)
        canvas[rows[kept], columns[kept]] = 1
    soft = canvas[1:-1, 1:-1] * 0.6 + 0.1 * (
        canvas[:-2, 1:-1] + canvas[2:, 1:-1] + canvas[1:-1, :-2] + canvas[1:-1, 2:]
    )
    return soft[1:-1, 1:-1]


def _of_another(images: Floats, own: Floats, generator: np.random.Generator) -> Floats:
    other = images[generator.integers(len(images))]
    other = other[:: generator.choice([1, -1]), :: generator.choice([1, -1])]
    return np.roll(other, generator.integers(len(own), size=2), (0, 1)) + np.float32(generator.normal(0, 0.1))


def _displaced(images: Floats, own: Floats, generator: np.random.Generator) -> Floats:
    reach = len(own) // 4
    return np.roll(own, generator.integers(-reach, reach + 1, 2), (0, 1))


def _colour(images: Floats, own: Floats, generator: np.random.Generator) -> Floats:
    if generator.random() < 0.5:
        return np.broadcast_to(np.float32(generator.uniform(0, 1)), own.shape)
    return np.broadcast_to(generator.uniform(0, 1, 3).astype(np.float32), own.shape)


def _shade(images: Floats, own: Floats, generator: np.random.Generator) -> Floats:
    return own * np.float32(1 + generator.choice([-1, 1]) * generator.uniform(0.25, 0.8))


def _noise(images: Floats, own: Floats, generator: np.random.Generator) -> Floats:
    size = len(own)
    fine = (
        smooth_noise(size, int(2 ** generator.integers(3, 7)), generator) if size >= 64 else np.zeros_like(own[..., 0])
    )
    return own + (fine * np.float32(generator.uniform(0.15, 0.5)))[..., None]


_MASKS = (_patch, _blot, _scratch, _scratch)
_FILLINGS = (_of_another, _displaced, _colour, _shade, _shade, _noise)
