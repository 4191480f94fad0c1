"""Imported folders, end to end to the catalogue."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.ingest.import_folder import import_folder, main
from pipelines.ingest.import_index import acquired
from pipelines.ingest.import_plan import BadFolder
from tests.pipelines.hostile import encode
from tests.pipelines.ingest.conftest import Line, image_file


@pytest.fixture
def line(projects, database) -> Line:
    projects.write("line")
    return Line(projects.bucket)


def write(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "data"
    for number in range(12):
        write(folder, f"train/good/{number:03}.png", image_file(number))
    for number in range(6):
        write(folder, f"test/good/{number:03}.png", image_file(100 + number))
        write(folder, f"test/scratch/{number:03}.png", image_file(200 + number))
        write(folder, f"ground_truth/scratch/{number:03}_mask.png", encode(Image.new("L", (40, 40), 255)))
    rows = [f"train/good/{number:03}.png,200828{number:02}0014,row {number % 2}" for number in range(12)]
    write(folder, "index.csv", "\n".join(["path,time_yymmddHHMMSS,location", *rows]).encode())
    return folder


def test_import_when_mvtec_then_split_masks_and_times_arrive(line: Line, mvtec: Path):
    progress = []
    imported = import_folder(mvtec, "line", lambda done, total: progress.append((done, total)))
    assert imported.images == {"good": 18, "anomaly/scratch": 6}
    assert imported.masks == 6
    assert progress[-1] == (30, 30)
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"], summary["waiting"]) == (24, 0, 0)
    assert line.keys("inbox") == [], "the index files are used up and go too"
    subsets = Counter((row["source_key"].split("/")[-3], row["label"], row["subset"]) for row in line.labelled)
    assert subsets["test", "good", "test"] == 6
    assert subsets["test", "anomaly", "anomaly/test"] == 6
    assert subsets["train", "good", "training"] == 9
    assert subsets["train", "good", "validation"] == 3
    assert all(row["mask_key"] for row in line.labelled if row["label"] == "anomaly")
    times = sorted(row["acquired_at"].isoformat() for row in line.samples if row["acquired_at"])
    assert len(times) == 12
    assert times[0] == "2020-08-28T00:00:14+00:00"


def test_import_when_repeated_then_changes_nothing(line: Line, mvtec: Path):
    import_folder(mvtec, "line")
    line.ingest()
    state = line.state()
    import_folder(mvtec, "line")
    assert line.ingest()["known"] == 24
    assert line.state() == state


def test_import_when_two_folders_have_the_same_names_then_do_not_meet(line: Line, tmp_path: Path):
    for number in range(2):
        write(tmp_path / f"set{number}", "good/a.png", image_file(number))
        import_folder(tmp_path / f"set{number}", "line")
    assert line.ingest()["accepted"] == 2


def test_import_when_groups_come_from_a_column_then_are_kept_together(line: Line, mvtec: Path, projects):
    projects.write("line", group={"column": "location"})
    import_folder(mvtec, "line")
    line.ingest()
    groups = {row["group_key"] for row in line.samples if "/train/" in row["source_key"]}
    assert groups == {"row 0", "row 1"}


def test_import_when_good_and_anomaly_only_then_anomalies_have_no_type(line: Line, tmp_path: Path):
    write(tmp_path, "good/a.png", image_file(1))
    write(tmp_path, "anomaly/b.png", image_file(2))
    import_folder(tmp_path, "line")
    line.ingest()
    assert {(row["label"], row["type"]) for row in line.labelled} == {("good", None), ("anomaly", None)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images"),
        ({"a.txt": b"x"}, "holds no images"),
        ({"a.png": b"x", "index.csv": b"x,y\n1,2"}, "'file'"),
    ],
)
def test_main_when_folder_cannot_be_imported_then_says_so_in_one_line(
    line: Line, tmp_path: Path, files, message, capsys
):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, data in files.items():
        write(folder, name, data)
    assert main([str(folder), "line"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert line.keys("inbox") == []


def test_main_when_folder_is_not_there_then_says_so(line: Line, tmp_path: Path, capsys):
    assert main([str(tmp_path / "nowhere"), "line"]) == 1
    assert "is no folder" in capsys.readouterr().err
    with pytest.raises(BadFolder):
        import_folder(tmp_path / "nowhere", "line")


def test_main_when_imported_then_prints_the_counts(line: Line, mvtec: Path, capsys):
    write(mvtec, "notes.txt", b"x")
    assert main([str(mvtec), "line"]) == 0
    out = capsys.readouterr().out
    assert "24 images and 6 masks are in the inbox: 6 anomaly/scratch, 18 good" in out
    assert "1 other files are left aside" in out


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("200828110014", "2020-08-28T11:00:14+02:00"),
        ("20200828110014", "2020-08-28T11:00:14+02:00"),
        ("2020-08-28 11:00:14", "2020-08-28T11:00:14+02:00"),
        ("2020-08-28T11:00:14Z", "2020-08-28T11:00:14+00:00"),
        ("1598612414", "2020-08-28T11:00:14+00:00"),
        ("20200828", "2020-08-28T00:00:00+02:00"),
        ("soon", None),
        ("", None),
        ("999999999999", None),
        ("7", None),
    ],
)
def test_acquired_when_written_as_people_do_then_is_read(text: str, moment: str | None):
    row, unread = acquired({"time": text}, "Europe/Berlin")
    assert row.get("acquired_at") == moment
    assert unread == (f"time {text!r}" if text and not moment else None)


def test_import_when_killed_in_the_middle_then_the_next_one_completes_it(line: Line, mvtec: Path, monkeypatch):
    def killed(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_folder(mvtec, "line", killed)
    line.ingest()
    import_folder(mvtec, "line")
    line.ingest()
    assert len(line.samples) == 24
    assert all(row["mask_key"] for row in line.labelled if row["label"] == "anomaly")
    assert line.keys("inbox") == []
