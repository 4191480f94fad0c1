"""Masks on their way in: noted where they mark nothing or nearly everything, and turned with their image."""

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.images.masks import open_mask, read_classes
from pipelines.images.orientation import turned
from tests.conftest import Projects
from tests.pipelines.hostile import encode, textured
from tests.pipelines.ingest.conftest import Line, image_file

REGION = np.zeros((40, 40), np.uint8)
REGION[5:15, 8:20] = 3


@pytest.fixture
def line(projects: Projects, database: str) -> Line:
    projects.write("line")
    return Line(projects.bucket)


def mask_file(values: np.ndarray) -> bytes:
    return encode(Image.fromarray(values))


def turned_image(orientation: int, width: int = 60, height: int = 40) -> bytes:
    """Return a JPEG stored as `width` x `height` pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(textured(width, height, seed=3), "JPEG", exif=exif)


def notes_of(report: dict[str, Any]) -> list[str]:
    return [text for text in report["lines"] if text.startswith("note ")]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("mask", "word"), [(REGION * 0, "nothing"), (255 - 85 * REGION, "nearly everything"), (REGION, None)]
)
def test_ingest_when_a_mask_marks_nothing_or_nearly_everything_then_taken_with_a_note(
    line: Line, mask: np.ndarray, word: str | None, late: bool
):
    line.send("anomaly/scratch/7.png", image_file(1))
    if late:
        line.ingest()
    line.send("anomaly/scratch/7_mask.png", mask_file(mask.astype(np.uint8)))
    report = line.ingest()
    assert report["rejected"] == 0
    assert line.labelled[0]["mask_key"]
    notes = notes_of(report)
    assert len(notes) == (word is not None)
    assert all(str(word) in note and "scratch/7" in note for note in notes)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_ingest_when_an_image_is_turned_by_exif_then_a_mask_of_its_stored_pixels_is_turned_with_it(
    line: Line, orientation: int, late: bool
):
    values = np.zeros((40, 60), np.uint8)
    values[5:15, 8:20], values[20:30, 40:50] = 1, 4
    line.send("anomaly/7.jpg", turned_image(orientation))
    if late:
        line.ingest()
    line.send("anomaly/7_mask.png", mask_file(values))
    report = line.ingest()
    assert report["rejected"] == 0
    (row,) = line.labelled
    stored = line.storage.get(row["mask_key"])
    expected = turned(values, orientation)
    assert (row["height"], row["width"]) == expected.shape
    np.testing.assert_array_equal(read_classes(stored, (row["width"], row["height"])), expected)
    assert len(notes_of(report)) == (orientation == 3)  # it fits either way round, and nobody said which


def test_ingest_when_a_mask_is_upright_then_stored_as_sent(line: Line):
    values = np.zeros((60, 40), np.uint8)
    values[5:15, 8:20] = 255
    line.send("anomaly/7.jpg", turned_image(6))
    line.send("anomaly/7_mask.png", mask_file(values))
    line.ingest()
    stored = line.storage.get(line.labelled[0]["mask_key"])
    assert stored == mask_file(values)
    np.testing.assert_array_equal(open_mask(stored, (40, 60)), values > 0)


@pytest.mark.parametrize("late", [False, True])
def test_ingest_when_a_mask_fits_no_size_of_a_turned_image_then_the_reason_says_that_exif_turns_it(
    line: Line, late: bool
):
    line.send("anomaly/7.jpg", turned_image(6))
    if late:
        line.ingest()
    line.send("anomaly/7_mask.png", mask_file(REGION))
    report = line.ingest()
    assert report["rejected"] == 1
    reason = next(text for text in report["lines"] if text.startswith("rejected"))
    assert "EXIF" in reason
    assert "40 x 60" in reason
    assert "60 x 40" in reason


def test_ingest_when_repeated_then_a_turned_mask_is_stored_under_the_same_key(line: Line):
    values = np.zeros((40, 60), np.uint8)
    values[5:15, 8:20] = 1
    keys = set()
    for run in range(2):
        line.send("anomaly/7.jpg", turned_image(6))
        line.send("anomaly/7_mask.png", mask_file(values))
        line.ingest(f"again-{run}")
        keys.add(line.labelled[0]["mask_key"])
    assert len(keys) == 1
    sha256 = hashlib.sha256(line.storage.get(keys.pop())).hexdigest()
    assert Image.open(io.BytesIO(line.storage.get(f"line/samples/{sha256[:2]}/{sha256}_mask.png"))).size == (40, 60)
