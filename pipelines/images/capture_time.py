"""Read when an image was taken from its EXIF data.

The first of these that holds a time (EXIF 2.32, tables 4 and 8): DateTimeOriginal; DateTimeDigitized, which a scanner
writes; DateTime of the file itself, which is all that many industrial cameras write. Each has its own offset from UTC;
without one, the time is in the zone of the project. Cameras whose clock is not set write zeros, blanks or the first day
that they know: such a time is no time.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import timezone as fixed_offset
from typing import Literal
from zoneinfo import ZoneInfo

from PIL import Image, JpegImagePlugin, MpoImagePlugin, TiffImagePlugin

from pipelines.images.file_signatures import looks_like

_PLUGINS = (JpegImagePlugin, MpoImagePlugin, TiffImagePlugin)  # registered here, so that no thread loads them later
_EXIF_IFD = 0x8769
# (name, tag, tag of its offset, tag of its fraction of a second, whether the tag is in the EXIF directory)
_TAGS = (
    ("DateTimeOriginal", 0x9003, 0x9011, 0x9291, True),
    ("DateTimeDigitized", 0x9004, 0x9012, 0x9292, True),
    ("DateTime", 0x0132, 0x9010, 0x9290, False),
)
_FORM = re.compile(r"(\d{4})[:-](\d{2})[:-](\d{2})[ T](\d{2}):(\d{2}):(\d{2})")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)  # before any digital camera; clocks that are not set begin in 1970 or 1980
_AHEAD = timedelta(days=1)  # of a clock in another zone than it believes


def capture_time(data: bytes, timezone: str, now: datetime | None = None) -> tuple[datetime | None, list[str]]:
    """Return when an image file says that it was taken, and a note on each time in it that cannot be.

    Args:
        data: the file; one that holds no EXIF data, or damaged ones, says nothing.
        timezone: zone of times without an offset, an IANA name.
        now: the current time, which no image is more than a day ahead of. Default None: the clock's.

    Returns:
        The time, aware, or None, and the notes.
    """
    notes: list[str] = []
    latest = (now or datetime.now(UTC)) + _AHEAD
    for name, text, offset, fraction in _times(data):
        moment = _read(text, offset, fraction, timezone)
        if moment is not None and _EARLIEST <= moment <= latest:
            return moment, notes
        why = "in the future" if moment is not None and moment > latest else "no time at which an image was taken"
        notes.append(f"EXIF {name} {text[:40]!r} is {why}: left out")
    return None, notes


def _times(data: bytes) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, text, offset and fraction of each time that is not empty, the most meaningful first."""
    try:
        of_file = _exif(data)
        of_image = of_file.get_ifd(_EXIF_IFD) if of_file is not None else {}
    except Exception:  # Pillow raises almost anything on damaged EXIF data, which no image is refused for
        return
    for name, tag, offset, fraction, in_image in _TAGS:
        text = _text((of_image if in_image or of_file is None else of_file).get(tag))
        if text.strip(": "):
            yield name, text, _text(of_image.get(offset)), _text(of_image.get(fraction))


def _exif(data: bytes) -> Image.Exif | None:
    """Return the EXIF data of a file without decoding its pixels."""
    kind = looks_like(data)
    if kind in ("JPEG", "TIFF"):
        return Image.open(io.BytesIO(data), formats=("JPEG", "TIFF")).getexif()  # reads on from the file later
    if kind == "PNG":
        raw = _chunk(data, b"eXIf", start=8, name_first=False, order="big", trailer=4, even=False)
    elif kind == "WEBP":
        raw = _chunk(data, b"EXIF", start=12, name_first=True, order="little", trailer=0, even=True)
    else:
        return None
    if raw is None:
        return None
    exif = Image.Exif()
    exif.load(raw)
    return exif


def _chunk(
    data: bytes,
    wanted: bytes,
    *,
    start: int,
    name_first: bool,
    order: Literal["big", "little"],
    trailer: int,
    even: bool,
) -> bytes | None:
    """Return the first chunk of this name of a PNG file (ISO 15948, 5.3) or a RIFF file (RFC 9649, 2.3), or None."""
    while start + 8 <= len(data):
        first, second = data[start : start + 4], data[start + 4 : start + 8]
        name, size = (first, second) if name_first else (second, first)
        length = int.from_bytes(size, order)
        if name == wanted:
            return data[start + 8 : start + 8 + length]
        start += 8 + length + trailer + (length & 1 if even else 0)
    return None


def _text(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\x00 \t\r\n")


def _read(text: str, offset: str, fraction: str, timezone: str) -> datetime | None:
    match = _FORM.match(text)
    if match is None:
        return None
    digits = re.match(r"\d*", fraction)
    micros = int(digits[0].ljust(6, "0")[:6]) if digits and digits[0] else 0
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        moment = datetime(year, month, day, hour, minute, second, micros)
        return moment.replace(tzinfo=_zone(text[match.end() :].strip() or offset, timezone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _zone(offset: str, timezone: str) -> tzinfo:
    if offset == "Z":
        return UTC
    match = _OFFSET.fullmatch(offset)
    if match is None or int(match[2]) > 14:
        return ZoneInfo(timezone)
    minutes = 60 * int(match[2]) + int(match[3])
    return fixed_offset(timedelta(minutes=-minutes if match[1] == "-" else minutes))
