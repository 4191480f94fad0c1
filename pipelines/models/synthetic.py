"""Synthetic defects, drawn on the fly on batches of clean images, for the network to remove and to find. numpy and
scipy only.

A defect is a shape (`pipelines.models.masks`) and a filling: a part of another image of the set or of the same one
(Schlüter et al., NSA, ECCV 2022; Li et al., CutPaste, CVPR 2021), one colour, a shade, noise, blur, a dent, or the
surroundings drawn in, so that what was there is gone. A drawn defect is sharper and smoother than anything that came
through a lens; a network that learns to see that finds no real one. So its edges are softened, and what has one colour
keeps some of the grain of what it covers. A surface is not damaged by another part of itself: whoever has to find that
learns to see seams; nor is its grain another when it is drawn apart. Half of the images get one to three defects. Where
people have annotated real ones, every other defect is one of those.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.models.annotated import Annotated
from pipelines.models.blur import blurred, blurred_part, grown, radius
from pipelines.models.ground import moved_onto, object_of
from pipelines.models.masks import Floats, MaskBank, smooth_noise, turned
from pipelines.models.rows import spread

DEFECTIVE_SHARE = 0.5
ANNOTATED_SHARE = 0.5
# How faint a colour, a shade or noise is drawn at most: contrast of so many times the image's grain, of which there is
# so much at least, 0 to 1, and so much of full cover. What has less contrast by itself covers wholly.
FAINTEST, LEAST_GRAIN, LEAST_COVER = 3.0, 0.01, 0.1
# How far a defect is blurred at most, in pixels of an image of 128, and what counts as grain.
SOFTEST, GRAIN = 1.0, 1.5
TEXTURES = 64
# How many defects a damaged image has: each as likely.
_COUNTS = 1, 1, 2, 3
GREY = np.full(3, 1 / 3, np.float32)
# Of the variance within an image, how much the mean image must keep for the set to count as aligned.
ALIGNED = 0.1
COMPARED = 200


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
        generator = np.random.default_rng([seed, 4])
        self._textures = [_texture(size, generator) for _ in range(TEXTURES)]

    def add_defects(self, images: Floats, generator: np.random.Generator) -> Floats:
        """Return a copy of `images` [N, S, S, 3] (0 to 1) of which half have one to three defects."""
        damaged, fillings = images.copy(), _OF_SURFACES if self._turns and not self._objects else _FILLINGS
        for index in np.flatnonzero(generator.random(len(images)) < DEFECTIVE_SHARE):
            where = object_of(images[index]) if self._objects else None
            for _ in range(_COUNTS[generator.integers(len(_COUNTS))]):
                if self._known is not None and generator.random() < ANNOTATED_SHARE:
                    self._known.paste(damaged[index], generator, self._turns)
                    continue
                fill, wants_area = fillings[generator.integers(len(fillings))]
                shape = self._shapes.shape(generator, wants_area)
                if where is not None:
                    shape = moved_onto(shape, where, generator)
                self._cover(images, damaged[index], shape, fill, wants_area, generator)
            np.clip(damaged[index], 0, 1, out=damaged[index])
        return damaged

    def _cover(
        self,
        images: Floats,
        own: Floats,
        shape: Floats,
        fill: Callable[[_Canvas, np.random.Generator], Floats],
        area: bool,
        generator: np.random.Generator,
    ) -> None:
        """Draw a defect into `own` [S, S, 3]: a filling where the shape [S, S] is, its edge softened."""
        where = _extent(shape)
        if where is None:
            return
        canvas = _Canvas(images, own, shape, where, self._textures)
        filling = fill(canvas, generator)
        if fill in _SMOOTH:
            filling = filling + np.float32(generator.uniform(0, 1)) * canvas.grain
        change = shape[where][..., None] * (filling - own[where])
        least = None if area else _least_cover(change, shape[where], canvas.noise())
        change *= np.float32(_opacity(generator, least))
        sigma = generator.uniform(0, SOFTEST) * self._size / 128
        wide = grown(where[0], radius(sigma), self._size), grown(where[1], radius(sigma), self._size)
        own[wide] += blurred_part(change, sigma, where, wide, self._size)


class _Canvas:
    """What a filling may take from: all images, the one to be damaged, the shape of the defect, and the rows and
    columns to be filled.
    """

    def __init__(
        self, images: Floats, own: Floats, shape: Floats, where: tuple[slice, slice], textures: list[Floats]
    ) -> None:
        self.images, self.own, self.shape, self.where, self._textures = images, own, shape, where, textures
        self.size = len(own)

    def rolled(self, image: Floats, down: int, right: int) -> Floats:
        """Return what comes to lie where the defect is when an image [S, S, 3] is moved; what leaves it comes in again
        on the other side.
        """
        rows, columns = self.where
        lines = image[np.arange(rows.start - down, rows.stop - down) % self.size]
        return lines[:, np.arange(columns.start - right, columns.stop - right) % self.size]

    def texture(self, generator: np.random.Generator) -> Floats:
        """Return one of the textures [h, w] where the defect is."""
        return self._textures[generator.integers(len(self._textures))][self.where]

    def blurred(self, sigma: float) -> Floats:
        """Return the image that is to be damaged, blurred by `sigma` pixels of an image of 128, where the defect is."""
        return blurred(self.own, sigma * self.size / 128, *self.where)

    @cached_property
    def grain(self) -> Floats:
        """The fine structure [h, w, 3] of the image that is to be damaged, where the defect is."""
        return self.own[self.where] - blurred(self.own, GRAIN * self.size / 128, *self.where, often=True)

    def noise(self) -> float:
        """Return the standard deviation of the grey fine structure where the defect is."""
        return float((self.grain.reshape(-1, 3) @ GREY).std())


def augment(images: NDArray[np.uint8], generator: np.random.Generator, turns: bool = False) -> Floats:
    """Return uint8 [N, S, S, 3] as float32 in 0 to 1, displaced by up to 4 % and with light varied by up to 8 %.

    `turns` also turns and mirrors them, for surfaces that have no upright.
    """
    n, size = images.shape[:2]
    most = max(1, size // 24)
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="symmetric")
    shifts = generator.integers(0, 2 * most + 1, (n, 2))
    views = [padded[index, down : down + size, right : right + size] for index, (down, right) in enumerate(shifts)]
    if turns:
        views = [turned(view, generator) for view in views]
    gains, offsets = generator.uniform(0.92, 1.08, (n,)) / 255, generator.uniform(-0.03, 0.03, (n,))
    moved = np.empty((n, size, size, 3), np.float32)
    # One image at a time, which stays in the processor's cache.
    for image, view, gain, offset in zip(moved, views, gains, offsets, strict=True):
        np.multiply(view, np.float32(gain), out=image)
        image += np.float32(offset)
        np.clip(image, 0, 1, out=image)
    return moved


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


def _opacity(generator: np.random.Generator, least: float | None) -> float:
    """Return how far a filling covers what was there: `least` or more; a part of an image, which has none, mostly
    wholly.
    """
    if least is None:
        return 1.0 if generator.random() < 0.6 else generator.uniform(0.4, 1)
    return float(np.exp(generator.uniform(np.log(least), 0)))


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


def _of_another(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    other = turned(canvas.images[generator.integers(len(canvas.images))], generator)
    return canvas.rolled(other, *generator.integers(canvas.size, size=2))


def _displaced(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    far = canvas.size // 4
    return canvas.rolled(turned(canvas.own, generator), *generator.integers(-far, far + 1, 2))


def _doubled(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    distance, turn = canvas.size * generator.uniform(0.03, 0.2), generator.uniform(0, 2 * np.pi)
    return canvas.rolled(canvas.own, int(distance * np.sin(turn)), int(distance * np.cos(turn)))


def _erased(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    """What surrounds the shape, drawn into it: normalised convolution (Knutsson and Westin, CVPR 1993)."""
    kept = (canvas.shape < 0.05).astype(np.float32)[..., None]
    sigma = canvas.size / 128 * generator.uniform(3, 9)
    seen = blurred(np.concatenate([canvas.own * kept, kept], axis=-1), sigma, *canvas.where)
    return seen[..., :3] / (seen[..., 3:] + np.float32(1e-3))


def _blurred(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    return canvas.blurred(generator.uniform(1, 5))


def _dented(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    """The image drawn together or apart along the slope of the shape, lighter on one side and darker on the other."""
    rows, columns = canvas.where
    height = canvas.shape[..., None]
    sigma = canvas.size / 128 * generator.uniform(1.5, 5)
    down, right = np.gradient(blurred(height, sigma, slice(0, canvas.size), slice(0, canvas.size))[..., 0])
    down, right = down[canvas.where], right[canvas.where]
    steepest = float(np.sqrt(np.square(down) + np.square(right)).max()) + 1e-6
    by = canvas.size / 128 * generator.uniform(1, 5) * generator.choice([-1, 1]) / steepest
    at = np.mgrid[rows, columns].astype(np.float32)
    warped = _sampled(canvas.own, at[0] + by * down, at[1] + by * right)
    turn = generator.uniform(0, 2 * np.pi)
    light = (down * np.sin(turn) + right * np.cos(turn)) * (generator.uniform(0, 0.5) / steepest)
    return warped * (1 + light.astype(np.float32))[..., None]


def _sampled(image: Floats, rows: NDArray[np.floating], columns: NDArray[np.floating]) -> Floats:
    """Return the values [h, w, 3] of an image between its pixels, bilinearly."""
    last = len(image) - 1
    rows, columns = np.clip(rows, 0, last), np.clip(columns, 0, last)
    top, left = (np.minimum(one.astype(np.intp), last - 1) for one in (rows, columns))
    down, right = ((one - low).astype(np.float32)[..., None] for one, low in ((rows, top), (columns, left)))
    above = image[top, left] * (1 - right) + image[top, left + 1] * right
    below = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    found: Floats = above * (1 - down) + below * down
    return found


def _colour(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    """One colour, mostly not far from those of the image, plain or grained."""
    if generator.random() < 0.6:
        row, column = generator.integers(canvas.size, size=2)
        colour = canvas.own[row, column] + generator.normal(0, 0.15, 3)
    elif generator.random() < 0.5:
        colour = generator.uniform(0, 1, 3)
    else:
        colour = np.full(3, generator.uniform(0, 1))
    grain = canvas.texture(generator) * np.float32(generator.choice([0, 0.03, 0.08]))
    return colour.astype(np.float32) + grain[..., None]


def _tone(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    """A dark or a light tone that the image itself reaches, in some places at most."""
    some = canvas.own[::2, ::2].reshape(-1, 3)
    grey = some @ GREY
    if generator.random() < 0.7:
        level, factor = generator.uniform(0.001, 0.15), generator.uniform(0.5, 1.0)
    else:
        level, factor = generator.uniform(0.85, 0.999), generator.uniform(1.0, 1.4)
    place = round(level * (len(grey) - 1))
    colour = some.mean(axis=0) * (factor * np.partition(grey, place)[place] / max(float(grey.mean()), 0.02))
    return colour.astype(np.float32)


def _shade(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    factor = np.exp(generator.choice([-1, -1, 1]) * generator.uniform(0.1, 1.2))
    tint = 1 + generator.normal(0, 0.08, 3) if generator.random() < 0.4 else np.ones(3)
    return canvas.own[canvas.where] * (factor * tint).astype(np.float32)


def _noise(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    return canvas.own[canvas.where] + (canvas.texture(generator) * np.float32(generator.uniform(0.05, 0.25)))[..., None]


def _texture(size: int, generator: np.random.Generator) -> Floats:
    """Return noise [size, size] of standard deviation 1, coarse or fine."""
    cells = min(size // 2, int(2 ** generator.integers(3, 8)))
    noise = smooth_noise(size, cells, generator) + smooth_noise(size, cells, generator)
    return (noise / (noise.std() + 1e-6)).astype(np.float32)


# Each with whether it wants a shape that has an inside: what is copied or erased does not show in a line.
_FILLINGS = (
    (_of_another, True),
    (_of_another, True),
    (_displaced, True),
    (_doubled, True),
    (_erased, True),
    (_erased, True),
    (_blurred, True),
    (_dented, True),
    (_colour, False),
    (_tone, False),
    (_tone, False),
    (_shade, False),
    (_shade, False),
    (_noise, False),
)
_OF_SURFACES = (
    (_of_another, True),
    (_erased, True),
    (_blurred, True),
    (_colour, False),
    (_tone, False),
    (_tone, False),
    (_tone, False),
    (_shade, False),
    (_shade, False),
    (_noise, False),
)
# What has no structure of its own.
_SMOOTH = (_colour, _tone)
