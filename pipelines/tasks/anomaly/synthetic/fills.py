"""The fillings of synthetic defects: for each kind, a sampler of its parameters and a renderer. Requires numpy only.

Sampling and rendering are separate so that a GPU can render what is sampled here (`device`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.anomaly.synthetic.blur import blurred
from pipelines.tasks.anomaly.synthetic.shapes import Floats, oriented, smooth_noise

TEXTURES = 64
GREY = np.full(3, 1 / 3, np.float32)
GRAIN = 1.5  # standard deviation of the blur that removes the grain, in pixels of an image of 128
INSIDE = 0.05  # the strength of a shape from which on a pixel is erased
# Tone is computed on a 2x subsampled image, whose mean counts as DARKEST at least.
EVERY, DARKEST = 2, 0.02


@dataclass(frozen=True, slots=True)
class Chosen:
    """The sampled parameters of a filling; parameters that its kind does not use keep their defaults.

    Attributes:
        image: index in the batch of the image a part is copied from; -1 for the damaged image itself.
        turn: orientation of that image, 0 to 7 (`shapes.oriented`).
        down: displacement of that image, in pixels.
        right: displacement of that image, in pixels.
        sigma: standard deviation of a blur, in pixels of an image of 128.
        warp: largest displacement by a dent, in pixels of an image of 128.
        light: amplitude of a dent's shading, as a share of the brightness.
        angle: direction of the light on a dent, in radians.
        place: row and column of the pixel whose colour `colour` is added to; None for `colour` itself.
        colour: RGB offset or colour, or the factors of a shade.
        texture: index of a texture.
        amplitude: standard deviation of the texture, 0 to 1.
        level: quantile of a tone, 0 to 1.
        factor: factor of a tone's brightness.
    """

    image: int = -1
    turn: int = 0
    down: int = 0
    right: int = 0
    sigma: float = 0.0
    warp: float = 0.0
    light: float = 0.0
    angle: float = 0.0
    place: tuple[int, int] | None = None
    colour: tuple[float, ...] = (1.0, 1.0, 1.0)
    texture: int = 0
    amplitude: float = 0.0
    level: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True)
class Filling:
    """A kind of filling.

    Attributes:
        choose: `choose(generator, size, count)` samples the parameters for images of `size` pixels a side in a batch of
            `count`.
        fill: `fill(canvas, chosen)` renders the filling, [h, w, 3].
        area: whether it needs a shape with an interior: copied or erased parts are not visible in a line.
        smooth: whether it has no texture of its own, so that the grain of the image is added.
    """

    choose: Callable[[np.random.Generator, int, int], Chosen]
    fill: Callable[[Canvas, Chosen], Floats]
    area: bool = False
    smooth: bool = False


class Canvas:
    """The inputs of a filling: `images` [N, S, S, 3], the damaged image `own` [S, S, 3], the `shape` [S, S] of the
    defect, and the rows and columns `where` to be filled.
    """

    def __init__(
        self, images: Floats, own: Floats, shape: Floats, where: tuple[slice, slice], textures: list[Floats]
    ) -> None:
        self.images, self.own, self.shape, self.where, self._textures = images, own, shape, where, textures
        self.size = len(own)

    def part(self, chosen: Chosen) -> Floats:
        """Return the part [h, w, 3] that lies where the defect is when an image is turned and cyclically shifted."""
        image = oriented(self.own if chosen.image < 0 else self.images[chosen.image], chosen.turn)
        rows, columns = self.where
        lines = image[np.arange(rows.start - chosen.down, rows.stop - chosen.down) % self.size]
        return lines[:, np.arange(columns.start - chosen.right, columns.stop - chosen.right) % self.size]

    def texture(self, chosen: Chosen) -> Floats:
        """Return the chosen texture [h, w, 1] where the defect is."""
        return (self._textures[chosen.texture][self.where] * np.float32(chosen.amplitude))[..., None]

    @cached_property
    def grain(self) -> Floats:
        """The fine structure [h, w, 3] of the damaged image where the defect is."""
        return self.own[self.where] - blurred(self.own, GRAIN * self.size / 128, *self.where, often=True)

    def noise(self) -> float:
        """Return the standard deviation of the grey fine structure where the defect is."""
        return float((self.grain.reshape(-1, 3) @ GREY).std())


def textures(size: int, generator: np.random.Generator) -> list[Floats]:
    """Return TEXTURES noise images [size, size] of standard deviation 1, coarse or fine."""
    return [_texture(size, generator) for _ in range(TEXTURES)]


def _texture(size: int, generator: np.random.Generator) -> Floats:
    cells = min(size // 2, int(2 ** generator.integers(3, 8)))
    noise = smooth_noise(size, cells, generator) + smooth_noise(size, cells, generator)
    return (noise / (noise.std() + 1e-6)).astype(np.float32)


def _of_another(generator: np.random.Generator, size: int, count: int) -> Chosen:
    image, turn = int(generator.integers(count)), int(generator.integers(8))
    down, right = generator.integers(size, size=2).tolist()
    return Chosen(image=image, turn=turn, down=down, right=right)


def _displaced(generator: np.random.Generator, size: int, _: int) -> Chosen:
    turn = int(generator.integers(8))
    down, right = generator.integers(-(size // 4), size // 4 + 1, 2).tolist()
    return Chosen(turn=turn, down=down, right=right)


def _doubled(generator: np.random.Generator, size: int, _: int) -> Chosen:
    distance, turn = size * generator.uniform(0.03, 0.2), generator.uniform(0, 2 * np.pi)
    return Chosen(down=int(distance * np.sin(turn)), right=int(distance * np.cos(turn)))


def _erased(canvas: Canvas, chosen: Chosen) -> Floats:
    """Return the surroundings extended into the shape by normalised convolution (Knutsson and Westin, CVPR 1993)."""
    kept = (canvas.shape < INSIDE).astype(np.float32)[..., None]
    sigma = canvas.size / 128 * chosen.sigma
    surroundings = blurred(np.concatenate([canvas.own * kept, kept], axis=-1), sigma, *canvas.where)
    return surroundings[..., :3] / (surroundings[..., 3:] + np.float32(1e-3))


def _blurred(canvas: Canvas, chosen: Chosen) -> Floats:
    return blurred(canvas.own, chosen.sigma * canvas.size / 128, *canvas.where)


def _dent(generator: np.random.Generator, size: int, _: int) -> Chosen:
    sigma, warp = generator.uniform(1.5, 5), generator.uniform(1, 5) * (-1, 1)[generator.integers(2)]
    angle, light = generator.uniform(0, 2 * np.pi), generator.uniform(0, 0.5)
    return Chosen(sigma=sigma, warp=warp, angle=angle, light=light)


def _dented(canvas: Canvas, chosen: Chosen) -> Floats:
    """Return the image warped along the gradient of the shape, lighter on one side and darker on the other."""
    rows, columns = canvas.where
    height, everything = canvas.shape[..., None], slice(0, canvas.size)
    down, right = np.gradient(blurred(height, canvas.size / 128 * chosen.sigma, everything, everything)[..., 0])
    down, right = down[canvas.where], right[canvas.where]
    steepest = float(np.sqrt(np.square(down) + np.square(right)).max()) + 1e-6
    by = canvas.size / 128 * chosen.warp / steepest
    at = np.mgrid[rows, columns].astype(np.float32)
    warped = _sampled(canvas.own, at[0] + by * down, at[1] + by * right)
    light = (down * np.sin(chosen.angle) + right * np.cos(chosen.angle)) * (chosen.light / steepest)
    return warped * (1 + light.astype(np.float32))[..., None]


def _sampled(image: Floats, rows: NDArray[np.floating], columns: NDArray[np.floating]) -> Floats:
    """Return the values [h, w, 3] of an image at fractional rows and columns, interpolated bilinearly."""
    last = len(image) - 1
    rows, columns = np.clip(rows, 0, last), np.clip(columns, 0, last)
    top, left = (np.minimum(axis.astype(np.intp), last - 1) for axis in (rows, columns))
    down, right = ((axis - low).astype(np.float32)[..., None] for axis, low in ((rows, top), (columns, left)))
    above = image[top, left] * (1 - right) + image[top, left + 1] * right
    below = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    values: Floats = above * (1 - down) + below * down
    return values


def _colour(generator: np.random.Generator, size: int, _: int) -> Chosen:
    """Sample a colour, mostly close to those of the image, plain or textured."""
    place = None
    if generator.random() < 0.6:
        row, column = generator.integers(size, size=2).tolist()
        place, colour = (row, column), generator.normal(0, 0.15, 3)
    elif generator.random() < 0.5:
        colour = generator.uniform(0, 1, 3)
    else:
        colour = np.full(3, generator.uniform(0, 1))
    texture, amplitude = int(generator.integers(TEXTURES)), (0, 0.03, 0.08)[generator.integers(3)]
    return Chosen(place=place, colour=tuple(colour.tolist()), texture=texture, amplitude=amplitude)


def _coloured(canvas: Canvas, chosen: Chosen) -> Floats:
    colour = np.array(chosen.colour)
    if chosen.place is not None:
        colour = canvas.own[chosen.place] + colour
    return colour.astype(np.float32) + canvas.texture(chosen)


def _tone(generator: np.random.Generator, *_: Any) -> Chosen:
    if generator.random() < 0.7:
        return Chosen(level=generator.uniform(0.001, 0.15), factor=generator.uniform(0.5, 1.0))
    return Chosen(level=generator.uniform(0.85, 0.999), factor=generator.uniform(1.0, 1.4))


def _toned(canvas: Canvas, chosen: Chosen) -> Floats:
    """Return the mean colour at the brightness of a low or high quantile of the image itself."""
    some = canvas.own[::EVERY, ::EVERY].reshape(-1, 3)
    grey = some @ GREY
    place = round(chosen.level * (len(grey) - 1))
    tone = chosen.factor * np.partition(grey, place)[place] / max(float(grey.mean()), DARKEST)
    return (some.mean(axis=0) * tone).astype(np.float32)


def _shade(generator: np.random.Generator, *_: Any) -> Chosen:
    factor = np.exp((-1, -1, 1)[generator.integers(3)] * generator.uniform(0.1, 1.2))
    tint = 1 + generator.normal(0, 0.08, 3) if generator.random() < 0.4 else np.ones(3)
    return Chosen(colour=tuple((factor * tint).tolist()))


def _shaded(canvas: Canvas, chosen: Chosen) -> Floats:
    return canvas.own[canvas.where] * np.array(chosen.colour, np.float32)


def _roughness(generator: np.random.Generator, *_: Any) -> Chosen:
    return Chosen(texture=int(generator.integers(TEXTURES)), amplitude=generator.uniform(0.05, 0.25))


def _roughened(canvas: Canvas, chosen: Chosen) -> Floats:
    return canvas.own[canvas.where] + canvas.texture(chosen)


OF_ANOTHER = Filling(_of_another, Canvas.part, area=True)
DISPLACED = Filling(_displaced, Canvas.part, area=True)
DOUBLED = Filling(_doubled, Canvas.part, area=True)
ERASED = Filling(lambda generator, *_: Chosen(sigma=generator.uniform(3, 9)), _erased, area=True)
BLURRED = Filling(lambda generator, *_: Chosen(sigma=generator.uniform(1, 5)), _blurred, area=True)
DENTED = Filling(_dent, _dented, area=True)
COLOURED = Filling(_colour, _coloured, smooth=True)
TONED = Filling(_tone, _toned, smooth=True)
SHADED = Filling(_shade, _shaded)
ROUGHENED = Filling(_roughness, _roughened)

# Each is sampled as often as it is listed.
FILLINGS = (
    *(OF_ANOTHER, OF_ANOTHER, DISPLACED, DOUBLED, ERASED, ERASED, BLURRED, DENTED),
    *(COLOURED, TONED, TONED, SHADED, SHADED, ROUGHENED),
)
OF_SURFACES = (OF_ANOTHER, ERASED, BLURRED, COLOURED, TONED, TONED, TONED, SHADED, SHADED, ROUGHENED)
