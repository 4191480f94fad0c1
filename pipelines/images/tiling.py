"""Cut a large or long image into overlapping square tiles, and merge their error maps.

The image is scaled, preserving its aspect ratio, so that its shorter side spans the given number of tiles; the longer
side takes as many as it needs. The layout depends on the image's shape alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Tiles overlap by at least an eighth of their side, so that a defect cut by one tile's edge lies inside another.
STRIDE = 7 / 8
# Images with an aspect ratio up to this are squashed into one tile, since two would show almost the same.
HARDLY = 1.4
# Limits the cost of an image; a longer one is compressed along its longer side.
MOST_TILES = 64
# Most tiles along the shorter side.
MOST_ACROSS = 4
# Positions are multiples of this, so that they are whole pixels of an error map as well.
STEP = 4


@dataclass(frozen=True)
class Grid:
    """A layout of tiles on a canvas, in row-major order.

    Attributes:
        size: side of a tile in pixels.
        rows: top edges of the rows of tiles in pixels.
        columns: left edges of the columns of tiles in pixels.
    """

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
        """Merge the maps [T, h, h] of the tiles, which may be smaller than the tiles, into one of the whole canvas.

        Where tiles overlap, the maps are averaged with weights that grow with the distance from the tile's edge.
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
    """Return the grid of tiles for an image of `height` x `width` pixels.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        size: side of a tile in pixels, a multiple of 4.
        across: number of tiles along the shorter side. Default 1.
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
    """Return an id for each tile of several images that identifies the part of its image it shows.

    Tiles at the same position in grids with equal numbers of rows and columns have the same id.

    Args:
        counts: number of tiles of each image, [n].
        sizes: height and width of each image in pixels, [n, 2].
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
    """Return the numbers of rows and columns of the grid with `count` tiles for an image of `height` x `width`."""
    for across in range(1, MOST_ACROSS + 1):
        tiles = grid(height, width, STEP, across)
        if len(tiles) == count:
            return len(tiles.rows), len(tiles.columns)
    return 1, count


def _places(length: float, count: int, size: int) -> tuple[int, ...]:
    """Return the evenly spaced start positions, in pixels, of `count` tiles that cover `length` (in tiles)."""
    places = np.linspace(0, (length - 1) * size, count)
    return tuple(int(STEP * round(place / STEP)) for place in places)
