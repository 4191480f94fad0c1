"""Read masks: which pixels of an image somebody marked, and with which class.

A mask is read from its samples as stored, never as a picture. The rules, in this order:

1. **Alpha.** If some pixels are transparent and others are not, opaque pixels are marked, whatever their colours: RGBA,
   grey with alpha, a palette with transparent entries, a transparent colour. Alpha that tells no pixels apart says
   nothing, and the colours count. A canvas that is transparent everywhere and has one colour marks nothing.
2. **Palette.** Index 0 is the background, every other index is marked, whatever its colour. A palette of greys among
   which black is used is read as a grey picture instead, since programs order the palette of a black-and-white picture
   as they please. So is a palette with the soft edges of rule 5.
3. **Bilevel.** White is marked.
4. **Grey and colour.** Black, 0, is the background. Of a colour, the largest channel counts.
5. **Soft edges.** In a class map, every sample but 0 is marked: 1, 3, 20, 255 or 65535 alike. A class map is a lossless
   file with background 0 that has at most eight other values, or whose values form areas. All else was drawn with soft
   edges or compressed with loss (JPEG, WebP, or a PNG made of these, whose few values lie close to black and close to
   white): there a pixel is marked if it exceeds a quarter of the largest sample, or, up to 16, if it is not 0.

`pipelines.images.mask_placement` brings a mask that was drawn on the stored pixels of a turned image upright.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, TiffImagePlugin

from pipelines.errors import BadImage
from pipelines.images.decode import open_header
from pipelines.images.raw_samples import RawSamples
from pipelines.images.read_samples import read_samples

FEW_CLASSES = 8
_FAINT = 16  # largest sample of a lossy class map
_AREAS = 0.75  # share of the pixels of a class map that have equal neighbours
_RINGING = 1 / 16  # of the largest sample
_COMPRESSION, _LOSSY_COMPRESSIONS = 259, frozenset({6, 7, 34892, 50001, 50002})  # JPEG, WebP and JPEG XL in TIFF


@dataclass(frozen=True)
class ClassMap:
    """A mask.

    Attributes:
        marked: bool [H, W], true where it marks something.
        classes: uint16 [H, W], the class of marked pixels: their sample or palette index as stored, 1 where these mean
            nothing (colours, soft edges, loss) or are 0; 0 where nothing is marked.
    """

    marked: NDArray[np.bool_]
    classes: NDArray[np.uint16]


def open_mask(data: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read the mask of an image of `size` (width, height) into bool [height, width], true where it marks something.

    Raises:
        BadImage: the file is not a readable image, has samples that no mask has, or differs in size.
    """
    return read_mask(data, size).marked


def read_classes(data: bytes, size: tuple[int, int]) -> NDArray[np.uint16]:
    """Read the class map of an image of `size` (width, height) into uint16 [height, width]; 0 is background.

    The samples of a bilevel, greyscale or palette image are the class values, unchanged: 0, 1, 2…, palette indices, or
    0 and 255. Elsewhere (colours, soft edges, compression with loss) there are no class values, and every pixel that is
    marked has class 1.

    Raises:
        BadImage: as `open_mask`.
    """
    return read_mask(data, size).classes


def read_mask(data: bytes, size: tuple[int, int]) -> ClassMap:
    """Read the mask of an image of `size` (width, height).

    Raises:
        BadImage: as `open_mask`.
    """
    width, height = size
    image = open_header(data, max_pixels=max(width * height, 1), kind="mask")
    lossless = not _is_lossy(image, data)
    mask = _class_map(read_samples(image), lossless)
    if mask.marked.shape != (height, width):
        rows, columns = mask.marked.shape
        raise BadImage(
            f"the mask is {columns} x {rows} pixels and its image {width} x {height}: draw it at the image's size"
        )
    return mask


def _class_map(samples: RawSamples, lossless: bool) -> ClassMap:
    levels, hard = _levels(samples, lossless)
    marked = (levels > 0) if hard else _above_a_quarter(levels)
    if samples.alpha is not None:
        by_alpha = _marked_by_alpha(samples)
        if by_alpha is None:
            return ClassMap(np.zeros_like(marked), np.zeros(marked.shape, np.uint16))
        if by_alpha.any() and not by_alpha.all():
            marked = by_alpha
    values = np.ones(marked.shape, np.uint16)
    if hard and samples.values.ndim == 2:
        if samples.values.max() > np.iinfo(np.uint16).max:
            raise BadImage("the mask has samples above 65,535: save it in 8 or 16 bits")
        values = np.maximum(samples.values, 1).astype(np.uint16)
    return ClassMap(marked, np.where(marked, values, 0).astype(np.uint16))


def _levels(samples: RawSamples, lossless: bool) -> tuple[NDArray[Any], bool]:
    """Return how strongly each pixel is marked, [H, W], and whether the file is a class map."""
    values = samples.values
    if values.dtype.kind in "if" and values.min() < 0:
        raise BadImage("the mask has samples below 0: save it with 0 as background")
    if samples.colours is not None:
        return _palette_levels(values, samples.colours)
    if samples.kind == "bilevel":
        return values, True
    if samples.inverted:
        values = (65535 if samples.bits == 16 else 2**samples.bits - 1) - values
    levels = values if values.ndim == 2 else values.max(axis=2)
    return levels, lossless and is_class_map(levels)


def _palette_levels(indices: NDArray[np.uint8], colours: NDArray[np.uint8]) -> tuple[NDArray[Any], bool]:
    used = colours[np.unique(indices)]
    levels = colours.max(axis=1)[indices]
    grey = (used == used[:, :1]).all() and not used.any(axis=1).all()
    if grey or not is_class_map(indices):
        hard = is_class_map(levels)
        # Where black is index 0 alone, the two readings agree, and indices are the classes.
        same = hard and bool(((levels > 0) == (indices > 0)).all())
        return (indices if same else levels), hard
    return indices, True


def is_class_map(levels: NDArray[Any]) -> bool:
    """Return whether [H, W] is a class map on background 0, rather than a drawing with soft edges."""
    present = np.unique(levels)
    if present[0] != 0:
        return False
    if len(present) <= FEW_CLASSES + 1:
        return not _is_ringing(present)
    padded = np.pad(levels, 1, mode="edge")
    rows, columns = levels.shape
    between = (levels > 0) & (levels < present[-1])
    equal = np.zeros(levels.shape, np.uint8)
    brighter, darker = np.zeros(levels.shape, bool), np.zeros(levels.shape, bool)
    for top, left in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)):
        neighbour = padded[top : top + rows, left : left + columns]
        equal += neighbour == levels
        brighter |= neighbour > levels
        darker |= neighbour < levels
    in_area = (equal >= 2) & ~(brighter & darker)  # on the slope of a soft edge, one neighbour is brighter, one darker
    return bool(in_area[between].mean() >= _AREAS)


def _is_ringing(present: NDArray[Any]) -> bool:
    """Return whether the values are those of black and white after JPEG: both of them, and some close to each."""
    values = present[1:-1].astype(np.float64)
    brightest = float(present[-1])
    dark, bright = values <= _RINGING * brightest, values >= (1 - _RINGING) * brightest
    return brightest > 127 and bool(dark.any() and bright.any() and (dark | bright).all())


def _above_a_quarter(levels: NDArray[Any]) -> NDArray[np.bool_]:
    brightest = float(levels.max())
    faint = levels.dtype.kind != "f" and brightest <= _FAINT
    marked: NDArray[np.bool_] = np.asarray(levels > (0 if faint else brightest / 4))
    return marked


def _marked_by_alpha(samples: RawSamples) -> NDArray[np.bool_] | None:
    """Return where alpha marks, [H, W]; None for a canvas that is transparent everywhere and has one colour."""
    alpha = samples.alpha
    assert alpha is not None
    if not alpha.any():
        pixels = samples.values.reshape(alpha.size, -1)
        if (pixels == pixels[0]).all():
            return None
    hard = is_class_map(alpha)
    return (alpha > 0) if hard else _above_a_quarter(alpha)


def _is_lossy(image: ImageFile.ImageFile, data: bytes) -> bool:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2.get(_COMPRESSION) in _LOSSY_COMPRESSIONS
    if image.format == "WEBP":
        return b"VP8L" not in data[12:64] and b"VP8 " in data
    return image.format in ("JPEG", "MPO")
