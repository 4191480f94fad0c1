"""Files that look like annotations and are in no form that is read stop an import that would guess labels."""

import json
import zipfile
from pathlib import Path

import pytest

from pipelines.ingest.plan_import import plan_import
from tests.pipelines.ingest.test_plan_import import counts, draw


def write(folder: Path, name: str, content: object) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


UNREAD = [
    pytest.param("labels.csv", "filename,label\na.png,good\nb.png,scratch\n", id="labels in a CSV"),
    pytest.param("labels.csv", "id;label\na;good\nb;scratch\n", id="stems in a CSV"),
    pytest.param("labels.csv", "images/a.png   1.0  mono\nimages/b.png   0.0  poly\n", id="columns of blanks"),
    pytest.param("boxes.csv", "ImageID,LabelName,XMin,XMax\na,/m/01,0.1,0.5\nb,/m/01,0.1,0.5\n", id="Open Images"),
    pytest.param("_classes.csv", "filename, dent, scratch\na.png, 1, 0\nb.png, 0, 0\n", id="Roboflow's classes"),
    pytest.param("labels.txt", "a.png 0\nb.png 1\n", id="labels in a text"),
    pytest.param("_annotations.txt", "a.png 1,1,10,10,0\n", id="Keras"),
    pytest.param("labelTxt/a.txt", "1 1 9 1 9 9 1 9 dent 0\n", id="DOTA"),
    pytest.param("x.json", [{"image": "a.png", "annotations": [{"label": "dent"}]}], id="CreateML"),
    pytest.param("x.json", {"items": [{"id": "a", "image": {"path": "a.png"}}]}, id="Datumaro"),
    pytest.param("x.json", {"a.png": "good"}, id="a dictionary"),
    pytest.param("ann/a.png.json", {"objects": [{"classTitle": "dent"}]}, id="Supervisely"),
    pytest.param("x.jsonl", '{"image": "a.png", "suffix": "dent"}\n', id="JSON lines"),
    pytest.param("x.xml", '<dataset><img src="C:\\\\set\\\\a.png"/></dataset>', id="some XML"),
    pytest.param("annotations.json", [{"shapes": [], "tracks": []}], id="a CVAT task, without names"),
    pytest.param("labels.zip", "PK", id="an archive of labels"),
    pytest.param("Annotations.mat", "MATLAB", id="Matlab"),
]


@pytest.mark.parametrize(("name", "content"), UNREAD)
def test_plan_when_a_file_looks_like_annotations_then_labels_are_not_guessed(tmp_path: Path, name: str, content):
    draw(tmp_path / "data", "a.png", "b.png")
    write(tmp_path / "data", name, content)
    assert any(name in problem for problem in plan_import(tmp_path / "data").problems)
    assert counts(plan_import(tmp_path / "data", {".": "good"})) == {"good": 2}, "somebody says so"
    (tmp_path / "data" / "index.csv").write_text("file,label\na.png,good\nb.png,unlabelled\n")
    assert counts(plan_import(tmp_path / "data")) == {"good": 1, "unlabelled": 1}


@pytest.mark.parametrize(("name", "content"), UNREAD)
def test_plan_when_folders_say_the_labels_then_the_file_is_named_in_a_note(tmp_path: Path, name: str, content):
    draw(tmp_path, "good/a.png", "bad/b.png")
    write(tmp_path, name, content)
    plan = plan_import(tmp_path)
    assert counts(plan) == {"anomaly/anomaly": 1, "good": 1}
    assert any(name in note for note in plan.notes)


def test_plan_when_a_workbook_names_images_then_labels_are_not_guessed(tmp_path: Path):
    draw(tmp_path, "a.png")
    with zipfile.ZipFile(tmp_path / "parts.xlsx", "w") as book:
        book.writestr("xl/sharedStrings.xml", "<sst><si><t>a.png</t></si></sst>")
    assert any("parts.xlsx" in problem for problem in plan_import(tmp_path).problems)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.txt", "a.png\n"),
        ("README.txt", "a.png shows a part"),
        ("settings.json", {"exposure": 4}),
        ("data.yaml", "nc: 1"),
        ("SHA256.txt", "0123456789abcdef0123456789abcdef  a.png\n"),
        ("classes.txt", "dent\nscratch\n"),
        ("calibration.csv", "k1,k2\n0.1,0.2\n"),
        ("labels.csv", ""),
        ("broken.xlsx", "no workbook"),
    ],
)
def test_plan_when_other_files_say_nothing_of_images_then_goes_on(tmp_path: Path, name: str, content):
    draw(tmp_path, "a.png")
    write(tmp_path, name, content)
    plan = plan_import(tmp_path)
    assert counts(plan) == {"good": 1} if name != "labels.csv" else plan.problems


@pytest.mark.parametrize("name", ["bad/2_bin.png", "bad/2-segmentation.png", "good/task-1-annotation-1-tag-dent.png"])
def test_plan_when_a_picture_has_few_values_among_photographs_then_it_is_no_image(tmp_path: Path, name: str):
    draw(tmp_path, "good/1.png", "bad/2.png", f"mask:{name}")
    assert any(name in problem for problem in plan_import(tmp_path).problems)
    assert sum(counts(plan_import(tmp_path, {name.split("/")[0]: "anomaly"})).values()) == 3


def test_plan_when_a_mask_has_its_word_in_front_then_it_is_paired(tmp_path: Path):
    plan = plan_import(draw(tmp_path, "good/1.png", "bad/2.png", "mask:bad/mask_2.png", "good/mask_7.png"))
    assert counts(plan) == {"anomaly/anomaly": 1, "good": 2}
    assert plan.masks == 1


def test_plan_when_masks_are_in_a_format_that_is_not_read_then_they_are_named(tmp_path: Path):
    draw(tmp_path, "good/1.png", "bad/2.png")
    for name in ("masks/2.npy", "masks/2.gif"):
        write(tmp_path, name, "x")
    assert any("2.npy" in problem and "2.gif" in problem for problem in plan_import(tmp_path).problems)
    assert counts(plan_import(tmp_path, {"masks": "ignore"})) == {"anomaly/anomaly": 1, "good": 1}


def test_plan_when_pictures_archives_links_or_empty_files_are_of_no_use_then_says_which(tmp_path: Path):
    draw(tmp_path, "good/1.png")
    for name in ("bad/2.heic", "bad/more.zip"):
        write(tmp_path, name, "x")
    (tmp_path / "good" / "empty.png").write_bytes(b"")
    (tmp_path / "good" / "gone.png").symlink_to("/nowhere/gone.png")
    notes = "\n".join(plan_import(tmp_path).notes)
    for name in ("2.heic", "more.zip", "empty.png", "gone.png"):
        assert name in notes


def test_plan_when_a_folder_cannot_be_read_then_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    draw(tmp_path, "good/1.png")
    monkeypatch.chdir(tmp_path / "good")
    for _ in range(60):  # deeper than a path may be long
        Path("y" * 80).mkdir()
        monkeypatch.chdir("y" * 80)
    monkeypatch.chdir(tmp_path)
    assert any("yyyy" in problem for problem in plan_import(tmp_path).problems)


def test_lines_when_names_hold_control_characters_then_each_line_stays_one(tmp_path: Path):
    draw(tmp_path, "bad\nx/1.png", "good/t\x1b[31m/2.png", "odd\u202e/3.png")
    (tmp_path / "x\n.json").write_text("{")
    lines = plan_import(tmp_path).lines()
    assert not any(set(line) & set("\n\x1b\u202e") for line in lines)
    assert any("bad\\nx" in line for line in lines)


def test_plan_when_paths_are_long_then_names_in_the_inbox_are_short_and_apart(tmp_path: Path):
    deep = "/".join(["x" * 60] * 14)
    plan = plan_import(draw(tmp_path, f"good/{deep}/1.png", f"good/{deep}/2.png", f"good/{'ü' * 120}.png"))
    names = [image.name for image in plan.images]
    assert len(set(names)) == 3
    assert all(len(name.encode()) < 700 and all(len(part.encode()) < 170 for part in name.split("/")) for name in names)
