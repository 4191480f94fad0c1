"""Renders training batches on the GPU: what `defects` and `fills` draw in numpy, in `keras.ops`, for a whole batch.

A GPU trains on images faster than the CPU can draw defects on them. Augmentation parameters are sampled on the CPU by
the same generator (`batch_spec`); the CPU only looks up images and shapes, and everything else is part of the compiled
training step. Every filling is rendered for every image and the chosen result selected, which is cheaper on a GPU than
branching.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from keras import ops

from pipelines.errors import TrainingFailed
from pipelines.tasks.anomaly.restoration.anomaly_score import Tensor
from pipelines.tasks.anomaly.synthetic import fills
from pipelines.tasks.anomaly.synthetic.batch_spec import KINDS, NUMBERS, SLOTS, WHOLE
from pipelines.tasks.anomaly.synthetic.defects import FAINTEST, LEAST_COVER, LEAST_GRAIN
from pipelines.tasks.anomaly.synthetic.fills import DARKEST, EVERY, GRAIN, INSIDE


def draws_on_device() -> bool:
    """Return whether the training step renders its batches: on a GPU, unless INSPECTLINE_DRAW_ON says `device` or
    `processors`. Raises TrainingFailed for anything else.
    """
    place = os.environ.get("INSPECTLINE_DRAW_ON") or ("device" if has_gpu() else "processors")
    if place not in ("device", "processors"):
        raise TrainingFailed(f"INSPECTLINE_DRAW_ON is {place!r}: set it to device or processors, or leave it out")
    return place == "device"


def has_gpu() -> bool:
    """Return whether Keras's backend puts its tensors on a GPU."""
    return is_gpu(str(ops.convert_to_tensor(np.zeros(1, np.float32)).device))


def is_gpu(device: str) -> bool:
    """Return whether `device` is a name that TensorFlow, JAX or PyTorch give to a GPU."""
    return any(name in device.lower() for name in ("gpu", "cuda", "rocm"))


def painted(recipe: dict[str, Tensor], textures: Tensor) -> tuple[Tensor, Tensor]:
    """Return the damaged and the clean images, float32 [N, S, S, 3] in 0 to 1, of a `batch_spec.recipe`; `textures`
    [T, S, S] are the painter's.
    """
    clean = _shown(recipe["images"], recipe["moved"], recipe["light"])
    damaged = clean
    for slot in range(SLOTS):
        whole = {name: recipe["whole"][:, slot, place] for place, name in enumerate(WHOLE)}
        numbers = {name: recipe["numbers"][:, slot, place, None, None, None] for place, name in enumerate(NUMBERS)}
        shape = ops.cast(recipe["shapes"][:, slot, :, :, None], "float32") / 255.0
        damaged = damaged + _Slot(clean, damaged, shape, whole, numbers, textures).change()
    return ops.clip(damaged, 0.0, 1.0), clean


class _Slot:
    """A defect, or none, on each image of a batch: `own` [N, S, S, 3] are the images with the defects of earlier slots,
    `shape` [N, S, S, 1] the shapes, `whole` [N] and `numbers` [N, 1, 1, 1] the sampled parameters.
    """

    def __init__(
        self,
        clean: Tensor,
        own: Tensor,
        shape: Tensor,
        whole: dict[str, Tensor],
        numbers: dict[str, Tensor],
        textures: Tensor,
    ) -> None:
        self.clean, self.own, self.shape, self.whole, self.numbers = clean, own, shape, whole, numbers
        self.size = own.shape[1]
        self.scale = self.size / 128
        self.index = _indices(own)
        self.box = self._box()
        self.texture = ops.take(textures, whole["texture"], axis=0)[..., None] * numbers["amplitude"]

    def change(self) -> Tensor:
        """Return the change [N, S, S, 3] to add to the images: 0 where there is no defect."""
        grain = self.own - _blurred(self.own, _weights(ops.full((1, 1, 1), GRAIN * self.scale), self.size))
        filled = self._filled() + self.numbers["grained"] * grain
        change = self.shape * (filled - self.own)
        change = change * ops.where(
            self._is(lambda filling: filling.area), self.numbers["cover"], self._visible_cover(change, grain)
        )
        softened = _blurred(change, _weights(self.numbers["softness"][..., 0], self.size))
        return ops.where(self._is(lambda _: True), softened, 0.0)

    def _is(self, wanted: Any) -> Tensor:
        """Return for which images [N, 1, 1, 1] the predicate `wanted` holds for the filling."""
        kinds = np.array([bool(wanted(filling)) for filling in KINDS])
        kind = self.whole["kind"]
        matches = ops.logical_and(kind >= 0, ops.take(ops.convert_to_tensor(kinds), ops.maximum(kind, 0), axis=0))
        return ops.reshape(matches, (-1, 1, 1, 1))

    def _visible_cover(self, change: Tensor, grain: Tensor) -> Tensor:
        """Return the opacity [N, 1, 1, 1] of fillings that are not an `area` (`defects._least_cover`)."""
        box, grey = self.box, ops.mean(grain, axis=-1, keepdims=True)
        count = ops.maximum(ops.sum(box, axis=(1, 2, 3), keepdims=True), 1.0)
        mean = ops.sum(grey * box, axis=(1, 2, 3), keepdims=True) / count
        noise = ops.sqrt(ops.sum(ops.square(grey - mean) * box, axis=(1, 2, 3), keepdims=True) / count)
        covered = ops.maximum(ops.sum(self.shape, axis=(1, 2, 3), keepdims=True), 1e-3)
        contrast = ops.sum(ops.abs(change), axis=(1, 2, 3), keepdims=True) / (3 * covered)
        least = FAINTEST * (noise + LEAST_GRAIN) / ops.maximum(contrast, 1e-6)
        return ops.exp(ops.log(ops.clip(least, LEAST_COVER, 1.0)) * (1 - self.numbers["cover"]))

    def _box(self) -> Tensor:
        """Return the bounding box [N, S, S, 1] of the shape: 1 inside, else 0."""
        some = ops.cast(self.shape[..., 0] > 0, "float32")
        rows, columns = _between(ops.max(some, axis=2)), _between(ops.max(some, axis=1))
        return (rows[:, :, None] * columns[:, None, :])[..., None]

    def _filled(self) -> Tensor:
        """Return each image [S, S, 3] covered entirely by its chosen filling, as [N, S, S, 3]."""
        is_erased, is_dented = (
            self._is(lambda filling, kind=kind: filling is kind) for kind in (fills.ERASED, fills.DENTED)
        )
        # One blur of four channels serves three kinds: the blurred image; numerator and denominator of the normalised
        # convolution of an erased part; and the height of a dent.
        kept = ops.where(is_erased, ops.cast(self.shape < INSIDE, "float32"), 1.0)
        fourth = ops.where(is_dented, self.shape, kept)
        weights = _weights(self.numbers["sigma"][..., 0] * self.scale, self.size)
        blurred = _blurred(ops.concatenate([self.own * kept, fourth], axis=-1), weights)
        colour = ops.concatenate([self.numbers[name] for name in ("red", "green", "blue")], axis=-1)
        drawn = {
            fills.OF_ANOTHER: self._part(),
            fills.ERASED: blurred[..., :3] / (blurred[..., 3:] + 1e-3),
            fills.BLURRED: blurred[..., :3],
            fills.DENTED: self._dented(blurred[..., 3]),
            fills.COLOURED: self._pixel() + colour + self.texture,
            fills.TONED: self._tone(),
            fills.SHADED: self.own * colour,
            fills.ROUGHENED: self.own + self.texture,
        }
        result = self.own
        for kind, filled in drawn.items():
            result = ops.where(self._is(lambda filling, kind=kind: filling.fill is kind.fill), filled, result)
        return result

    def _part(self) -> Tensor:
        """Return another image or the same one, turned and cyclically shifted, [N, S, S, 3]."""
        rows, columns = _places(self.size)
        rows = ops.mod(rows - self.whole["down"][:, None, None], self.size)
        columns = ops.mod(columns - self.whole["right"][:, None, None], self.size)
        both = ops.concatenate([self.clean, self.own], axis=0)
        own = self.index + ops.shape(self.own)[0]
        image = ops.where(self.whole["image"] < 0, own, self.whole["image"])
        return _looked_up(both, image, *_oriented(rows, columns, self.whole["turn"], self.size))

    def _pixel(self) -> Tensor:
        """Return the pixel [N, 1, 1, 3] to which a colour is added; 0 where there is none."""
        row, column = (ops.maximum(self.whole[name], 0)[:, None, None] for name in ("row", "column"))
        begins = ops.reshape(self.whole["row"] >= 0, (-1, 1, 1, 1))
        return ops.where(begins, _looked_up(self.own, self.index, row, column), 0.0)

    def _tone(self) -> Tensor:
        """Return the mean colour [N, 1, 1, 3] at the brightness of a quantile of the image (`fills`)."""
        some = self.own[:, ::EVERY, ::EVERY]
        grey = ops.reshape(ops.mean(some, axis=-1), (-1, len(range(0, self.size, EVERY)) ** 2))
        level = ops.take_along_axis(ops.sort(grey, axis=-1), self.whole["rank"][:, None], axis=-1)
        factor = (
            self.numbers["factor"][..., 0, 0] * level / ops.maximum(ops.mean(grey, axis=-1, keepdims=True), DARKEST)
        )
        return ops.mean(some, axis=(1, 2), keepdims=True) * factor[..., None, None]

    def _dented(self, height: Tensor) -> Tensor:
        """Return the images warped along the gradient of `height` [N, S, S], and shaded."""
        down, right = _slope(height, 1), _slope(height, 2)
        steepest = ops.sqrt(ops.square(down) + ops.square(right)) * self.box[..., 0]
        steepest = ops.max(steepest, axis=(1, 2), keepdims=True) + 1e-6
        by = self.scale * self.numbers["warp"][..., 0] / steepest
        rows, columns = (ops.cast(axis, "float32") for axis in _places(self.size))
        warped = _sampled(self.own, rows + by * down, columns + by * right)
        angle, light = self.numbers["angle"][..., 0], self.numbers["light"][..., 0]
        shade = (down * ops.sin(angle) + right * ops.cos(angle)) * (light / steepest)
        return warped * (1 + shade)[..., None]


def _shown(images: Tensor, moved: Tensor, light: Tensor) -> Tensor:
    """Return the augmented images, float32 in 0 to 1, of uint8 images (`defects.Views`)."""
    size = images.shape[1]
    rows, columns = _oriented(*_places(size), moved[:, 2], size)
    rows, columns = (
        _mirrored(places + moved[:, axis, None, None], size) for axis, places in enumerate((rows, columns))
    )
    pixels = ops.cast(_looked_up(images, _indices(images), rows, columns), "float32")
    gain, offset = light[:, 0, None, None, None], light[:, 1, None, None, None]
    return ops.clip(pixels * gain + offset, 0.0, 1.0)


def _indices(images: Tensor) -> Tensor:
    """Return the index [N] of each image."""
    return ops.arange(ops.shape(images)[0], dtype="int32")


def _places(size: int) -> tuple[Tensor, Tensor]:
    """Return the row [1, S, 1] and the column [1, 1, S] of each pixel."""
    line = ops.arange(size, dtype="int32")
    return line[None, :, None], line[None, None, :]


def _oriented(rows: Tensor, columns: Tensor, turn: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the source rows and columns of the pixels of a turned image (`shapes.oriented`)."""
    turn = turn[:, None, None]
    swapped = ops.bitwise_and(turn, 4) > 0
    rows, columns = ops.where(swapped, columns, rows), ops.where(swapped, rows, columns)
    rows = ops.where(ops.bitwise_and(turn, 1) > 0, size - 1 - rows, rows)
    return rows, ops.where(ops.bitwise_and(turn, 2) > 0, size - 1 - columns, columns)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Return places up to `size` beyond the ends of a line mirrored into it, the edge pixel repeated."""
    places = ops.where(places < 0, -1 - places, places)
    return ops.where(places >= size, 2 * size - 1 - places, places)


def _looked_up(images: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return pixels [N, h, w, C] of images [M, S, S, C] at rows and columns of those with the indices `image` [N]."""
    size, channels = images.shape[1], images.shape[3]
    flat = ops.reshape(images, (-1, channels))
    return ops.take(flat, (image[:, None, None] * size + rows) * size + columns, axis=0)


def _sampled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the values of images at fractional rows and columns, interpolated bilinearly."""
    last = images.shape[1] - 1
    rows, columns = ops.clip(rows, 0, last), ops.clip(columns, 0, last)
    top, left = (ops.minimum(ops.cast(coordinates, "int32"), last - 1) for coordinates in (rows, columns))
    down, right = (
        (coordinates - ops.cast(low, "float32"))[..., None] for coordinates, low in ((rows, top), (columns, left))
    )
    image = _indices(images)

    def line(row: Tensor) -> Tensor:
        left_value, right_value = (_looked_up(images, image, row, left + step) for step in (0, 1))
        return left_value * (1 - right) + right_value * right

    return line(top) * (1 - down) + line(top + 1) * down


def _slope(height: Tensor, axis: int) -> Tensor:
    """Return the gradient of [N, S, S] along an axis, as `numpy.gradient` computes it."""
    size = height.shape[axis]

    def line(place: int, count: int) -> Tensor:
        return height[:, place : place + count] if axis == 1 else height[:, :, place : place + count]

    ends = line(1, 1) - line(0, 1), line(size - 1, 1) - line(size - 2, 1)
    return ops.concatenate([ends[0], (line(2, size - 2) - line(0, size - 2)) / 2, ends[1]], axis=axis)


def _between(some: Tensor) -> Tensor:
    """Return 1 from the first to the last positive value of each line [N, S], else 0."""
    before, after = ops.cumsum(some, axis=1), ops.flip(ops.cumsum(ops.flip(some, axis=1), axis=1), axis=1)
    return ops.cast(ops.logical_and(before > 0, after > 0), "float32")


def _weights(sigma: Tensor, size: int) -> Tensor:
    """Return the matrices [N, S, S] of Gaussian blurs by sigma [N, 1, 1] pixels along a line (`blur`)."""
    sigma = ops.maximum(sigma, 1e-3)
    by = ops.floor(4 * sigma + 0.5)

    def kernel(distance: Tensor) -> Tensor:
        distance = ops.cast(distance, "float32")
        return ops.where(distance <= by, ops.exp(-0.5 * ops.square(distance / sigma)), 0.0)

    to, of = _places(size)
    weights = kernel(ops.abs(to - of)) + kernel(to + of + 1) + kernel(2 * size - 1 - to - of)
    return weights / (2 * ops.sum(kernel(of), axis=2, keepdims=True) - 1)


def _blurred(images: Tensor, weights: Tensor) -> Tensor:
    """Return images [N, S, S, C] blurred by matrices [N or 1, S, S]."""
    size, channels = images.shape[1], images.shape[3]
    for _ in range(2):
        lines = ops.matmul(weights, ops.reshape(images, (-1, size, size * channels)))
        images = ops.transpose(ops.reshape(lines, (-1, size, size, channels)), (0, 2, 1, 3))
    return images
