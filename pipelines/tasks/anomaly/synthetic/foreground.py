"""Objects on a plain ground: where the object is, so that synthetic defects lie on it and not beside it.

The ground is plain where two sides of an image that meet in a corner have one colour: of a tile, only those may be the
whole image's own. The object is what differs from that colour. Where most of what differs does not hang together, it is
the grain of a smooth surface, and there are no objects.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from pipelines.tasks.anomaly.synthetic.sampling import spread
from pipelines.tasks.anomaly.synthetic.shapes import Floats

RIM = 1 / 32  # of the side
SAME, OTHER = 0.05, 0.1  # distance of a colour from the ground's, of 1, in the channel that differs most
PLAIN_SHARE = 0.85  # of the two sides' pixels that have the ground's colour; an object may reach over the rim
LEAST_OBJECT, MOST_OBJECT = 0.01, 0.75  # of the pixels: of all images together, and of one
AGREEING = 0.6  # of the images; the middle one of three tiles in a row has no corner of the whole
# Connected pixels are a part of an object from half a side's worth on; of real asphalt's grain, a tenth lies in such.
LEAST_PART, COHERENT = 1 / 2, 0.5
COMPARED = 100
CENTRAL = 0.3  # of a shape's strength: where it is placed by


def on_plain_ground(images: Any) -> bool:
    """Return whether most of the images, uint8 [n, S, S, 3], or tiles show an object, or a part of one, on a plain
    ground.
    """
    chosen = images[spread(len(images), COMPARED)].astype(np.float32) / 255
    found = [(*_ground(image), image) for image in chosen]
    differing = [_distance(image, colour) > OTHER for colour, _, image in found]
    plain = [
        share >= PLAIN_SHARE and one.mean() <= MOST_OBJECT for (_, share, _), one in zip(found, differing, strict=True)
    ]
    if np.mean(plain) < AGREEING or np.mean(differing) < LEAST_OBJECT:
        return False
    shown = [one for one, counts in zip(differing, plain, strict=True) if counts]
    return bool(sum(map(_connected, shown)) >= COHERENT * np.sum(shown))


def object_of(image: Floats) -> NDArray[np.bool_]:
    """Return where [S, S] an image [S, S, 3], 0 to 1, differs from the ground's colour; everywhere, if none is seen."""
    colour, share = _ground(image)
    if share < PLAIN_SHARE:
        return np.ones(image.shape[:2], bool)
    found: NDArray[np.bool_] = _distance(image, colour) > OTHER
    return found


def moved_onto(shape: Floats, where: NDArray[np.bool_], generator: np.random.Generator) -> Floats:
    """Return a shape [S, S] moved, one of its strong pixels to a random one of `where` [S, S]; as it is, if none is."""
    strong, places = np.flatnonzero(shape > CENTRAL), np.flatnonzero(where)
    if not len(strong) or not len(places):
        return shape
    to, of = (divmod(int(one[generator.integers(len(one))]), len(shape)) for one in (places, strong))
    down, right = to[0] - of[0], to[1] - of[1]
    moved = np.zeros_like(shape)
    rows, columns = _overlap(len(shape), down), _overlap(len(shape), right)
    moved[rows[1], columns[1]] = shape[rows[0], columns[0]]
    return moved


def _ground(image: Floats) -> tuple[Floats, float]:
    """Return the colour [3] that the plainest two sides with a common corner have, and which share of them has it."""
    wide = max(1, round(RIM * len(image)))
    across, down = (image[:wide], image[-wide:]), (image[:, :wide], image[:, -wide:])
    best: tuple[Floats, float] = (np.zeros(3, np.float32), -1.0)
    for one in across:
        for other in down:
            sides = np.concatenate([one.reshape(-1, 3), other.reshape(-1, 3)])
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
    """Return how many of the pixels [S, S] that differ from the ground lie in connected parts of a size."""
    labels, _ = label(differing)
    sizes = np.bincount(labels.ravel())[1:]
    return int(sizes[sizes >= LEAST_PART * len(differing)].sum())


def _overlap(side: int, by: int) -> tuple[slice, slice]:
    """Return which part of a side goes where when it is moved."""
    return slice(max(0, -by), side - max(0, by)), slice(max(0, by), side - max(0, -by))
