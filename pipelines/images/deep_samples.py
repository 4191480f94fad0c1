"""Read images of more than eight bits per sample at their full depth.

Pillow has no pixel format for colour, or for grey with alpha, of 16 bits per sample, and keeps the high byte alone. The
low byte is read by decoding the file once more with the bytes of each sample swapped. That keeps one decoder for files
of strangers, and adds nothing to serving's image; the alternatives, as of December 2026:

* OpenCV, headless (Apache-2.0), adds 160 MB, and codecs of its own to keep patched;
* imagecodecs (BSD) adds 89 MB, and many more codecs, and needs Python 3.12; tifffile (BSD) needs it for most compressed
  files;
* pypng (MIT) is small, and undoes the filters of rows in Python, which takes seconds for an image.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, TiffImagePlugin

from pipelines.errors import BadImage
from pipelines.images.raw_samples import RawSamples, keyed, load, open_again, raw_mode, reread, with_raw_mode

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
# TIFF 6.0, section 8
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE_VALUE, _PLANAR, _EXTRA_SAMPLES = 258, 262, 281, 284, 338
_LITTLE = sys.byteorder == "little"
_SWAPPED = {"L": "B", "B": "L", "N": "B" if _LITTLE else "L"}
# libtiff returns samples in the machine's byte order, which Pillow 13 heeds for unsigned ones alone.
_NATIVE = {"I;16BS": "I;16S", "I;32BS": "I;32S", "F;32BF": "F;32F"} if _LITTLE else {}
# Grey and alpha of 16 bits: Pillow opens no such TIFF. As four bytes, the pair is read whole.
_PAIR = ("RGBA", "RGBA")
for _order in (b"II", b"MM"):
    for _extra in ((0,), (1,), (2,)):
        TiffImagePlugin.OPEN_INFO.setdefault((_order, 1, (1,), 1, (16, 16), _extra), _PAIR)


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Return whether an opened, not yet decoded image has more than eight bits per sample; CMYK does not count."""
    if image.mode in DEEP_MODES:
        return True
    return image.mode != "CMYK" and (";16" in raw_mode(image) or _first(_tags(image).get(_BITS_PER_SAMPLE)) > 8)


def read_deep(image: ImageFile.ImageFile) -> RawSamples:
    """Decode an opened image of more than eight bits per sample; a TIFF comes upright, all else as stored.

    Raises:
        BadImage: the file is damaged, or stores its colours in separate compressed planes.
    """
    tags = _tags(image)
    bits = int(_first(tags.get(_BITS_PER_SAMPLE))) or 16
    white = _first(tags.get(_MAX_SAMPLE_VALUE))
    stored_as, key = raw_mode(image), image.info.get("transparency")
    if image.mode in DEEP_MODES:
        values = _grey(image)
        inverted = tags.get(_PHOTOMETRIC) == 0
        return RawSamples(values, "grey", bits, keyed(values, key), inverted=inverted, declared_white=white)
    pair = stored_as.startswith("LA;16") or tags.get(_PHOTOMETRIC) == 1
    if tags.get(_PLANAR) == 2:
        samples = _planes(image, 2 if pair else len(image.getbands()))
    elif pair:
        samples = _pairs(image, tags)
    else:
        samples = _channels(image, stored_as)
    if samples.shape[2] == 3:
        return RawSamples(samples, "colour", bits, keyed(samples, key), declared_white=white)
    grey, extra = samples.shape[2] == 2, _first(tags.get(_EXTRA_SAMPLES))
    if grey and tags and not extra:  # an unspecified sample, which is no alpha
        return RawSamples(samples[..., 0], "grey", bits, declared_white=white)
    return RawSamples(
        samples[..., 0] if grey else samples[..., :3],
        "grey" if grey else "colour",
        bits,
        alpha=samples[..., -1],
        opaque=2**bits - 1,
        premultiplied=extra == 1,
        declared_white=white,
    )


def _channels(image: ImageFile.ImageFile, stored_as: str) -> NDArray[np.uint16]:
    """Return [H, W, C] of interleaved colours."""
    base = stored_as.replace("RGBa", "RGBA")  # as stored, not divided by alpha
    low = reread(image, lambda _: base[:-1] + _SWAPPED[base[-1]])
    image.tile = with_raw_mode(image.tile, lambda _: base)
    load(image)
    samples = np.asarray(image).astype(np.uint16)
    samples <<= 8
    samples |= low
    return samples


def _pairs(image: ImageFile.ImageFile, tags: Any) -> NDArray[np.uint16]:
    """Return [H, W, 2] of grey with alpha, each pixel of which is stored as four bytes."""
    native = image.tile[0].codec_name == "libtiff"
    image.tile = with_raw_mode(image.tile, lambda _: "RGBA")
    load(image)
    stored = np.ascontiguousarray(np.asarray(image))
    little = _LITTLE if native else bool(tags) and getattr(image, "tag_v2").prefix == b"II"  # noqa: B009
    return stored.view("<u2" if little else ">u2").astype(np.uint16)


def _planes(image: ImageFile.ImageFile, count: int) -> NDArray[np.uint16]:
    """Return [H, W, C] of a TIFF with a plane for each channel."""
    if image.tile[0].codec_name != "raw":
        raise BadImage("the file stores 16-bit colours in separate compressed planes: save it with interleaved samples")
    each = len(image.tile) // count
    mode = "I;16" if getattr(image, "tag_v2").prefix == b"II" else "I;16B"  # noqa: B009
    planes = []
    for plane in range(count):
        twin = open_again(image)
        twin._mode = mode
        tiles = image.tile[plane * each : (plane + 1) * each]
        twin.tile = with_raw_mode(tiles, lambda _: mode)
        load(twin)
        planes.append(np.asarray(twin).astype(np.uint16))
    return np.stack(planes, axis=2)


def _grey(image: ImageFile.ImageFile) -> NDArray[Any]:
    if image.tile and image.tile[0].codec_name == "libtiff" and raw_mode(image) in _NATIVE:
        image.tile = with_raw_mode(image.tile, lambda mode: _NATIVE[mode])
    load(image)
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadImage("the image holds pixels that are no finite numbers (NaN or infinite): save it as 8 or 16 bits")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _tags(image: ImageFile.ImageFile) -> Any:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _first(tag: object) -> float:
    """Return a TIFF tag's first number, or 0."""
    value = tag[0] if isinstance(tag, tuple) and tag else tag
    return float(value) if isinstance(value, int | float) else 0.0
