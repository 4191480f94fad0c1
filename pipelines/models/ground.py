"""Objects on a plain ground: where the object is, so that synthetic defects lie on it and not beside it. numpy only.

The ground is plain where an image's rim has one colour; the object is what differs from that colour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.models.masks import Floats
from pipelines.models.rows import spread

RIM = 1 / 32  # of the side
SAME, OTHER = 0.05, 0.1  # distance of a colour from the ground's, of 1, in the channel that differs most
PLAIN_SHARE = 0.85  # of the rim's pixels that have the ground's colour; an object may reach over the rim
LEAST_OBJECT, MOST_OBJECT = 0.01, 0.75  # of the pixels
AGREEING = 0.8  # of the images
COMPARED = 100
CENTRAL = 0.3  # of a shape's strength: where it is placed by


def on_plain_ground(images: Any) -> bool:
    """Return whether nearly all of the images, uint8 [n, S, S, 3], show an object on a plain ground."""
    chosen = images[spread(len(images), COMPARED)].astype(np.float32) / 255
    return bool(np.mean([_is_plain(image) for image in chosen]) >= AGREEING)


def object_of(image: Floats) -> NDArray[np.bool_]:
    """Return where [S, S] an image [S, S, 3], 0 to 1, differs from the colour that most of its rim has."""
    found: NDArray[np.bool_] = _distance(image, _colour(image)) > OTHER
    return found


def moved_onto(shape: Floats, where: NDArray[np.bool_], generator: np.random.Generator) -> Floats:
    """Return a shape [S, S] moved, one of its strong pixels to a random one of `where` [S, S]; as it is, if none is."""
    strong, places = np.argwhere(shape > CENTRAL), np.argwhere(where)
    if not len(strong) or not len(places):
        return shape
    down, right = places[generator.integers(len(places))] - strong[generator.integers(len(strong))]
    moved = np.zeros_like(shape)
    rows, columns = _overlap(len(shape), int(down)), _overlap(len(shape), int(right))
    moved[rows[1], columns[1]] = shape[rows[0], columns[0]]
    return moved


def _is_plain(image: Floats) -> bool:
    distance = _distance(image, _colour(image))
    covered = float((distance > OTHER).mean())
    return bool((_rim(distance) < SAME).mean() >= PLAIN_SHARE) and LEAST_OBJECT <= covered <= MOST_OBJECT


def _colour(image: Floats) -> Floats:
    colour: Floats = np.median(_rim(image), axis=0)
    return colour


def _rim(plane: Floats) -> Floats:
    wide = max(1, round(RIM * len(plane)))
    parts = (plane[:wide], plane[-wide:], plane[wide:-wide, :wide], plane[wide:-wide, -wide:])
    return np.concatenate([part.reshape(-1, *plane.shape[2:]) for part in parts])


def _distance(image: Floats, colour: Floats) -> Floats:
    distance: Floats = np.abs(image - colour).max(axis=-1)
    return distance


def _overlap(side: int, by: int) -> tuple[slice, slice]:
    """Return which part of a side goes where when it is moved."""
    return slice(max(0, -by), side - max(0, by)), slice(max(0, by), side - max(0, -by))
