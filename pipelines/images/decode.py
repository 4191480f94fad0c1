"""Decode image files to pixels; the single decoder of ingest, training and serving.

Accepts JPEG, PNG, BMP, TIFF and WebP, identified by content and never by file name. The header is validated before
anything is decoded. Every image is returned upright (EXIF orientation applied) as RGB with eight bits per channel:

* transparent images are composited on white;
* CMYK, YCbCr, palette, greyscale and bilevel images are converted;
* higher bit depths are scaled, never clipped; see `pipelines.images.bit_depth`.

Invalid files raise `BadImage`, whose one-line message says what is wrong and what to do.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Imported eagerly to register the plugins, so that no thread loads them while others decode.
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pipelines.errors import BadImage
from pipelines.images.bit_depth import DEEP_MODES, to_eight_bits
from pipelines.images.file_signatures import looks_like, truncation, webp_size

_PLUGINS = (BmpImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "MPO")
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp"}
CONTENT_TYPES = {name: f"image/{name.lower()}" for name in EXTENSIONS}
_ORIENTATION = 0x0112
_STRIP = 1 << 19  # pixels

# Pillow's warnings concern the size, which is checked here, and damaged metadata, which is not needed.
warnings.filterwarnings("ignore", module=r"PIL\b")


@dataclass(frozen=True)
class OpenedImage:
    """A decoded image.

    Attributes:
        pixels: uint8 [height, width, 3], RGB, upright.
        format: JPEG, PNG, BMP, TIFF or WEBP.
        extension: file name extension of the format, without dot.
        mode: Pillow's name of the file's pixel format (`L`, `I;16`, `CMYK`…).
        width: width of the upright image in pixels.
        height: height of the upright image in pixels.
    """

    pixels: NDArray[np.uint8]
    format: str
    extension: str
    mode: str
    width: int
    height: int


def open_image(data: bytes, *, max_pixels: int, min_side: int) -> OpenedImage:
    """Decode one image file of at most `max_pixels` (width x height) and at least `min_side` pixels per side.

    Thread-safe.

    Raises:
        BadImage: the file is empty, not an image of an accepted format, damaged, animated, too large or too small.
    """
    return decode(identify(data, max_pixels=max_pixels, min_side=min_side))


def identify(data: bytes, *, max_pixels: int, min_side: int) -> ImageFile.ImageFile:
    """Perform the first half of `open_image`: validate the header without decoding; the result's `size` is in pixels.

    Raises:
        BadImage: as `open_image`, except for damage after the header.
    """
    image = open_header(data, max_pixels)
    if min(image.size) < min_side:
        raise BadImage(
            f"the image is {image.width} x {image.height} pixels, and each side must have {min_side} or more "
            "(image.min_side): send a larger image"
        )
    return image


def decode(image: ImageFile.ImageFile) -> OpenedImage:
    """Perform the second half of `open_image`: decode the result of `identify`.

    Raises:
        BadImage: the file is damaged.
    """
    name = "JPEG" if image.format == "MPO" else str(image.format)
    mode = image.mode
    pixels = upright(decode_pixels(image), image)
    image.close()  # with the decoder's own copy of the pixels
    height, width = pixels.shape[:2]
    return OpenedImage(pixels, name, EXTENSIONS[name], mode, width, height)


def open_header(data: bytes, max_pixels: int, kind: str = "image") -> ImageFile.ImageFile:
    """Read the header alone and refuse files that must not be decoded."""
    if not data:
        raise BadImage("the file is empty (0 bytes): send the file again")
    if missing := truncation(data):
        raise BadImage(f"the file is truncated or damaged ({missing}): send the file again")
    size = webp_size(data)
    if size:  # Pillow's WebP decoder allocates memory for all pixels as soon as it opens the file.
        _check_pixels(size, max_pixels, kind)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise BadImage(f"the image has more pixels than the {max_pixels:,} allowed: send a smaller image") from None
    except Exception as error:  # Pillow raises almost anything on a damaged header
        raise BadImage(_unidentified(data)) from error
    _check_pixels(image.size, max_pixels, kind)
    if getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO holds a photograph and its previews
        raise BadImage(f"the file is an animation or holds several pages ({image.format}): send one picture a file")
    return image


def _check_pixels(size: tuple[int, int], max_pixels: int, kind: str) -> None:
    width, height = size
    if width * height > max_pixels:
        if kind == "mask":
            raise BadImage(
                f"the mask is {width} x {height} pixels, more than its image has: draw it at the image's size"
            )
        raise BadImage(
            f"the image is {width} x {height} pixels, {width * height:,} in all, and {max_pixels:,} are allowed "
            "(image.max_pixels): send a smaller image"
        )


def _unidentified(data: bytes) -> str:
    kind = looks_like(data)
    if kind in EXTENSIONS:
        return f"the file starts as {kind}, but its header is damaged or unusual: send it again or save it anew"
    if kind:
        return f"the file is {kind}, no image of a kind accepted: send JPEG, PNG, BMP, TIFF or WebP"
    return "the file is no image that can be read: send JPEG, PNG, BMP, TIFF or WebP"


def decode_pixels(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """Decode to uint8 [H, W, 3] as stored, without applying the orientation."""
    try:
        image.load()
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, EOFError, MemoryError and others
        raise BadImage(f"the file is truncated or damaged ({_reason(error)}): send the file again") from error
    try:
        if image.mode in DEEP_MODES:
            return to_eight_bits(image)
        if image.has_transparency_data:
            layers = image.convert("RGBA")
            image_on_white = Image.new("RGBA", layers.size, "white")
            image_on_white.alpha_composite(layers)
            return np.array(image_on_white.convert("RGB"))
        return _rgb(image)
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(
            f"the image has pixels of the kind {image.mode}, which RGB cannot show: save it as RGB or grey"
        ) from error


def _rgb(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """Convert to RGB in strips of rows, since converting at once takes four times the memory of the pixels."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows))) if rows < height else image
        pixels[top : top + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return pixels


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:99] + "…"


def upright(pixels: NDArray[np.uint8], image: Image.Image) -> NDArray[np.uint8]:
    """Apply the EXIF orientation (EXIF 2.32, tag 0x0112) of the decoded `image` to its pixels."""
    try:  # the TIFF decoder has already applied the orientation and removed the tag
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is ignored, since the pixels are intact
        orientation = 1
    turned = {
        2: lambda: pixels[:, ::-1],
        3: lambda: pixels[::-1, ::-1],
        4: lambda: pixels[::-1],
        5: lambda: pixels.swapaxes(0, 1),
        6: lambda: np.rot90(pixels, -1),
        7: lambda: pixels[::-1, ::-1].swapaxes(0, 1),
        8: lambda: np.rot90(pixels, 1),
    }.get(orientation)
    return np.ascontiguousarray(turned()) if turned else pixels
