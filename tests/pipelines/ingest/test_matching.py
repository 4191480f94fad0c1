"""What senders say and what they send: rows and files that do not meet are counted and named by an ingest."""

import io
import unicodedata
from datetime import UTC, datetime

import pytest
from PIL import Image

from pipelines.catalogue import connect
from pipelines.datasets.decisions import find_sample
from pipelines.ingest.open_notes import forget, open_notes
from tests.pipelines.hostile import textured
from tests.pipelines.ingest.conftest import Line, image_file
from tests.pipelines.ingest.test_ingest import mask_file

NFC, NFD = "Gehäuse", unicodedata.normalize("NFD", "Gehäuse")


def lines(summary: dict, *words: str) -> list[str]:
    return [text for text in summary["lines"] if all(word in text for word in words)]


@pytest.mark.parametrize("file", ["Good/0.PNG", r"D:\images\good\0.png", "/good/0.png", "../good/0.png", "good/0.jpg"])
def test_ingest_when_a_row_fits_no_file_then_names_row_and_file_and_takes_the_image(line: Line, file: str):
    line.send("index.csv", f"file,split\ngood/1.png,test\n{file},test\n".encode())
    line.send("good/0.png", image_file(0))
    line.send("good/1.png", image_file(1))
    summary = line.ingest()
    assert summary["accepted"] == 2
    (row,) = lines(summary, "index.csv names 1 file not there")
    assert "row 3" in row
    assert file in row
    (without,) = lines(summary, "index.csv has no row for 1 file")
    assert "good/0.png" in without
    notes = open_notes(line.storage, "line")
    assert len(notes) == 2
    forget(line.storage, "line", notes)
    assert open_notes(line.storage, "line") == []


def test_ingest_when_files_come_after_their_rows_then_the_note_goes(line: Line):
    line.send("good/index.csv", b"file,group\na.png,x\nb.png,y\nc.png,z\n")
    line.send("good/a.png", image_file(1))
    assert lines(line.ingest(), "names 2 files not there", "row 3 b.png", "row 4 c.png")
    line.send("good/b.png", image_file(2))
    assert lines(line.ingest(), "names 1 file not there", "row 4 c.png")
    assert len(open_notes(line.storage, "line")) == 1
    line.send("good/c.png", image_file(3))
    assert not lines(line.ingest(), "not there")
    assert open_notes(line.storage, "line") == []


def test_ingest_when_an_index_lies_in_a_subfolder_then_holds_there_and_nowhere_else(line: Line):
    line.send("good/lot/index.csv", b"file,split,group\n0.png,test,part-A\ndeep/1.png,test,part-A\n")
    for seed, path in enumerate(("good/lot/0.png", "good/lot/deep/1.png", "good/2.png", "good/lot/deep/3.png")):
        line.send(path, image_file(seed))
    summary = line.ingest()
    assert summary["accepted"] == 4
    assert sorted(row["group_key"] == "part-A" for row in line.samples) == [False, False, True, True]
    (without,) = lines(summary, "has no row for 1 file")
    assert "good/lot/deep/3.png" in without


@pytest.mark.parametrize(("in_index", "in_inbox"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_ingest_when_names_are_composed_or_decomposed_then_they_are_the_same(line: Line, in_index: str, in_inbox: str):
    line.send("index.csv", f"file,group\ngood/{in_index}_0.png,Teil-1\nanomaly/{in_index}_7.png,Teil-3\n".encode())
    line.send(f"good/{in_inbox}_0.png", image_file(0))
    line.send(f"anomaly/{in_inbox}_7.png", image_file(7))
    line.send(f"anomaly/{in_index}_7_mask.png", mask_file())
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"], summary["waiting"]) == (2, 0, 0)
    assert not lines(summary, "index")
    assert line.keys("inbox") == []
    assert {row["group_key"] for row in line.samples} == {"Teil-1", "Teil-3"}
    assert {row["source_key"] for row in line.samples} == {
        f"line/inbox/good/{NFC}_0.png",
        f"line/inbox/anomaly/{NFC}_7.png",
    }
    with connect() as connection:
        assert find_sample(connection, "line", f"{NFD}_0.png") == find_sample(connection, "line", f"{NFC}_0.png")
    late = [row for row in line.labelled if row["label"] == "anomaly"]
    assert late[0]["mask_key"]


def test_ingest_when_a_mask_comes_late_under_the_other_form_then_finds_its_image(line: Line):
    line.send(f"anomaly/{NFD}.png", image_file(7))
    line.ingest()
    line.send(f"anomaly/{NFC}_mask.png", mask_file())
    assert line.ingest()["annotated"] == 1
    assert line.labelled[0]["mask_key"]


def test_ingest_when_columns_or_rows_are_not_used_then_says_so(line: Line):
    text = b"file,label,speed,empty\na.png,good,7,\na.png,good,8,\n,good,9,\nb.png,good,7,,surplus\n"
    line.send("good/index.csv", text)
    line.send("good/a.png", image_file(1))
    line.send("good/b.png", image_file(2))
    summary = line.ingest()
    assert lines(summary, "label, speed")
    assert not lines(summary, "empty")
    assert lines(summary, "twice", "rows 2 and 3")
    assert lines(summary, "row 4")
    assert lines(summary, "row 5")


def test_ingest_when_a_group_column_is_declared_then_it_is_used(make_line, database):
    line = make_line(group={"column": "Location"})
    line.send("good/index.csv", b"file,location\na.png,north\n")
    line.send("good/a.png", image_file(1))
    assert not lines(line.ingest(), "columns")


def test_ingest_when_a_time_cannot_be_read_then_names_the_row_and_the_mail_will(line: Line):
    line.send("good/index.csv", b"file,acquired_at\na.png,01.05.2026 13:30\nb.png,05/06/2026\n")
    line.send("good/a.png", image_file(1))
    line.send("good/b.png", image_file(2))
    summary = line.ingest()
    (note,) = lines(summary, "good/b.png", "05/06/2026")
    assert "row 3 of good/index.csv" in note
    assert any("05/06/2026" in text for text in open_notes(line.storage, "line"))


def photo(seed: int, taken: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = taken
    out = io.BytesIO()
    textured(40, 40, seed=seed).save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_ingest_when_exif_says_when_then_it_counts_where_the_index_says_nothing(make_line, database):
    line = make_line(timezone="Europe/Berlin")
    line.send("good/index.csv", b"file,acquired_at\na.jpg,2026-04-01T00:00:00Z\nb.jpg,never\n")
    for seed, name in enumerate("abc"):
        line.send(f"good/{name}.jpg", photo(seed, "2026:05:01 13:30:00"))
    line.send("good/d.jpg", photo(9, "0000:00:00 00:00:00"))
    summary = line.ingest()
    times = {row["source_key"][-5:]: row["acquired_at"] for row in line.samples}
    half_past_one = datetime(2026, 5, 1, 11, 30, tzinfo=UTC)
    assert times["a.jpg"] == datetime(2026, 4, 1, tzinfo=UTC)
    assert times["b.jpg"] == times["c.jpg"] == half_past_one
    assert times["d.jpg"] is None
    assert lines(summary, "note good/d.jpg", "0000:00:00")


@pytest.mark.parametrize(
    ("data", "files"),
    [
        ("file;group\r\ngood/ä.png;A\r\n".encode("utf-8-sig"), 1),
        ("file;group\r\ngood/ä.png;A\r\n".encode("cp1252"), 1),
        ("file\tgroup\r\ngood/ä.png\tA\r\n".encode("utf-16"), 1),
        ("sep=;\r\nfile;group\r\ngood/ä.png;A\r\n".encode(), 1),
        ('"file",group\rgood/ä.png,A\r\r,,\r'.encode(), 1),
        ('"sep=\t"\nImage Path\tgroup\n"good/ä.png"\tA\n'.encode(), 1),
        ("file|group\ngood/ä.png|A, B; C\n".encode(), 1),
    ],
)
def test_ingest_when_a_spreadsheet_wrote_the_index_then_it_is_read(line: Line, data: bytes, files: int):
    line.send("index.csv", data)
    line.send("good/ä.png", image_file(1))
    summary = line.ingest()
    assert summary["accepted"] == files
    assert line.samples[0]["group_key"].startswith("A")
    assert not lines(summary, "not there")


@pytest.mark.parametrize("data", ["file\ngood/ä.png\n".encode("cp850"), b"PK\x03\x04 a workbook", b"file\n\x00\xff"])
def test_ingest_when_letters_of_an_index_cannot_be_told_then_its_images_wait(line: Line, data: bytes):
    line.send("index.csv", data)
    line.send("good/a.png", image_file(1))
    summary = line.ingest()
    assert (summary["accepted"], summary["waiting"]) == (0, 1)
    assert lines(summary, "index.csv", "UTF-8")
