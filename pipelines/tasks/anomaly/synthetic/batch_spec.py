"""Samples the augmentation parameters of a training batch on the CPU, as arrays from which `device` renders it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.anomaly.synthetic import fills
from pipelines.tasks.anomaly.synthetic.defects import COUNTS, Defect, Painter, Views
from pipelines.tasks.anomaly.synthetic.fills import EVERY

Recipe = dict[str, NDArray[Any]]
SLOTS = max(COUNTS)
KINDS = (
    *(fills.OF_ANOTHER, fills.DISPLACED, fills.DOUBLED, fills.ERASED, fills.BLURRED, fills.DENTED),
    *(fills.COLOURED, fills.TONED, fills.SHADED, fills.ROUGHENED),
)
NONE = -1
WHOLE = ("kind", "image", "turn", "down", "right", "row", "column", "texture", "rank")
NUMBERS = (
    "sigma",
    "warp",
    "light",
    "angle",
    "red",
    "green",
    "blue",
    "amplitude",
    "factor",
    "grained",
    "cover",
    "softness",
)


def recipe(images: NDArray[np.uint8], painter: Painter, generator: np.random.Generator, turns: bool) -> Recipe:
    """Return the parameters by which `device.painted` augments `images` [N, S, S, 3] and adds defects to them, sampled
    as by `augment` and `Painter.add_defects` with the same generator: arrays whose shapes depend on N and S only.
    """
    count, size = images.shape[:2]
    views = Views.choose(count, size, generator, turns)
    whole = np.zeros((count, SLOTS, len(WHOLE)), np.int32)
    whole[..., 0] = NONE
    numbers = np.zeros((count, SLOTS, len(NUMBERS)), np.float32)
    shapes = np.zeros((count, SLOTS, size, size), np.uint8)
    used = [0] * count
    for index, defect in painter.choose(count, generator, lambda place: views.shown_image(place, images[place])):
        assert defect is not None, "annotated defects are pasted by processors"
        slot = index, used[index]
        whole[slot], numbers[slot] = _encoded(defect, size)
        shapes[slot] = np.round(255 * defect.shape)
        used[index] += 1
    turned = views.turns if views.turns is not None else [0] * count
    return {
        "images": np.asarray(images),
        "moved": np.column_stack([views.shifts - views.most, turned]).astype(np.int32),
        "light": np.column_stack([views.gains, views.offsets]).astype(np.float32),
        "whole": whole,
        "numbers": numbers,
        "shapes": shapes,
    }


def _encoded(defect: Defect, size: int) -> tuple[list[int], list[float]]:
    """Return the parameters of a defect in the order of WHOLE and of NUMBERS."""
    chosen = defect.chosen
    row, column = chosen.place or (NONE, NONE)
    rank = round(chosen.level * (len(range(0, size, EVERY)) ** 2 - 1))
    whole = [
        KINDS.index(defect.filling),
        chosen.image,
        chosen.turn,
        chosen.down,
        chosen.right,
        row,
        column,
        chosen.texture,
        rank,
    ]
    numbers = [chosen.sigma, chosen.warp, chosen.light, chosen.angle, *chosen.colour, chosen.amplitude, chosen.factor]
    return whole, [*numbers, defect.grained, defect.cover, defect.softness]
