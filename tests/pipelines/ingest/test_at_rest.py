"""Files that are still being written to a bucket that is a folder: they stay until they are whole."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipelines.ingest import at_rest, ingest_batch, list_inbox
from pipelines.storage.s3 import Storage
from tests.pipelines.ingest.conftest import Line, image_file
from tests.pipelines.ingest.folder import FolderBucket, serve_folder
from tests.pipelines.ingest.test_ingest import mask_file


@pytest.fixture
def shared(projects, database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FolderBucket]:
    """Serve a folder, and point the project `line` at it."""
    served = serve_folder(tmp_path / "s3", projects.bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint)
    projects.write("line")
    try:
        yield served
    finally:
        served.close()


@pytest.fixture
def line(shared: FolderBucket) -> Line:
    return Line(shared.bucket)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch):
    """Return a function that lets seconds pass for the rule: time is the only thing faked in these tests."""
    real, passed = at_rest.now, [0.0]

    def now() -> datetime:
        return real() + timedelta(seconds=passed[0])

    monkeypatch.setattr(at_rest, "now", now)

    def let_pass(seconds: float) -> None:
        passed[0] += seconds

    return let_pass


def states(line: Line) -> tuple[int, int, int]:
    summary = line.ingest()
    return summary["accepted"], summary["rejected"], summary["waiting"]


WHOLE = image_file(1, "BMP")


@pytest.mark.parametrize("half", [WHOLE[: len(WHOLE) // 2], WHOLE[:2000] + bytes(len(WHOLE) - 2000), b""])
def test_ingest_when_a_file_is_being_copied_then_it_waits_and_is_taken_whole(shared, line, later, half: bytes):
    file = shared.write("good/a.bmp", half, age=0)
    shared.write("good/b.png", image_file(2))
    assert states(line) == (1, 0, 1)
    assert file.read_bytes() == half
    later(20)
    shared.write("good/a.bmp", WHOLE, age=-20)  # goes on being written: the clock has moved by 20 s
    assert states(line) == (0, 0, 1)
    later(15)
    assert states(line) == (0, 0, 1)
    later(16)
    assert states(line) == (1, 0, 0)
    assert {row["size_bytes"] for row in line.samples} == {len(WHOLE), len(image_file(2))}


def test_ingest_when_files_wait_then_the_report_names_them(shared, line):
    shared.write("good/a.bmp", WHOLE[:500], age=0)
    summary = line.ingest()
    assert any("good/a.bmp" in text and text.startswith("waiting: 1") for text in summary["lines"])


def test_ingest_when_the_time_is_that_of_the_original_from_the_start_then_changes_still_count(shared, line, later):
    shared.write("good/a.bmp", WHOLE[:2000] + bytes(len(WHOLE) - 2000), age=0)
    assert states(line) == (0, 0, 1)
    shared.write("good/a.bmp", WHOLE[:4000] + bytes(len(WHOLE) - 4000), age=86_400)
    later(10)
    assert states(line) == (0, 0, 1)
    later(10)
    shared.write("good/a.bmp", WHOLE, age=86_400)
    assert states(line) == (0, 0, 1)
    later(31)
    assert states(line) == (1, 0, 0)


def test_ingest_when_a_clock_is_ahead_then_two_looks_decide(shared, line, later):
    shared.write("good/a.bmp", WHOLE, age=-7200)
    assert states(line) == (0, 0, 1)
    later(31)
    assert states(line) == (1, 0, 0)


def test_ingest_when_patient_then_waits_within_the_run(shared, line, monkeypatch):
    monkeypatch.setenv("INSPECTLINE_REST_SECONDS", "2")
    shared.write("good/a.bmp", WHOLE, age=0)
    began = time.monotonic()
    assert len(list_inbox("line", "run", patience=3)["batches"]) == 1
    assert time.monotonic() - began < 3
    shared.write("good/b.bmp", WHOLE, age=0)
    assert list_inbox("line", "run2")["waiting"] == 1


def test_ingest_when_mask_or_index_is_being_copied_then_what_belongs_to_it_waits(shared, line, later):
    shared.write("anomaly/dent/a.png", image_file(1))
    shared.write("anomaly/dent/a_mask.png", mask_file()[:60], age=0)
    shared.write("anomaly/dent/b.png", image_file(2)[:90], age=0)
    shared.write("anomaly/dent/b_mask.png", mask_file(seed=1), age=10**7)  # older than a mask waits for its image
    shared.write("good/index.csv", b"file,group\nc.png,lo", age=0)
    shared.write("good/c.png", image_file(3))
    assert states(line) == (0, 0, 6)
    later(31)
    shared.write("anomaly/dent/a_mask.png", mask_file(), age=-31)
    shared.write("anomaly/dent/b.png", image_file(2), age=-31)
    shared.write("good/index.csv", b"file,group\nc.png,lot\n", age=-31)
    assert states(line) == (0, 0, 6), "they have just changed"
    later(31)
    assert states(line) == (3, 0, 0)
    assert sorted(row["mask_key"] is not None for row in line.labelled) == [False, True, True]
    assert "lot" in {row["group_key"] for row in line.samples}


def test_ingest_when_old_mask_and_index_come_before_their_images_then_they_wait(shared, line):
    shared.write("anomaly/a_mask.png", mask_file(), age=10**7)
    shared.write("good/index.csv", b"file,group\nb.png,lot\n", age=10**7)
    for _ in range(2):
        summary = line.ingest()
        assert (summary["rejected"], line.keys("inbox")) == (0, ["anomaly/a_mask.png", "good/index.csv"])


def test_ingest_when_a_file_changes_between_listing_and_reading_then_waits(shared, line):
    shared.write("good/a.bmp", WHOLE)
    (batch,) = list_inbox("line", "run")["batches"]
    shared.write("good/a.bmp", WHOLE[:3000] + bytes(len(WHOLE) - 3000), age=0)
    result = ingest_batch(batch)
    assert (result["waiting"], result["accepted"], result["rejected"]) == (1, 0, 0)


def test_ingest_when_copies_are_unfinished_by_name_then_leaves_them_and_the_names_that_they_will_have(shared, line):
    for name in (".a.png.X1b2", "b.png.part", "c.png.crdownload", "d.png.tmp", "e.PARTIAL", "~$f.png"):
        shared.write(f"good/{name}", image_file(5)[:100])
    shared.write("good/b.png", b"")  # reserved by the browser
    shared.write("good/g.png", image_file(6))
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"], summary["waiting"]) == (1, 0, 7)
    assert len([key for key in line.keys("inbox") if not key.endswith(".keep")]) == 7
    assert any("b.png.part" in text for text in summary["lines"])


def test_ingest_when_system_files_lie_about_then_says_nothing_of_them(shared, line):
    for path in ("good/.DS_Store", "good/thumbs.DB", "desktop.ini", "good/._a.png", "__MACOSX/good/a.png"):
        shared.write(path, b"system")
    summary = line.ingest()
    assert summary["lines"] == ["line: nothing new in the inbox"]
    assert len(line.keys("inbox")) == 5


@pytest.mark.parametrize("known", [True, False])
def test_ingest_when_a_folder_was_made_by_people_then_it_stays(shared, line, monkeypatch, known: bool):
    if known:
        monkeypatch.setenv("INSPECTLINE_BUCKET_FOLDER", str(shared.folder))
    file = shared.write("good/Linie 3/a.png", image_file(1))
    shared.write("good/Linie 3/index.csv", b"file,group\na.png,lot\n")
    shared.write("anomaly/dent/bad.png", b"no image")
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"]) == (1, 1)
    inbox = file.parents[2]
    assert file.parent.is_dir()
    assert (inbox / "anomaly" / "dent").is_dir()
    left = [path for path in inbox.rglob("*") if path.is_file()]
    assert left == [] if known else {path.name for path in left} == {".keep"}
    assert not list(inbox.rglob(".localbucket*"))
    shutil.copy(__file__, file.parent / "b.png")
    os.utime(file.parent / "b.png", (0, 0))
    assert line.ingest()["rejected"] == 1
    assert line.ingest()["lines"] == ["line: nothing new in the inbox"]


def test_ingest_when_an_import_made_the_folder_then_it_goes(shared, line, monkeypatch):
    monkeypatch.setenv("INSPECTLINE_BUCKET_FOLDER", str(shared.folder))
    file = shared.write("good/import-0a1b2c3d/train/a.png", image_file(1))
    date = shared.write("good/import-20260501/b.png", image_file(2))
    assert line.ingest()["accepted"] == 2
    assert not file.parents[1].exists()
    assert date.parent.is_dir()


def test_rest_seconds_when_objects_appear_whole_is_nothing(projects, database, monkeypatch):
    storage = Storage(projects.bucket)  # a real S3 endpoint, which serves no folder
    assert at_rest.rest_seconds(storage) == 0
    monkeypatch.setenv("INSPECTLINE_REST_SECONDS", "12.5")
    assert at_rest.rest_seconds(storage) == 12.5


def test_looks_when_the_stored_ones_are_altered_then_begin_anew(shared, line):
    shared.write("good/a.bmp", WHOLE, age=0)
    for text in (b"[1]", b"nonsense", json.dumps({"k": [1]}).encode()):
        line.storage.put("line/ingest/state/looks.json", text)
        assert states(line) == (0, 0, 1)
