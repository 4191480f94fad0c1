"""Draws synthetic defects on batches of clean images during training. Requires numpy and scipy only.

A defect is a shape (`shapes`) and a filling (`fills`): a part of another image of the set or of the same image
(Schlüter et al., NSA, ECCV 2022; Li et al., CutPaste, CVPR 2021), a colour, a shade, noise, blur, a dent, or the
surroundings extended into the shape. Rendered defects are sharper and smoother than photographed ones, and a network
that learns this difference misses real defects. Edges are therefore softened, and plain fillings keep some of the grain
of what they cover. Surfaces get no displaced parts of the same image, which would teach the network to find seams, and
no dents, since their grain looks the same when it is warped. Half of the images get one to three defects. If real
defects are annotated, half of all defects are real ones.
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
# The faintest fillings without an interior: least contrast in units of the image's grain (standard deviation, at least
# LEAST_GRAIN, 0 to 1), and least coverage. Fillings with less contrast have full coverage.
FAINTEST, LEAST_GRAIN, LEAST_COVER = 3.0, 0.01, 0.1
# Largest standard deviation of the blur of a defect's edge, in pixels of an image of 128.
SOFTEST = 1.0
# Number of defects of a damaged image; each entry is equally likely.
COUNTS = 1, 1, 2, 3
# The least variance of the mean image, as a share of the variance within images, for a set to count as aligned.
ALIGNED = 0.1
COMPARED = 200


@dataclass(frozen=True, slots=True)
class Defect:
    """The sampled parameters of a defect.

    Attributes:
        filling: kind of filling.
        chosen: parameters of the filling.
        shape: strength of the defect at each pixel, [S, S], 0 to 1.
        where: rows and columns that the shape covers.
        grained: share of the covered grain that is kept, 0 to 1.
        cover: opacity, 0 to 1; for a filling that is not an `area`, 0 is the faintest that is still visible.
        softness: standard deviation of the blur of its edge, in pixels.
    """

    filling: Filling
    chosen: Chosen
    shape: Floats
    where: tuple[slice, slice]
    grained: float
    cover: float
    softness: float

    def draw(self, images: Floats, own: Floats, textures: list[Floats]) -> None:
        """Draw the defect into `own` [S, S, 3], a copy of one of `images` that may have other defects already."""
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
        rows, columns = (grown(part, radius(self.softness), size) for part in where)
        own[rows, columns] += blurred_part(change, self.softness, where, (rows, columns), size)


class Painter:
    """Draws defects on images of `size` pixels a side, determined by `seed` and the generator given.

    `annotated` are real defects to paste as well; with `turns`, anywhere and in any orientation. With `objects`, the
    images show objects on a plain background, and defects are placed on the objects.
    """

    def __init__(
        self, size: int, seed: int, annotated: Annotated | None = None, turns: bool = False, objects: bool = False
    ) -> None:
        self._size = size
        self._shapes = MaskBank(size, seed)
        self._annotated = annotated if annotated is not None and len(annotated.located) else None
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
            elif self._annotated is not None:
                self._annotated.paste(damaged[index], generator, self._turns)
        for index in touched:
            np.clip(damaged[index], 0, 1, out=damaged[index])
        return damaged

    def choose(
        self, count: int, generator: np.random.Generator, image_of: Callable[[int], Floats]
    ) -> Iterator[tuple[int, Defect | None]]:
        """Yield the index of an image, below `count`, and its defect, for each defect; None for an annotated one.

        `image_of` returns the image with an index, in which the object is segmented. The caller pastes an annotated
        defect with the same generator before it takes the next item.
        """
        for index in np.flatnonzero(generator.random(count) < DEFECTIVE_SHARE).tolist():
            where = object_of(image_of(index)) if self._objects else None
            for _ in range(COUNTS[generator.integers(len(COUNTS))]):
                if self._annotated is not None and generator.random() < ANNOTATED_SHARE:
                    yield index, None
                elif (defect := self._chosen(count, where, generator)) is not None:
                    yield index, defect

    def _chosen(self, count: int, objects: NDArray[np.bool_] | None, generator: np.random.Generator) -> Defect | None:
        """Return a defect; None if its shape covers nothing."""
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
    """The sampled augmentation parameters of images [n, S, S, 3].

    Attributes:
        most: largest displacement, in pixels.
        shifts: displacements plus `most`, in pixels, [n, 2], 0 to 2 * most.
        turns: orientations 0 to 7, [n]; None for upright images.
        gains: factors of the brightness, divided by 255, [n].
        offsets: offsets of the brightness, [n].
    """

    most: int
    shifts: NDArray[np.int64]
    turns: list[int] | None
    gains: NDArray[np.float64]
    offsets: NDArray[np.float64]

    @classmethod
    def choose(cls, n: int, size: int, generator: np.random.Generator, turns: bool) -> Views:
        """Sample the parameters for `n` images of `size` pixels a side."""
        most = max(1, size // 24)
        shifts = generator.integers(0, 2 * most + 1, (n, 2))
        turned = [int(generator.integers(8)) for _ in range(n)] if turns else None
        return cls(
            most, shifts, turned, generator.uniform(0.92, 1.08, (n,)) / 255, generator.uniform(-0.03, 0.03, (n,))
        )

    def shown(self, images: NDArray[np.uint8]) -> Floats:
        """Return the augmented images, float32 [n, S, S, 3] in 0 to 1."""
        shown = np.empty(images.shape, np.float32)
        # One image at a time, so that it stays in the CPU cache.
        for index, image in enumerate(self._padded(images)):
            self._show(index, image, shown[index])
        return shown

    def shown_image(self, index: int, image: NDArray[np.uint8]) -> Floats:
        """Return the augmented `image` [S, S, 3], which has this index among all."""
        shown = np.empty(image.shape, np.float32)
        self._show(index, self._padded(image[np.newaxis])[0], shown)
        return shown

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
    """Return uint8 [N, S, S, 3] as float32 in 0 to 1, shifted by up to 4 % and with brightness varied by up to 8 %.

    `turns` (False) also rotates and mirrors them, for surfaces that have no upright orientation.
    """
    return Views.choose(len(images), images.shape[1], generator, turns).shown(images)


def is_aligned(images: Any) -> bool:
    """Return whether the images, uint8 [n, S, S, 3], show an object in a fixed position rather than a surface.

    Compares the variance over positions of the mean image with that of single images: the mean of n images of a texture
    keeps 1/n of it, that of an object in a fixed position most of it.
    """
    chosen = images[spread(len(images), COMPARED)]
    side = chosen.shape[1] // 32
    coarse = chosen.astype(np.float32).mean(axis=-1)[:, : 32 * side, : 32 * side]
    coarse = coarse.reshape(len(chosen), 32, side, 32, side).mean(axis=(2, 4))
    within = coarse.var(axis=(1, 2)).mean()
    return bool(coarse.mean(axis=0).var() > (ALIGNED + 1 / len(chosen)) * within)


def _cover(generator: np.random.Generator) -> float:
    """Sample the opacity of a part of an image: 1 in six of ten cases, else 0.4 to 1."""
    return 1.0 if generator.random() < 0.6 else generator.uniform(0.4, 1)


def _least_cover(change: Floats, shape: Floats, noise: float) -> float:
    """Return the least opacity, at most 1, at which a filling is visible in the image's `noise`.

    `change` [h, w, 3] is the change at full opacity within its `shape` [h, w].
    """
    contrast = float(np.abs(change).sum()) / (3 * max(float(shape.sum()), 1e-3))
    return min(1.0, max(LEAST_COVER, FAINTEST * (noise + LEAST_GRAIN) / max(contrast, 1e-6)))


def _extent(shape: Floats) -> tuple[slice, slice] | None:
    """Return the rows and columns that a shape [S, S] covers; None if it covers nothing."""
    rows, columns = (np.flatnonzero(shape.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
