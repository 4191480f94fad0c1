"""Decode image files to pixels; the single decoder of ingest, training and serving.

Accepts JPEG, PNG, BMP, TIFF and WebP, identified by content and never by file name. The header is validated before
anything is decoded. Every image is returned upright (EXIF orientation applied) as RGB with eight bits per channel:

* transparent images are composited on white; an image that is transparent everywhere is read as opaque, since cameras
  leave an unused fourth channel at 0;
* CMYK, YCbCr, palette, greyscale and bilevel images are converted;
* higher bit depths are read in full and scaled, never clipped: see `pipelines.images.bit_depth`;
* reduced copies and masks in a TIFF are no pages: see `pipelines.images.tiff_pages`.

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
from pipelines.images.bit_depth import EIGHT_BITS, SampleDepth, depth_of, to_eight_bits
from pipelines.images.deep_samples import is_deep, read_deep
from pipelines.images.file_signatures import looks_like, truncation, webp_size
from pipelines.images.orientation import orientation_of, turned
from pipelines.images.raw_samples import load, raw_mode, reread, unreadable
from pipelines.images.tiff_pages import select_picture

_PLUGINS = (BmpImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "MPO")
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp"}
CONTENT_TYPES = {name: f"image/{name.lower()}" for name in EXTENSIONS}
_STRIP = 1 << 19  # pixels

# Pillow's warnings concern the size, which is checked here, and damaged metadata, which is not needed.
warnings.filterwarnings("ignore", module=r"PIL\b")


class TooManyPixels(BadImage):
    """An image is larger than it may be, or a mask larger than its image."""


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
        orientation: EXIF orientation that was applied, 1 to 8.
        depth: what its samples show of its bit depth.
    """

    pixels: NDArray[np.uint8]
    format: str
    extension: str
    mode: str
    width: int
    height: int
    orientation: int = 1
    depth: SampleDepth = EIGHT_BITS


def open_image(data: bytes, *, max_pixels: int, min_side: int, bits: int | None = None) -> OpenedImage:
    """Decode one image file of at most `max_pixels` (width x height) and at least `min_side` pixels per side.

    Samples of more than eight bits are scaled by `bits`, the bit depth of the project or model; None, the default,
    leaves it to each image: see `pipelines.images.bit_depth`. Thread-safe.

    Raises:
        BadImage: the file is empty, not an image of an accepted format, damaged, animated, too large, too small, or
            beyond `bits`.
    """
    return decode(identify(data, max_pixels=max_pixels, min_side=min_side), bits=bits)


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


def decode(image: ImageFile.ImageFile, *, bits: int | None = None) -> OpenedImage:
    """Perform the second half of `open_image`: decode the result of `identify`.

    Raises:
        BadImage: the file is damaged, or a sample exceeds `bits`.
    """
    name = "JPEG" if image.format == "MPO" else str(image.format)
    mode, is_tiff = image.mode, isinstance(image, TiffImagePlugin.TiffImageFile)
    orientation = orientation_of(image) if is_tiff else 1
    pixels, depth = _decode(image, bits)
    if not is_tiff:  # Pillow turns a TIFF while it decodes
        orientation = orientation_of(image)
        pixels = turned(pixels, orientation)
    image.close()  # with the decoder's own copy of the pixels
    height, width = pixels.shape[:2]
    return OpenedImage(pixels, name, EXTENSIONS[name], mode, width, height, orientation, depth)


def read_orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of an image file that `open_image` accepts.

    Raises:
        BadImage: its header is damaged.
    """
    return orientation_of(open_header(data, max_pixels=1 << 40))


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
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        select_picture(image)
        _check_pixels(image.size, max_pixels, kind)
    elif getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO holds a photograph and its previews
        raise BadImage(f"the file is an animation or holds several pages ({image.format}): send one picture a file")
    return image


def _check_pixels(size: tuple[int, int], max_pixels: int, kind: str) -> None:
    width, height = size
    if width * height > max_pixels:
        if kind == "mask":
            raise TooManyPixels(
                f"the mask is {width} x {height} pixels, more than its image has: draw it at the image's size"
            )
        raise TooManyPixels(
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


def _decode(image: ImageFile.ImageFile, bits: int | None) -> tuple[NDArray[np.uint8], SampleDepth]:
    """Decode to uint8 [H, W, 3] as stored, without applying the orientation."""
    if is_deep(image):
        samples = read_deep(image)
        depth = depth_of(samples)
        return _rgb_of_layers(to_eight_bits(samples, bits, depth)), depth
    if raw_mode(image).startswith("RGBa"):
        return _premultiplied_on_white(reread(image, lambda mode: mode.replace("RGBa", "RGBA"))), EIGHT_BITS
    load(image)
    try:
        if image.has_transparency_data:
            layers = image.convert("LA") if image.mode == "La" else image
            return _on_white(layers.convert("RGBA")), EIGHT_BITS
        return _rgb(image), EIGHT_BITS
    except Exception as error:
        raise unreadable(image.mode) from error


def _rgb_of_layers(layers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert grey [H, W], RGB [H, W, 3] or RGBA [H, W, 4] to RGB."""
    if layers.ndim == 2:
        return np.repeat(layers[:, :, np.newaxis], 3, axis=2)
    return layers if layers.shape[2] == 3 else _on_white(Image.fromarray(layers))


def _on_white(layers: Image.Image) -> NDArray[np.uint8]:
    """Composite an RGBA image on white, unless it is transparent everywhere."""
    if layers.getchannel("A").getextrema()[1] == 0:
        return np.array(layers.convert("RGB"))
    image_on_white = Image.new("RGBA", layers.size, "white")
    image_on_white.alpha_composite(layers)
    return np.array(image_on_white.convert("RGB"))


def _premultiplied_on_white(layers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Do the same for uint8 [H, W, 4] whose colours are multiplied by alpha."""
    colours, alpha = layers[..., :3], layers[..., 3:]
    if not alpha.any():
        return np.ascontiguousarray(colours)
    white = 255 - alpha
    return np.minimum(colours, alpha) + white


def _rgb(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    """Convert to RGB in strips of rows, since converting at once takes four times the memory of the pixels."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows))) if rows < height else image
        pixels[top : top + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return pixels
