"""The samples of an image file as they are stored, and Pillow's ways to them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from pipelines.errors import BadImage

Kind = Literal["bilevel", "grey", "palette", "colour"]


@dataclass(frozen=True)
class RawSamples:
    """The samples of an image.

    Attributes:
        values: [H, W] of a bilevel (0, 1), grey or palette image (indices); [H, W, 3] of a colour image. Integers as
            stored, or float32.
        kind: what the values mean.
        bits: bits of a sample in the file: 1 to 8, 12, 16 or 32.
        alpha: [H, W], 0 is transparent; None if the file has no transparency.
        opaque: the alpha value of an opaque pixel.
        premultiplied: whether the colours are multiplied by alpha.
        inverted: whether 0 is white; never of eight bits or less, which are read as shown.
        colours: uint8 [256, 3], RGB of the palette's indices; None without a palette.
        declared_white: the value of white as the file declares it; 0 if it does not.
    """

    values: NDArray[Any]
    kind: Kind
    bits: int
    alpha: NDArray[Any] | None = None
    opaque: int = 255
    premultiplied: bool = False
    inverted: bool = False
    colours: NDArray[np.uint8] | None = None
    declared_white: float = 0.0


def load(image: ImageFile.ImageFile) -> None:
    """Decode an opened image.

    Raises:
        BadImage: the file is damaged.
    """
    try:
        image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, EOFError, MemoryError and others
        text = " ".join(str(error).split()) or type(error).__name__
        reason = text if len(text) <= 100 else text[:99] + "…"
        raise BadImage(f"the file is truncated or damaged ({reason}): send the file again") from error


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Return Pillow's name of how samples are stored, such as `RGB;16B`; empty once the image is decoded."""
    args = image.tile[0].args if image.tile else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def keyed(values: NDArray[Any], key: Any) -> NDArray[np.uint8] | None:
    """Return the alpha [H, W] of an image whose pixels of the value or colour `key` are transparent."""
    if key is None or isinstance(key, bytes):
        return None
    matches = values == key if values.ndim == 2 else (values == np.array(key)).all(axis=2)
    return np.where(matches, 0, 255).astype(np.uint8)


def unreadable(mode: str) -> BadImage:
    """Return the refusal of an image in a pixel format that has no colours to show."""
    return BadImage(f"the image has pixels of the kind {mode}, which RGB cannot show: save it as RGB or grey")


def reread(image: ImageFile.ImageFile, change: Callable[[str], str]) -> NDArray[np.uint8]:
    """Decode an opened image that is not decoded yet, with `change` applied to its raw mode.

    Raises:
        BadImage: the file is damaged.
    """
    twin = open_again(image)
    twin.tile = with_raw_mode(twin.tile, change)
    load(twin)
    return np.asarray(twin)


def with_raw_mode(tiles: list[Any], change: Callable[[str], str]) -> list[Any]:
    """Return Pillow's descriptions of the parts of a file with `change` applied to their raw mode."""
    return [
        tile._replace(
            args=(change(tile.args[0]), *tile.args[1:]) if isinstance(tile.args, tuple) else change(tile.args)
        )
        for tile in tiles
    ]


def open_again(image: ImageFile.ImageFile) -> ImageFile.ImageFile:
    """Open the file of an image that is not decoded yet once more, at the same page."""
    data = image.fp.getvalue()  # type: ignore[union-attr]
    twin = Image.open(io.BytesIO(data), formats=(str(image.format),))
    if isinstance(twin, TiffImagePlugin.TiffImageFile):
        twin.seek(image.tell())
    return twin
