"""Tiles: a large or long image as several overlapping squares, and their error maps as one map again.

The image is scaled, its proportions kept, until its shorter side measures so many tiles; the longer side takes as many
more as it needs. Where the tiles lie depends on the image's shape alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# What is cut apart at the edge of one tile lies inside another: tiles overlap by an eighth of their side at least.
STRIDE = 7 / 8
# An image that is hardly longer than wide is drawn to a square: two tiles of it would show almost the same.
HARDLY = 1.4
# No image, however long, costs more than this many; one that needs more is drawn shorter.
MOST_TILES = 64
# So many are laid along the shorter side at most.
MOST_ACROSS = 4
# Positions are multiples of this, so that they are whole pixels of an error map, too.
STEP = 4


@dataclass(frozen=True)
class Grid:
    """Where the tiles of side `size` lie on a canvas of `height` x `width` pixels, row by row."""

    size: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def height(self) -> int:
        """The canvas's height in pixels."""
        return self.rows[-1] + self.size

    @property
    def width(self) -> int:
        """The canvas's width in pixels."""
        return self.columns[-1] + self.size

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def cut(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tiles [T, S, S, 3] of a canvas [height, width, 3]."""
        size = self.size
        return np.stack(
            [canvas[row : row + size, column : column + size] for row in self.rows for column in self.columns]
        )

    def stitch(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the map of the whole canvas from those of its tiles [T, h, h], which may be smaller than the tiles.

        Where tiles overlap, each counts the more, the farther from its own edge the place lies.
        """
        if len(self) == 1:
            return np.asarray(maps[0], dtype=np.float32)
        side = maps.shape[1]
        ramp = np.minimum(np.arange(side) + 0.5, np.arange(side)[::-1] + 0.5).astype(np.float32)
        weight = np.outer(ramp, ramp)
        shape = self.height * side // self.size, self.width * side // self.size
        total, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        places = ((row, column) for row in self.rows for column in self.columns)
        for tile_map, (row, column) in zip(maps, places, strict=True):
            top, left = row * side // self.size, column * side // self.size
            area = slice(top, top + side), slice(left, left + side)
            total[area] += weight * tile_map
            weights[area] += weight
        return np.divide(total, weights, dtype=np.float32)


def grid(height: int, width: int, size: int, across: int = 1) -> Grid:
    """Return the tiles of side `size` (a multiple of 4) of an image of `height` x `width` pixels, `across` (1) of them
    along its shorter side.
    """
    short = 1 + (across - 1) * STRIDE
    long = short * max(height, width) / min(height, width)
    if across == 1 and long <= HARDLY:
        long = 1.0
    count = min(max(across, math.ceil((long - 1) / STRIDE) + 1), MOST_TILES // across)
    long = min(long, 1 + (count - 1) * STRIDE)
    along, beside = _places(long, count, size), _places(short, across, size)
    return Grid(size, along, beside) if height > width else Grid(size, beside, along)


def parts(counts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each tile of images of these `sizes` (height and width [n, 2]), cut into so many tiles [n], a number
    that says which part of its image it shows.

    The same tile of as many rows and columns shows the same part.
    """
    shapes = np.array(
        [_shape(int(count), *map(int, size)) for count, size in zip(counts, sizes, strict=True)], np.int64
    ).reshape(-1, 2)
    ends = counts.cumsum()
    tile = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    rows, columns = np.repeat(shapes, counts, axis=0).T
    return (rows * (MOST_TILES + 1) + columns) * (MOST_TILES + 1) + tile


@lru_cache(maxsize=1024)
def _shape(count: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of an image cut into `count` tiles: the more along the shorter side, the more tiles."""
    for across in range(1, MOST_ACROSS + 1):
        tiles = grid(height, width, STEP, across)
        if len(tiles) == count:
            return len(tiles.rows), len(tiles.columns)
    return 1, count


def _places(length: float, count: int, size: int) -> tuple[int, ...]:
    """Return where `count` tiles begin that cover `length` (in tiles) evenly."""
    places = np.linspace(0, (length - 1) * size, count)
    return tuple(int(STEP * round(place / STEP)) for place in places)
