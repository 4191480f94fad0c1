"""The time at which an image was taken, from the EXIF data of every format that holds them."""

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from pipelines.images.capture_time import capture_time
from tests.pipelines.hostile import textured

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HALF_PAST_ONE = datetime(2026, 5, 1, 11, 30, tzinfo=UTC)  # in Berlin, in summer time
ORIGINAL, DIGITIZED, CHANGED, OFFSET, FRACTION = 0x9003, 0x9004, 0x0132, 0x9011, 0x9291


def file_with(tags: dict[int, str], kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    if kind == "TIFF":  # Pillow writes no EXIF directory of a TIFF from `exif`
        info = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, value in tags.items():
            if tag == CHANGED:
                info[tag] = value
        info[0x8769] = {tag: value for tag, value in tags.items() if tag != CHANGED}
        textured(40, 32).save(out, kind, tiffinfo=info)
        return out.getvalue()
    exif = Image.Exif()
    for tag, value in tags.items():
        if tag == CHANGED:
            exif[tag] = value
        else:
            exif.get_ifd(0x8769)[tag] = value
    textured(40, 32).save(out, kind, exif=exif)
    return out.getvalue()


def taken(tags: dict[int, str], kind: str = "JPEG", zone: str = "Europe/Berlin"):
    return capture_time(file_with(tags, kind), zone, NOW)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_capture_time_when_the_format_holds_exif_then_is_that_of_the_picture(kind: str):
    moment, notes = taken({ORIGINAL: "2026:05:01 13:30:00", CHANGED: "2026:05:20 09:00:00"}, kind)
    assert (moment, notes) == (HALF_PAST_ONE, [])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_capture_time_when_there_is_none_then_is_none_without_a_note(kind: str):
    out = io.BytesIO()
    textured(40, 32).save(out, kind)
    assert capture_time(out.getvalue(), "UTC", NOW) == (None, [])


@pytest.mark.parametrize("offset", ["+02:00", "+0200", "+02:00\x00"])
def test_capture_time_when_it_has_an_offset_then_the_zone_of_the_project_does_not_count(offset: str):
    moment, _ = taken({ORIGINAL: "2026:05:01 13:30:00", OFFSET: offset}, zone="America/New_York")
    assert moment == HALF_PAST_ONE


def test_capture_time_when_it_has_a_fraction_then_keeps_it():
    moment, _ = taken({ORIGINAL: "2026:05:01 13:30:00", FRACTION: "25"})
    assert moment == HALF_PAST_ONE.replace(microsecond=250_000)


@pytest.mark.parametrize("tag", [DIGITIZED, CHANGED])
def test_capture_time_when_only_a_lesser_time_is_there_then_takes_it(tag: int):
    assert taken({tag: "2026:05:01 13:30:00"}) == (HALF_PAST_ONE, [])


@pytest.mark.parametrize(
    "text", ["0000:00:00 00:00:00", "1970:01:01 00:00:00", "2031:01:01 00:00:00", "2026:13:01 00:00:00", "yesterday"]
)
def test_capture_time_when_it_cannot_be_then_says_so_and_takes_the_next(text: str):
    moment, notes = taken({ORIGINAL: text})
    assert moment is None
    assert len(notes) == 1
    assert text in notes[0]
    moment, notes = taken({ORIGINAL: text, DIGITIZED: "2026:05:01 13:30:00"})
    assert (moment, len(notes)) == (HALF_PAST_ONE, 1)


@pytest.mark.parametrize("text", ["    :  :     :  :  ", "", "\x00"])
def test_capture_time_when_it_is_blank_then_says_nothing(text: str):
    assert taken({ORIGINAL: text}) == (None, [])


@given(st.binary(max_size=60), st.integers(0, 400), st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
def test_capture_time_when_the_file_is_damaged_then_gives_a_time_or_none(noise: bytes, place: int, kind: str):
    data = file_with({ORIGINAL: "2026:05:01 13:30:00"}, kind)
    moment, _ = capture_time(data[:place] + noise + data[place + len(noise) :], "UTC", NOW)
    assert moment is None or moment.tzinfo is not None
    capture_time(data[:place], "UTC", NOW)
