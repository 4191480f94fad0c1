"""Generates the shapes of synthetic defects. Requires numpy and scipy only.

A shape is a plane [S, S], 0 to 1: the strength of the defect at each pixel. Sizes are relative to the side S of the
image. `MaskBank` draws each shape once and reuses it, rotated and mirrored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float32]

BANK_SIZE = 2048
BANK_BYTES = 256 << 20
LEAST = 0.02  # the least strength of a pixel that is part of a line


class MaskBank:
    """A cache of shapes for images of `size` pixels a side, each drawn at its first use.

    Shape k depends on the seed and k only, so that a resumed training draws the same shapes.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._count = max(64, min(BANK_SIZE, BANK_BYTES // (size * size)))
        self._drawn: dict[int, NDArray[np.uint8]] = {}

    def shape(self, generator: np.random.Generator, area: bool = False) -> Floats:
        """Return a shape [S, S], 0 to 1, randomly rotated and mirrored; `area` prefers those with an interior."""
        kinds = _AREAS if area and generator.random() < 0.8 else _ALL
        kind = kinds[generator.integers(len(kinds))]
        place = kind + len(_SHAPES) * int(generator.integers(self._count // len(_SHAPES)))
        if place not in self._drawn:
            own = np.random.default_rng([self._seed, 3, place])
            drawn = _SHAPES[kind](self._size, own)
            self._drawn[place] = np.round(255 * np.clip(drawn, 0, 1)).astype(np.uint8)
        return np.divide(turned(self._drawn[place], generator), 255, dtype=np.float32)


def turned(plane: NDArray, generator: np.random.Generator) -> NDArray:
    """Return a square [S, S, …] in a random one of its eight orientations, as a view."""
    return oriented(plane, int(generator.integers(8)))


def oriented(plane: NDArray, which: int) -> NDArray:
    """Return a square [S, S, …] in orientation `which`, 0 to 7, as a view: flipped vertically for bit 1, then
    horizontally for bit 2, then transposed for bit 4.
    """
    if which & 1:
        plane = plane[::-1]
    if which & 2:
        plane = plane[:, ::-1]
    return plane.swapaxes(0, 1) if which & 4 else plane


def smooth_noise(size: int, cells: int, generator: np.random.Generator) -> Floats:
    """Return noise [size, size] about -1 to 1 that varies over `cells` fields a side (Perlin's interpolation)."""
    grid = generator.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    at = np.linspace(0, cells, size, endpoint=False, dtype=np.float32)
    low = at.astype(np.intp)
    part = at - low
    part = part * part * (3 - 2 * part)
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]
    noise: Floats = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return noise


def patches(size: int, generator: np.random.Generator) -> Floats:
    """Draw irregular patches: smooth noise above a level, within a blot (DRAEM, Zavrtanik et al., ICCV 2021)."""
    noise = smooth_noise(size, _cells(size, generator, 2, 6), generator)
    noise = noise + 0.5 * smooth_noise(size, _cells(size, generator, 2, 6), generator)
    inside = blot(size, generator, 0.05, 0.35) > 0.3
    if not inside.any():
        return inside.astype(np.float32)
    level = np.quantile(noise[inside], generator.uniform(0.3, 0.8))
    return np.clip((noise - level) * generator.choice([3, 8, 20]), 0, 1).astype(np.float32) * inside


def blot(size: int, generator: np.random.Generator, least: float = 0.012, most: float = 0.2) -> Floats:
    """Draw a blot, soft or hard, elliptic or uneven, with a radius of `least` to `most` of the side."""
    centre, turn = generator.uniform(0, size, 2), generator.uniform(0, np.pi)
    radii = size * np.exp(generator.uniform(np.log(least), np.log(most))) * np.exp(generator.normal(0, 0.4, 2))
    rows, columns = np.ogrid[:size, :size]
    down, right = rows - np.float32(centre[0]), columns - np.float32(centre[1])
    along = (down * np.cos(turn) + right * np.sin(turn)) / radii[0]
    across = (right * np.cos(turn) - down * np.sin(turn)) / radii[1]
    distance = along * along + across * across
    if generator.random() < 0.5:
        cells = min(size // 4, int(generator.choice([4, 8, 16])))
        distance = distance * np.exp(generator.uniform(0.3, 1) * smooth_noise(size, cells, generator))
    return np.exp(-(distance ** generator.choice([1.0, 2.0, 4.0]))).astype(np.float32)


def curves(size: int, generator: np.random.Generator) -> Floats:
    """Draw a scratch, crack, hair or strand: a smooth or jagged curve of one or more branches, thin or broad, of
    even or uneven strength, that often starts outside the image.
    """
    canvas = np.zeros((size, size), np.float32)
    start, heading = generator.uniform(0, size, 2), generator.uniform(0, 2 * np.pi)
    if generator.random() < 0.5:
        start = generator.uniform(-0.1 * size, 1.1 * size, 2)
        towards = size / 2 - start + generator.normal(0, size / 4, 2)
        heading = np.arctan2(towards[0], towards[1])
    length = size * np.exp(generator.uniform(np.log(0.12), np.log(1.6)))
    waves, bend = 0.4 * generator.uniform(), generator.normal(0, 0.8)
    jags = generator.uniform(0, 0.9) if generator.random() < 0.6 else 0.0
    for branch in range(int(generator.choice([1, 1, 1, 2, 3]))):
        count = int(2 * length) + 2
        slow = _unit(gaussian_filter(generator.normal(size=count), 8, mode="wrap"))
        quick = _unit(gaussian_filter(generator.normal(size=count), 2, mode="wrap"))
        headings = heading + waves * slow + jags * quick + bend * (np.arange(count) / count - 0.5)
        course = start + np.cumsum(0.5 * np.stack([np.sin(headings), np.cos(headings)], axis=1), axis=0)
        width = np.clip(1 + 0.6 * slow, 0.1, 1.6) if generator.random() < 0.5 else np.ones(count)
        if branch:
            width = width * generator.uniform(0.4, 1)
        _mark(canvas, course[:, 0], course[:, 1], width)
        fork = int(generator.integers(count))
        start = course[fork]
        heading = headings[fork] + generator.choice([-1, 1]) * generator.uniform(0.3, 1.2)
        length = length * generator.uniform(0.3, 0.8)
    soft = gaussian_filter(canvas, max(0.35, size / 128 * np.exp(generator.uniform(np.log(0.35), np.log(4)))))
    if not soft.any():
        return soft
    soft = soft / np.quantile(soft[soft > 0], 0.98)
    if generator.random() < 0.4:
        soft = soft * generator.uniform(1.5, 3)
    if generator.random() < 0.3:
        cells = min(size // 4, int(generator.choice([4, 8, 16])))
        soft = soft * (0.6 + 0.5 * smooth_noise(size, cells, generator))
    return np.clip(soft, 0, 1)


def cracks(size: int, generator: np.random.Generator) -> Floats:
    """Draw a crack: a line rough at every scale (fractional Brownian motion, Mandelbrot and Van Ness, SIAM Review
    1968), thin, of uneven width and strength, that often crosses the whole image and sometimes forks.
    """
    canvas = np.zeros((size, size), np.float32)
    start = generator.uniform(-0.1 * size, 1.1 * size, 2)
    towards = size / 2 - start + generator.normal(0, size / 3, 2)
    heading = np.arctan2(towards[0], towards[1])
    length = size * np.exp(generator.uniform(np.log(0.25), np.log(1.6)))
    slope, rough = generator.uniform(1.7, 2.6), generator.uniform(0.02, 0.09)
    for _ in range(int(generator.choice([1, 1, 2, 3]))):
        count = int(3 * length) + 8
        part = np.linspace(0, 1, count)
        across = _rough(count, slope, generator)
        # Subtract half or more of the linear trend, so that some lines end on their heading and some beside it.
        across = rough * length * (across - generator.uniform(0.5, 1) * (across[0] + (across[-1] - across[0]) * part))
        along = length * (part + 0.5 * rough * _rough(count, slope, generator))
        rows = start[0] + along * np.sin(heading) + across * np.cos(heading)
        columns = start[1] + along * np.cos(heading) - across * np.sin(heading)
        _mark(canvas, rows, columns, np.clip(1 + 0.5 * _rough(count, 1.0, generator), 0, 2))
        fork = int(generator.integers(count))
        start = np.array([rows[fork], columns[fork]])
        heading = heading + generator.choice([-1, 1]) * generator.uniform(0.4, 1.4)
        length = length * generator.uniform(0.3, 0.7)
    soft = gaussian_filter(canvas, max(0.35, 0.6 * size / 128 * np.exp(generator.uniform(np.log(0.5), np.log(1.6)))))
    if not (soft > LEAST).any():
        return np.zeros_like(soft)
    soft = soft / np.quantile(soft[soft > LEAST], 0.9) * generator.uniform(0.8, 1.6)
    if generator.random() < 0.6:
        cells = min(size // 4, int(generator.choice([2, 4, 8])))
        soft = soft * np.clip(0.6 + 0.7 * smooth_noise(size, cells, generator), 0.05, 1.3)
    return np.clip(soft, 0, 1)


def _mark(canvas: Floats, rows: NDArray, columns: NDArray, width: NDArray) -> None:
    """Draw the points of a line that lie inside the canvas."""
    rows, columns = np.round(rows).astype(np.intp), np.round(columns).astype(np.intp)
    kept = (rows >= 0) & (rows < canvas.shape[0]) & (columns >= 0) & (columns < canvas.shape[1])
    np.maximum.at(canvas, (rows[kept], columns[kept]), width[kept].astype(np.float32))


def _rough(count: int, slope: float, generator: np.random.Generator) -> NDArray:
    """Return noise of standard deviation 1 whose power falls with frequency to the power -`slope`."""
    frequency = np.fft.rfftfreq(2 * count)
    power = np.zeros(len(frequency))
    power[1:] = frequency[1:] ** (-slope / 2)
    phases = np.exp(2j * np.pi * generator.uniform(size=len(frequency)))
    return _unit(np.fft.irfft(power * phases * np.sqrt(generator.exponential(size=len(frequency))))[:count])


def specks(size: int, generator: np.random.Generator) -> Floats:
    """Draw one to twenty specks near each other: pits, dust, spatter."""
    count = int(np.exp(generator.uniform(0, np.log(20))))
    centre, spread = generator.uniform(0, size, 2), size * generator.uniform(0.03, 0.3)
    rows, columns = np.clip(np.round(centre + generator.normal(0, spread, (count, 2))), 0, size - 1).astype(np.intp).T
    canvas = np.zeros((size, size), np.float32)
    canvas[rows, columns] = generator.uniform(0.4, 1, count)
    soft = gaussian_filter(canvas, size / 128 * np.exp(generator.uniform(np.log(0.4), np.log(2.5))))
    return np.clip(soft / soft.max() * generator.uniform(1, 2), 0, 1)


def rectangle(size: int, generator: np.random.Generator) -> Floats:
    """Draw an upright rectangle with a hard or soft edge, like a pasted patch (CutPaste, Li et al., CVPR 2021)."""
    height, width = (size * np.exp(generator.uniform(np.log(0.03), np.log(0.35), 2))).astype(np.intp) + 1
    top, left = generator.integers(-height // 2, size - height // 2), generator.integers(-width // 2, size - width // 2)
    canvas = np.zeros((size, size), np.float32)
    canvas[max(0, top) : top + height, max(0, left) : left + width] = 1
    return gaussian_filter(canvas, generator.uniform(0, 1.5))


def _cells(size: int, generator: np.random.Generator, low: int, high: int) -> int:
    return min(size // 2, int(2 ** generator.integers(low, high)))


def _unit(values: NDArray) -> NDArray:
    return values / (values.std() + 1e-6)


# Each is sampled as often as it is listed: fine lines are harder to learn than broad shapes.
_SHAPES = (patches, blot, blot, curves, curves, cracks, cracks, specks, rectangle)
_ALL = tuple(range(len(_SHAPES)))
_AREAS = tuple(place for place, shape in enumerate(_SHAPES) if shape in (patches, blot, rectangle))
