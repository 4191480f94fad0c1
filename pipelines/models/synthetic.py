"""Synthetic defects, drawn on the fly on batches of clean images, for the network to remove and to find. numpy and
scipy only.

A defect is a shape (`pipelines.models.masks`) and a filling: a part of another image of the set or of the same one
(Schlüter et al., NSA, ECCV 2022; Li et al., CutPaste, CVPR 2021), one colour, a shade, noise, blur, or the
surroundings drawn in, so that what was there is gone. A drawn defect is sharper and smoother than anything that came
through a lens; a network that learns to see that finds no real one. So its edges are softened, and what has one colour
keeps some of the grain of what it covers. A surface is not damaged by another part of itself: whoever has
to find that learns to see seams. Half of the images get one to three defects. Where people have annotated real ones,
every other defect is one of those.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipelines.models.annotated import Annotated
from pipelines.models.ground import moved_onto, object_of
from pipelines.models.masks import Floats, MaskBank, smooth_noise, turned
from pipelines.models.rows import spread

DEFECTIVE_SHARE = 0.5
ANNOTATED_SHARE = 0.5
FAINTEST = 0.55
# How far a defect is blurred at most, in pixels of an image of 128, and what counts as grain.
SOFTEST, GRAIN = 1.0, 1.5
TEXTURES = 64
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
            for _ in range(int(generator.choice([1, 1, 2, 3]))):
                if self._known is not None and generator.random() < ANNOTATED_SHARE:
                    self._known.paste(damaged[index], generator, self._turns)
                    continue
                fill, wants_area = fillings[generator.integers(len(fillings))]
                shape = self._shapes.shape(generator, wants_area)
                if where is not None:
                    shape = moved_onto(shape, where, generator)
                canvas = _Canvas(images, damaged[index], shape, self._textures)
                filling = fill(canvas, generator)
                if fill in _SMOOTH:
                    filling = filling + np.float32(generator.uniform(0, 1)) * canvas.grain()
                cover = (shape * np.float32(_opacity(wants_area, generator)))[..., None]
                sigma = generator.uniform(0, SOFTEST) * self._size / 128
                damaged[index] += gaussian_filter(cover * (filling - damaged[index]), (sigma, sigma, 0))
        return np.clip(damaged, 0, 1, out=damaged)


class _Canvas:
    """What a filling may take from: all images, the one to be damaged, and the shape of the defect."""

    def __init__(self, images: Floats, own: Floats, shape: Floats, textures: list[Floats]) -> None:
        self.images, self.own, self.shape, self.textures = images, own, shape, textures
        self.size = len(own)

    def grain(self) -> Floats:
        """Return the fine structure of the image that is to be damaged."""
        sigma = GRAIN * self.size / 128
        return self.own - gaussian_filter(self.own, (sigma, sigma, 0))


def augment(images: NDArray[np.uint8], generator: np.random.Generator, turns: bool = False) -> Floats:
    """Return uint8 [N, S, S, 3] as float32 in 0 to 1, displaced by up to 4 % and with light varied by up to 8 %.

    `turns` also turns and mirrors them, for surfaces that have no upright.
    """
    n, size = images.shape[:2]
    reach = max(1, size // 24)
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    moved = np.empty((n, size, size, 3), np.float32)
    for index, (down, right) in enumerate(generator.integers(0, 2 * reach + 1, (n, 2))):
        view = padded[index, down : down + size, right : right + size]
        moved[index] = turned(view, generator) if turns else view
    gain = generator.uniform(0.92, 1.08, (n, 1, 1, 1)).astype(np.float32)
    offset = generator.uniform(-0.03, 0.03, (n, 1, 1, 1)).astype(np.float32)
    return np.clip(moved / 255 * gain + offset, 0, 1)


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


def _opacity(area: bool, generator: np.random.Generator) -> float:
    """Return how far a filling covers what was there; a part of an image mostly covers it wholly."""
    if area:
        return 1.0 if generator.random() < 0.6 else generator.uniform(0.4, 1)
    return float(np.exp(generator.uniform(np.log(FAINTEST), 0)))


def _of_another(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    other = turned(canvas.images[generator.integers(len(canvas.images))], generator)
    return np.roll(other, generator.integers(canvas.size, size=2), (0, 1))


def _displaced(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    reach = canvas.size // 4
    return np.roll(turned(canvas.own, generator), generator.integers(-reach, reach + 1, 2), (0, 1))


def _doubled(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    distance, turn = canvas.size * generator.uniform(0.03, 0.2), generator.uniform(0, 2 * np.pi)
    return np.roll(canvas.own, (int(distance * np.sin(turn)), int(distance * np.cos(turn))), (0, 1))


def _erased(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    """What surrounds the shape, drawn into it: normalised convolution (Knutsson and Westin, CVPR 1993)."""
    kept = (canvas.shape < 0.05).astype(np.float32)
    sigma = canvas.size / 128 * generator.uniform(3, 9)
    weight = gaussian_filter(kept, sigma)[..., None]
    return gaussian_filter(canvas.own * kept[..., None], (sigma, sigma, 0)) / (weight + 1e-3)


def _blurred(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    sigma = canvas.size / 128 * generator.uniform(1, 5)
    return gaussian_filter(canvas.own, (sigma, sigma, 0))


def _colour(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    """One colour, mostly not far from those of the image, plain or grained."""
    if generator.random() < 0.6:
        row, column = generator.integers(canvas.size, size=2)
        colour = canvas.own[row, column] + generator.normal(0, 0.15, 3)
    elif generator.random() < 0.5:
        colour = generator.uniform(0, 1, 3)
    else:
        colour = np.full(3, generator.uniform(0, 1))
    grain = canvas.textures[generator.integers(len(canvas.textures))] * np.float32(generator.choice([0, 0.03, 0.08]))
    return colour.astype(np.float32) + grain[..., None]


def _tone(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    """A dark or a light tone that the image itself reaches, in some places at most."""
    grey = canvas.own.mean(axis=-1)
    if generator.random() < 0.7:
        level, factor = generator.uniform(0.001, 0.15), generator.uniform(0.5, 1.0)
    else:
        level, factor = generator.uniform(0.85, 0.999), generator.uniform(1.0, 1.4)
    tone = np.quantile(grey[::2, ::2], level)
    colour = canvas.own.mean(axis=(0, 1)) * (factor * tone / max(float(grey.mean()), 0.02))
    return np.broadcast_to(colour, canvas.own.shape).astype(np.float32)


def _shade(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    factor = np.exp(generator.choice([-1, -1, 1]) * generator.uniform(0.1, 1.2))
    tint = 1 + generator.normal(0, 0.08, 3) if generator.random() < 0.4 else np.ones(3)
    return canvas.own * (factor * tint).astype(np.float32)


def _noise(canvas: _Canvas, generator: np.random.Generator) -> Floats:
    grain = canvas.textures[generator.integers(len(canvas.textures))]
    return canvas.own + (grain * np.float32(generator.uniform(0.05, 0.25)))[..., None]


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
