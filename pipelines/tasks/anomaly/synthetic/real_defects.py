"""Annotated real anomalies, used in training together with synthetic ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.anomaly.synthetic.blur import blurred
from pipelines.tasks.anomaly.synthetic.shapes import Floats, turned

# Largest displacement of a defect on an object in a fixed position, as a share of the side.
REACH = 1 / 16


@dataclass(frozen=True)
class Annotated:
    """Anomalies as prepared tiles, uint8.

    Attributes:
        located: tiles with a mask, [k, S, S, 3].
        masks: their masks, [k, S, S], 255 where defective.
        unlocated: anomalous tiles without a mask, [m, S, S, 3].
        left_out: number of images that are no use for training.
    """

    located: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    unlocated: NDArray[np.uint8]
    left_out: int = 0

    def paste(self, image: Floats, generator: np.random.Generator, turns: bool) -> None:
        """Paste one of the located defects into `image` [S, S, 3] (0 to 1), its brightness matched to its surroundings.

        With `turns`, at a random place, rotated and mirrored; else close to its own place.
        """
        size = len(image)
        place = generator.integers(len(self.located))
        cut = np.concatenate([self.located[place], self.masks[place][..., None]], axis=-1)
        reach = size // 2 if turns else max(1, round(size * REACH))
        cut = np.roll(turned(cut, generator) if turns else cut, generator.integers(-reach, reach + 1, 2), (0, 1))
        parts: Floats = np.divide(cut, 255, dtype=np.float32)
        pixels, mask = parts[..., :3], parts[..., 3:]
        sound = mask[..., 0] < 0.5
        if sound.any():
            pixels = pixels + (image[sound].mean(axis=0) - pixels[sound].mean(axis=0))
        cover = blurred(mask, size / 128, slice(0, size), slice(0, size))
        image += cover * (pixels - image)
