"""Segments an object from a plain background, so that synthetic defects lie on the object.

The background is plain if two adjacent sides of an image have a single colour; of a tile, only two sides may belong to
the border of the whole image. The object is what differs from that colour. If most differing pixels are not connected,
they are the grain of a smooth surface, and there are no objects.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from pipelines.tasks.anomaly.synthetic.sampling import spread
from pipelines.tasks.anomaly.synthetic.shapes import Floats

RIM = 1 / 32  # of the side
SAME, OTHER = 0.05, 0.1  # distance (0 to 1) from the background colour, in the channel that differs most
PLAIN_SHARE = 0.85  # of the two sides' pixels that have the background colour; an object may reach over the rim
LEAST_OBJECT, MOST_OBJECT = 0.01, 0.75  # of the pixels: of all images together, and of one
AGREEING = 0.6  # of the images; the middle of three tiles in a row has no corner of the whole image
# Connected components of at least half a side in pixels are parts of an object; of the grain of real asphalt, a tenth
# of the pixels lies in such components.
LEAST_PART, COHERENT = 1 / 2, 0.5
COMPARED = 100
CENTRAL = 0.3  # strength from which on a pixel of a shape may be the one that is moved onto the object


def on_plain_ground(images: Any) -> bool:
    """Return whether most of the images, uint8 [n, S, S, 3], or tiles show an object, or a part of one, on a plain
    background.
    """
    chosen = images[spread(len(images), COMPARED)].astype(np.float32) / 255
    grounds = [(*_ground(image), image) for image in chosen]
    differing = [_distance(image, colour) > OTHER for colour, _, image in grounds]
    plain = [
        share >= PLAIN_SHARE and differs.mean() <= MOST_OBJECT
        for (_, share, _), differs in zip(grounds, differing, strict=True)
    ]
    if np.mean(plain) < AGREEING or np.mean(differing) < LEAST_OBJECT:
        return False
    shown = [differs for differs, counts in zip(differing, plain, strict=True) if counts]
    return bool(sum(map(_connected, shown)) >= COHERENT * np.sum(shown))


def object_of(image: Floats) -> NDArray[np.bool_]:
    """Return the mask [S, S] of the object on an image [S, S, 3], 0 to 1; all True without a plain background."""
    colour, share = _ground(image)
    if share < PLAIN_SHARE:
        return np.ones(image.shape[:2], bool)
    is_object: NDArray[np.bool_] = _distance(image, colour) > OTHER
    return is_object


def moved_onto(shape: Floats, where: NDArray[np.bool_], generator: np.random.Generator) -> Floats:
    """Return `shape` [S, S] moved so that one of its strong pixels lies on a random True pixel of `where` [S, S];
    unchanged if there is no such pixel.
    """
    strong, places = np.flatnonzero(shape > CENTRAL), np.flatnonzero(where)
    if not len(strong) or not len(places):
        return shape
    to, of = (divmod(int(pixels[generator.integers(len(pixels))]), len(shape)) for pixels in (places, strong))
    down, right = to[0] - of[0], to[1] - of[1]
    moved = np.zeros_like(shape)
    rows, columns = _overlap(len(shape), down), _overlap(len(shape), right)
    moved[rows[1], columns[1]] = shape[rows[0], columns[0]]
    return moved


def _ground(image: Floats) -> tuple[Floats, float]:
    """Return the colour [3] of the two adjacent sides that are plainest, and the share of their pixels that has it."""
    wide = max(1, round(RIM * len(image)))
    across, down = (image[:wide], image[-wide:]), (image[:, :wide], image[:, -wide:])
    best: tuple[Floats, float] = (np.zeros(3, np.float32), -1.0)
    for horizontal in across:
        for vertical in down:
            sides = np.concatenate([horizontal.reshape(-1, 3), vertical.reshape(-1, 3)])
            colour: Floats = np.median(sides, axis=0)
            share = float((_distance(sides, colour) < SAME).mean())
            if share > best[1]:
                best = colour, share
    return best


def _distance(image: Floats, colour: Floats) -> Floats:
    red, green, blue = np.moveaxis(np.abs(image - colour), -1, 0)
    distance: Floats = np.maximum(np.maximum(red, green), blue)
    return distance


def _connected(differing: NDArray[np.bool_]) -> int:
    """Return the number of pixels of a mask [S, S] that lie in connected components of at least half a side."""
    labels, _ = label(differing)
    sizes = np.bincount(labels.ravel())[1:]
    return int(sizes[sizes >= LEAST_PART * len(differing)].sum())


def _overlap(side: int, by: int) -> tuple[slice, slice]:
    """Return the source and the target range of a side moved by `by` pixels."""
    return slice(max(0, -by), side - max(0, by)), slice(max(0, by), side - max(0, -by))
