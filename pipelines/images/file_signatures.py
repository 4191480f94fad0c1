"""Inspect the structure of an image file without decoding it: format, size and completeness.

Needed because Pillow decodes a truncated file if all pixel rows are present, and does not verify the checksums of a
PNG's pixel data.
"""

from __future__ import annotations

import re
import struct
import zlib

_KINDS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"8BPS", "Photoshop"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!DOCTYPE html", "HTML"),
)
# In JPEG entropy-coded data, ff is followed by 00 (escaped ff), d0-d7 (restart) or ff (fill); all else is a marker.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def looks_like(data: bytes) -> str | None:
    """Return the file format identified by the leading bytes of `data` (`JPEG`, `GIF`, `PDF`…), or None."""
    for magic, kind in _KINDS:
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "HEIC, AVIF or video"
    return None


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels from a WebP header (RFC 9649, section 2), None for other formats."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def truncation(data: bytes) -> str | None:
    """Return what is missing or damaged in a JPEG, PNG or WebP file, None if it is complete or of another format."""
    kind = looks_like(data)
    if kind == "JPEG":
        return None if _jpeg_ends(data) else "its end marker is missing"
    if kind == "PNG":
        return _png_fault(data)
    if kind == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        return "its last bytes are missing"
    return None


def _jpeg_ends(data: bytes) -> bool:
    """Return whether a JPEG's segments (ITU-T T.81, annex B) reach an end-of-image marker; later bytes are ignored."""
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        code = data[marker.start() + 1]
        if code == 0xD9:
            return True
        if code in (0x01, 0xD8):  # markers without a segment
            position = marker.end()
        else:
            position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _png_fault(data: bytes) -> str | None:
    """Verify the critical chunks of a PNG (ISO/IEC 15948, section 5) up to its end chunk; return what is wrong."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            break
        critical = not kind[0] & 0x20
        if critical and zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"the checksum of its {kind.decode('latin-1')} chunk is wrong"
        if kind == b"IEND":
            return None
        position = end + 4
    return "its end chunk is missing"
