"""Read the samples of any image file as they are stored, before anything is scaled, composited or converted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, TiffImagePlugin

from pipelines.images.deep_samples import is_deep, read_deep
from pipelines.images.orientation import orientation_of, turned
from pipelines.images.raw_samples import RawSamples, keyed, load, raw_mode, reread, unreadable


def read_samples(image: ImageFile.ImageFile) -> RawSamples:
    """Decode an opened image to its samples, upright.

    Raises:
        BadImage: the file is damaged, or its kind of pixels cannot be read.
    """
    samples = read_deep(image) if is_deep(image) else _read_eight_bits(image)
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)  # Pillow turns a TIFF while it decodes
    orientation = 1 if is_tiff else orientation_of(image)
    if orientation == 1:
        return samples
    alpha = None if samples.alpha is None else turned(samples.alpha, orientation)
    return replace(samples, values=turned(samples.values, orientation), alpha=alpha)


def _read_eight_bits(image: ImageFile.ImageFile) -> RawSamples:
    stored_as = raw_mode(image)
    if stored_as.startswith("RGBa"):
        layers = reread(image, lambda mode: mode.replace("RGBa", "RGBA"))  # as stored, not divided by alpha
        return RawSamples(layers[..., :3], "colour", 8, layers[..., 3], premultiplied=True)
    load(image)
    key = image.info.get("transparency")
    if image.mode == "1":
        values: NDArray[Any] = np.asarray(image).astype(np.uint8)
        return RawSamples(values, "bilevel", 1, keyed(values, None if key is None else int(bool(key))))
    if image.mode == "L":
        bits = next((bits for bits in (2, 4) if stored_as.startswith(f"L;{bits}")), 8)
        values = np.asarray(image) // (255 // (2**bits - 1))  # Pillow stretches 2 and 4 bits to eight
        return RawSamples(values, "grey", bits, keyed(values, key))
    if image.mode in ("LA", "La"):
        pair = np.asarray(image)
        return RawSamples(pair[..., 0], "grey", 8, pair[..., 1], premultiplied=image.mode == "La")
    if image.mode in ("P", "PA"):
        return _read_palette(image, key)
    if image.mode == "RGB":
        values = np.asarray(image)
        return RawSamples(values, "colour", 8, keyed(values, key))
    try:
        if image.has_transparency_data:
            layers = np.asarray(image.convert("RGBA"))
            return RawSamples(layers[..., :3], "colour", 8, layers[..., 3])
        return RawSamples(np.asarray(image.convert("RGB")), "colour", 8)
    except Exception as error:
        raise unreadable(image.mode) from error


def _read_palette(image: ImageFile.ImageFile, key: Any) -> RawSamples:
    table = image.getpalette("RGB") or []
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(table) // 3] = np.array(table[: len(table) // 3 * 3], np.uint8).reshape(-1, 3)
    if image.mode == "PA":
        pair = np.asarray(image)
        return RawSamples(pair[..., 0], "palette", 8, pair[..., 1], colours=colours)
    values = np.asarray(image)
    if key is None:
        return RawSamples(values, "palette", 8, colours=colours)
    opacity = np.full(256, 255, np.uint8)
    if isinstance(key, bytes):
        opacity[: len(key)] = np.frombuffer(key, np.uint8)[:256]
    else:
        opacity[int(key)] = 0
    return RawSamples(values, "palette", 8, opacity[values], colours=colours)
