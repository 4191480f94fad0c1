"""Bring a mask upright with its image, and say what is odd about it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import BadImage
from pipelines.images.decode import TooManyPixels, open_header
from pipelines.images.masks import open_mask, read_mask
from pipelines.images.orientation import SIDEWAYS, describe_turn, orientation_of, turned

NEARLY_EVERYTHING = 0.8  # share of the image


@dataclass(frozen=True)
class PlacedMask:
    """A mask at the size of its image, upright.

    Attributes:
        data: the file; as sent, or written anew as PNG with its class values if it had to be turned.
        marked: bool [height, width].
        notes: one line each for the sender.
    """

    data: bytes
    marked: NDArray[np.bool_]
    notes: list[str]


def placed(data: bytes, size: tuple[int, int], orientation: int = 1) -> PlacedMask:
    """Read the mask of an image and turn it as its image.

    An image that EXIF turns has two sizes, as stored and upright, and masks are drawn on either. A mask with an EXIF
    orientation of its own is upright once that is applied. Any other mask of the stored size is turned with the image.
    Where both sizes are the same (turned by 180°, mirrored, or square), it is taken to be drawn on the stored pixels,
    too, as programs write masks that read pixels and not EXIF; a note says so.

    Args:
        data: the mask's file.
        size: width and height of the upright image in pixels.
        orientation: EXIF orientation of the image, 1 to 8.

    Raises:
        BadImage: as `open_mask`; the message says if the image is turned by EXIF.
    """
    if orientation == 1:
        marked = open_mask(data, size)
        return PlacedMask(data, marked, _notes(marked))
    width, height = size
    stored = (height, width) if orientation in SIDEWAYS else size
    both = f" upright and {stored[0]} x {stored[1]} as stored" if stored != size else ""
    sizes = (
        f"its image, which EXIF shows {describe_turn(orientation)}, has {width} x {height} pixels{both}: draw the mask "
        "at that size"
    )
    try:
        header = open_header(data, max(width * height, 1), kind="mask")
    except TooManyPixels as error:
        raise BadImage(f"the mask is larger than its image; {sizes}") from error
    own = orientation_of(header)
    if header.size == stored and own == 1:
        classes = turned(read_mask(data, stored).classes, orientation)
        notes = _notes(classes > 0)
        if stored == size:
            notes.append(
                f"EXIF shows the image {describe_turn(orientation)}, and the mask was turned with it, as drawn on the "
                "stored pixels: if it was drawn on the upright picture, save the image without EXIF orientation"
            )
        return PlacedMask(_png(classes), classes > 0, notes)
    if header.size not in (size, stored):
        raise BadImage(f"the mask is {header.width} x {header.height} pixels; {sizes}")
    marked = open_mask(data, size)
    return PlacedMask(data, marked, _notes(marked))


def coverage_note(marked: NDArray[np.bool_]) -> str | None:
    """Return a line for the sender if a mask marks nothing or nearly everything; None if it does not."""
    share = float(marked.mean())
    if share == 0:
        return "the mask marks nothing: send one that is not 0 where the defect is"
    if share > NEARLY_EVERYTHING:
        return (
            f"the mask marks nearly everything ({100 * share:.0f} % of the image): if it is inverted, send one that is "
            "0 where the image is good"
        )
    return None


def _notes(marked: NDArray[np.bool_]) -> list[str]:
    note = coverage_note(marked)
    return [note] if note else []


def _png(classes: NDArray[np.uint16]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(classes.astype(np.uint8) if classes.max() <= 255 else classes).save(out, "PNG")
    return out.getvalue()
