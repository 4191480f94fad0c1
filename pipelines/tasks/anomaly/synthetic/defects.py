"""Synthetic defects, drawn on the fly on batches of clean images, for the network to remove and to find. numpy and
scipy only.

A defect is a shape (`models.masks`) and a filling (`models.fillings`): a part of another image of the set or of the
same one (Schlüter et al., NSA, ECCV 2022; Li et al., CutPaste, CVPR 2021), one colour, a shade, noise, blur, a dent, or
the surroundings drawn in, so that what was there is gone. A drawn defect is sharper and smoother than anything that
came through a lens; a network that learns to see that finds no real one. So its edges are softened, and what has one
colour keeps some of the grain of what it covers. A surface is not damaged by another part of itself: whoever has to
find that learns to see seams; nor is its grain another when it is drawn apart. Half of the images get one to three
defects. Where people have annotated real ones, every other defect is one of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.anomaly.synthetic.blur import blurred_part, grown, radius
from pipelines.tasks.anomaly.synthetic.fills import FILLINGS, OF_SURFACES, Canvas, Chosen, Filling, textures
from pipelines.tasks.anomaly.synthetic.foreground import moved_onto, object_of
from pipelines.tasks.anomaly.synthetic.real_defects import Annotated
from pipelines.tasks.anomaly.synthetic.sampling import spread
from pipelines.tasks.anomaly.synthetic.shapes import Floats, MaskBank, oriented

DEFECTIVE_SHARE = 0.5
ANNOTATED_SHARE = 0.5
# How faint a colour, a shade or noise is drawn at most: contrast of so many times the image's grain, of which there is
# so much at least, 0 to 1, and so much of full cover. What has less contrast by itself covers wholly.
FAINTEST, LEAST_GRAIN, LEAST_COVER = 3.0, 0.01, 0.1
# How far a defect is blurred at most, in pixels of an image of 128.
SOFTEST = 1.0
# How many defects a damaged image has: each as likely.
COUNTS = 1, 1, 2, 3
# Of the variance within an image, how much the mean image must keep for the set to count as aligned.
ALIGNED = 0.1
COMPARED = 200


@dataclass(frozen=True, slots=True)
class Defect:
    """What chance decided of one defect: a filling where the `shape` [S, S] is, in the rows and columns `where`, its
    edge softened by `softness` pixels.

    `grained`, 0 to 1, is how much of the grain of what it covers is kept. `cover` is how far it covers that, 1 being
    wholly; for a filling that is no `area`, 0 is as faint as can just be seen.
    """

    filling: Filling
    chosen: Chosen
    shape: Floats
    where: tuple[slice, slice]
    grained: float
    cover: float
    softness: float

    def draw(self, images: Floats, own: Floats, textures: list[Floats]) -> None:
        """Draw it into `own` [S, S, 3], one of `images` that may have other defects already."""
        size, where, shape = len(own), self.where, self.shape[self.where]
        canvas = Canvas(images, own, self.shape, where, textures)
        filled = self.filling.fill(canvas, self.chosen)
        if self.filling.smooth:
            filled = filled + np.float32(self.grained) * canvas.grain
        change = shape[..., None] * (filled - own[where])
        cover = self.cover
        if not self.filling.area:
            faintest = np.log(_least_cover(change, shape, canvas.noise()))
            cover = float(np.exp(faintest + (0 - faintest) * cover))
        change *= np.float32(cover)
        rows, columns = (grown(one, radius(self.softness), size) for one in where)
        own[rows, columns] += blurred_part(change, self.softness, where, (rows, columns), size)


class Painter:
    """Paints defects on images of `size` pixels a side; what it paints follows from `seed` and the generator given.

    `known` are real ones to paste in, too; with `turns`, anywhere and in any orientation. With `objects`, the images
    show objects on a plain ground, and defects lie on those.
    """

    def __init__(
        self, size: int, seed: int, known: Annotated | None = None, turns: bool = False, objects: bool = False
    ) -> None:
        self._size = size
        self._shapes = MaskBank(size, seed)
        self._known = known if known is not None and len(known.located) else None
        self._turns = turns
        self._objects = objects
        self._fillings = OF_SURFACES if turns and not objects else FILLINGS
        self.textures = textures(size, np.random.default_rng([seed, 4]))

    def add_defects(self, images: Floats, generator: np.random.Generator) -> Floats:
        """Return a copy of `images` [N, S, S, 3] (0 to 1) of which half have one to three defects."""
        damaged, touched = images.copy(), set()
        for index, defect in self.choose(len(images), generator, lambda index: images[index]):
            touched.add(index)
            if defect is not None:
                defect.draw(images, damaged[index], self.textures)
            elif self._known is not None:
                self._known.paste(damaged[index], generator, self._turns)
        for index in touched:
            np.clip(damaged[index], 0, 1, out=damaged[index])
        return damaged

    def choose(
        self, count: int, generator: np.random.Generator, image_of: Callable[[int], Floats]
    ) -> Iterator[tuple[int, Defect | None]]:
        """Yield which of `count` images have a defect, and that, one after the other; None for a known one.

        `image_of` returns one of the images, where it has to be looked for the object. A known one is to be pasted, by
        the same generator, before the next is asked for.
        """
        for index in np.flatnonzero(generator.random(count) < DEFECTIVE_SHARE).tolist():
            where = object_of(image_of(index)) if self._objects else None
            for _ in range(COUNTS[generator.integers(len(COUNTS))]):
                if self._known is not None and generator.random() < ANNOTATED_SHARE:
                    yield index, None
                elif (defect := self._chosen(count, where, generator)) is not None:
                    yield index, defect

    def _chosen(self, count: int, objects: NDArray[np.bool_] | None, generator: np.random.Generator) -> Defect | None:
        """Return a defect, if the shape covers anything."""
        filling = self._fillings[generator.integers(len(self._fillings))]
        shape = self._shapes.shape(generator, filling.area)
        if objects is not None:
            shape = moved_onto(shape, objects, generator)
        where = _extent(shape)
        if where is None:
            return None
        chosen = filling.choose(generator, self._size, count)
        grained = generator.uniform(0, 1) if filling.smooth else 0.0
        cover = _cover(generator) if filling.area else generator.uniform(0, 1)
        softness = generator.uniform(0, SOFTEST) * self._size / 128
        return Defect(filling, chosen, shape, where, grained, cover, softness)


@dataclass(frozen=True)
class Views:
    """What chance decided of how images [n, S, S, 3] are shown: `shifts` [n, 2], 0 to twice `most`, in pixels; `turns`,
    orientations [n], or None; `gains`, per level of 255, and `offsets` [n].
    """

    most: int
    shifts: NDArray[np.int64]
    turns: list[int] | None
    gains: NDArray[np.float64]
    offsets: NDArray[np.float64]

    @classmethod
    def choose(cls, n: int, size: int, generator: np.random.Generator, turns: bool) -> Views:
        """Return such for `n` images of `size` pixels a side."""
        most = max(1, size // 24)
        shifts = generator.integers(0, 2 * most + 1, (n, 2))
        turned = [int(generator.integers(8)) for _ in range(n)] if turns else None
        return cls(
            most, shifts, turned, generator.uniform(0.92, 1.08, (n,)) / 255, generator.uniform(-0.03, 0.03, (n,))
        )

    def shown(self, images: NDArray[np.uint8]) -> Floats:
        """Return the images as they are shown, float32 in 0 to 1."""
        found = np.empty(images.shape, np.float32)
        # One image at a time, which stays in the processor's cache.
        for index, image in enumerate(self._padded(images)):
            self._show(index, image, found[index])
        return found

    def shown_one(self, index: int, image: NDArray[np.uint8]) -> Floats:
        """Return the image [S, S, 3] that has this place among all as it is shown."""
        found = np.empty(image.shape, np.float32)
        self._show(index, self._padded(image[np.newaxis])[0], found)
        return found

    def _padded(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.pad(images, ((0, 0), (self.most, self.most), (self.most, self.most), (0, 0)), mode="symmetric")

    def _show(self, index: int, padded: NDArray[np.uint8], out: Floats) -> None:
        size, (down, right) = len(out), self.shifts[index]
        view = padded[down : down + size, right : right + size]
        if self.turns is not None:
            view = oriented(view, self.turns[index])
        np.multiply(view, np.float32(self.gains[index]), out=out)
        out += np.float32(self.offsets[index])
        np.clip(out, 0, 1, out=out)


def augment(images: NDArray[np.uint8], generator: np.random.Generator, turns: bool = False) -> Floats:
    """Return uint8 [N, S, S, 3] as float32 in 0 to 1, displaced by up to 4 % and with light varied by up to 8 %.

    `turns` also turns and mirrors them, for surfaces that have no upright.
    """
    return Views.choose(len(images), images.shape[1], generator, turns).shown(images)


def is_aligned(images: Any) -> bool:
    """Return whether the images, uint8 [n, S, S, 3], show something in one place rather than a surface.

    Compared is the variance over positions of the mean image with that of single images: n images of a texture keep
    1/n of it, an object in a fixed place keeps most.
    """
    chosen = images[spread(len(images), COMPARED)]
    side = chosen.shape[1] // 32
    coarse = chosen.astype(np.float32).mean(axis=-1)[:, : 32 * side, : 32 * side]
    coarse = coarse.reshape(len(chosen), 32, side, 32, side).mean(axis=(2, 4))
    within = coarse.var(axis=(1, 2)).mean()
    return bool(coarse.mean(axis=0).var() > (ALIGNED + 1 / len(chosen)) * within)


def _cover(generator: np.random.Generator) -> float:
    """Return how far a part of an image covers what was there: mostly wholly."""
    return 1.0 if generator.random() < 0.6 else generator.uniform(0.4, 1)


def _least_cover(change: Floats, shape: Floats, noise: float) -> float:
    """Return how far a filling must cover what was there to be seen in the image's `noise`, at most 1.

    `change` [h, w, 3] is what it changes when it covers what is in its shape [h, w] wholly.
    """
    contrast = float(np.abs(change).sum()) / (3 * max(float(shape.sum()), 1e-3))
    return min(1.0, max(LEAST_COVER, FAINTEST * (noise + LEAST_GRAIN) / max(contrast, 1e-6)))


def _extent(shape: Floats) -> tuple[slice, slice] | None:
    """Return the rows and columns of what a shape [S, S] covers; None, if it covers nothing."""
    rows, columns = (np.flatnonzero(shape.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
