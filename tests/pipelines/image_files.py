"""Image files of kinds that Pillow cannot write: PNG and TIFF of 16 bits with any channels, TIFF with several pages."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.pipelines.hostile import png_chunk

_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels


def png16(samples: np.ndarray, transparent: Sequence[int] | None = None) -> bytes:
    """Return uint16 [H, W] or [H, W, C] (grey, grey and alpha, RGB, RGBA) as a PNG, with a transparent colour."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    data = zlib.compress(np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes())
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR[channels], 0, 0, 0)
    key = png_chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + key + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def tiff(*pages: np.ndarray, order: str = "<", **options: Any) -> bytes:
    """Return arrays [H, W] or [H, W, C] of any number type as the pages of a TIFF.

    Args:
        pages: the pages.
        order: byte order, `<` or `>`.
        options: `compressed` (False), `planar` (False), `photometric`, `extra` (what the last channel is), and `tags`,
            for each page further tags by number, each with one value.
    """
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    pointer = 4  # where the address of the next directory goes
    every_tags = options.get("tags") or [{}] * len(pages)
    for samples, more in zip(pages, every_tags, strict=True):
        pointer = _add_page(out, pointer, samples, order, options, more)
    return bytes(out)


def _add_page(
    out: bytearray, pointer: int, samples: np.ndarray, order: str, options: dict[str, Any], more: dict[int, int]
) -> int:
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    planes = np.moveaxis(samples, 2, 0) if options.get("planar") else [samples]
    strips = [np.ascontiguousarray(plane.astype(samples.dtype.newbyteorder(order))).tobytes() for plane in planes]
    if options.get("compressed"):
        strips = [zlib.compress(strip) for strip in strips]
    places = []
    for strip in strips:
        places.append(len(out))
        out += strip + bytes(len(strip) % 2)
    shorts = {
        258: [samples.dtype.itemsize * 8] * channels,
        259: [8 if options.get("compressed") else 1],
        262: [options.get("photometric", 2 if channels >= 3 else 1)],
        277: [channels],
        284: [2 if options.get("planar") else 1],
        339: [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * channels,
    }
    if channels in (2, 4):
        shorts[338] = [options.get("extra", 2)]
    longs = {256: [width], 257: [height], 273: places, 278: [height], 279: [len(strip) for strip in strips]}
    longs |= {tag: [value] for tag, value in more.items()}
    entries = sorted([(tag, "H", values) for tag, values in shorts.items()] + [(t, "I", v) for t, v in longs.items()])
    directory = struct.pack(f"{order}H", len(entries))
    start = len(out)
    far = start + 2 + 12 * len(entries) + 4
    tail = b""
    for tag, kind, values in entries:
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        directory += struct.pack(f"{order}HHI", tag, 3 if kind == "H" else 4, len(values))
        if len(raw) > 4:
            directory += struct.pack(f"{order}I", far + len(tail))
            tail += raw + bytes(len(raw) % 2)
        else:
            directory += raw.ljust(4, b"\0")
    out += directory + bytes(4) + tail
    out[pointer : pointer + 4] = struct.pack(f"{order}I", start)
    return start + len(directory)
