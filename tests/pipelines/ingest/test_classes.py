"""Projects with `task: classification`: classes by folder and by index.csv, their split, copies of one photograph."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipelines.catalogue import connect
from pipelines.catalogue.samples import classes_of
from pipelines.config.project import load_project
from pipelines.ingest.submission import BadName, Posted, take_in
from tests.pipelines.ingest.conftest import Line, image_file


@pytest.fixture
def line(make_line, each_database) -> Line:
    return make_line(task="classification")


def photograph(seed: int) -> Image.Image:
    """Return smooth random shades, which differ in every frequency between seeds, at 240 x 180 pixels."""
    shades = np.random.default_rng(seed).integers(30, 200, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(shades).resize((240, 180), Image.Resampling.BICUBIC)


def file(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def copies(image: Image.Image) -> list[bytes]:
    return [
        file(image.resize((120, 90), Image.Resampling.BILINEAR)),
        file(image, "JPEG", quality=50),
        file(ImageEnhance.Brightness(image).enhance(1.08)),
    ]


def labels(line: Line) -> dict[str, str]:
    return {row["source_key"].removeprefix("line/inbox/"): row["label"] for row in line.labelled}


def test_ingest_when_folders_are_classes_labels_by_them_and_splits_each(line: Line):
    line.send_images(50, "amanita muscaria")
    line.send_images(8, "Pfifferling/2026", first=100)
    line.send_images(2, "unlabelled", first=200)
    summary = line.ingest(batch_size=25)
    assert (summary["accepted"], summary["rejected"], summary["unlabelled"]) == (60, 0, 2)
    assert {row["label"] for row in line.annotations} == {"amanita muscaria", "Pfifferling"}
    assert {row["type"] for row in line.annotations} == {None}
    counts = Counter((row["label"], row["subset"]) for row in line.labelled)
    assert counts["amanita muscaria", "training"] == pytest.approx(34, abs=4)
    assert counts["amanita muscaria", "test"] == pytest.approx(10, abs=3)
    assert counts["Pfifferling", "training"] >= 4
    assert counts["Pfifferling", "validation"] >= 1
    assert counts["Pfifferling", "test"] >= 1


@pytest.mark.parametrize("folder", ["good", "anomaly/scratch", "Damage"])
def test_ingest_when_a_folder_is_a_label_of_other_tasks_refuses_its_images(line: Line, folder: str):
    line.send(f"{folder}/a.png", image_file(1))
    assert line.ingest()["rejected"] == 1
    assert "is no name of a class" in line.rejections[0]["reason"]


def test_ingest_when_an_index_gives_classes_takes_them_and_refuses_contradictions(line: Line):
    index = "file,label\na.png,boletus\nunlabelled/b.png,russula\nboletus/c.png,russula\nboletus/d.png,good\n"
    line.send("index.csv", index.encode())
    for seed, path in enumerate(("a.png", "unlabelled/b.png", "boletus/c.png", "boletus/d.png", "e.png")):
        line.send(path, image_file(seed))
    summary = line.ingest()
    assert labels(line) == {"a.png": "boletus", "unlabelled/b.png": "russula", "boletus/d.png": "boletus"}
    reasons = {row["source_key"].rpartition("/")[2]: row["reason"] for row in line.rejections}
    assert set(reasons) == {"c.png", "e.png"}
    assert "index.csv says that it is russula, and its folder says boletus" in reasons["c.png"]
    assert any("'good' (row 5 of index.csv) is left out" in text for text in summary["lines"])


def test_ingest_when_an_index_is_still_unread_its_images_wait_even_beside_it(line: Line):
    line.send("index.csv", b"who,knows\n1,2\n")
    line.send("a.png", image_file(1))
    assert line.ingest()["waiting"] == 1
    line.send("index.csv", b"file,label\na.png,boletus\n")
    line.ingest()
    assert labels(line) == {"a.png": "boletus"}


def test_ingest_when_a_class_is_spelt_in_two_ways_refuses_the_rarer_one(line: Line):
    line.send_images(3, "Amanita muscaria")
    line.send("amanita_muscaria/a.png", image_file(50))
    assert line.ingest()["rejected"] == 1
    assert "send it as 'Amanita muscaria'" in line.rejections[0]["reason"]
    line.send_images(5, "AMANITA-MUSCARIA", first=60)
    assert line.ingest()["rejected"] == 5
    with connect() as connection:
        assert classes_of(connection, "line") == ["Amanita muscaria"]


def test_ingest_when_masks_or_regions_come_refuses_them_and_takes_the_image(line: Line):
    line.send("boletus/a.png", image_file(1))
    line.send("boletus/a_mask.png", image_file(2))
    line.send("boletus/a.regions.json", b"{}")
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"]) == (1, 2)
    assert all("not used by classes" in row["reason"] for row in line.rejections)


def test_ingest_when_the_same_bytes_come_under_two_classes_names_both(line: Line):
    line.send("boletus/a.png", image_file(1))
    line.send("russula/a.png", image_file(1))
    summary = line.ingest()
    assert summary["disputed"] == 1
    assert line.labelled == []
    (text,) = [text for text in summary["lines"] if text.startswith("disputed")]
    assert "boletus" in text
    assert "russula" in text


def test_ingest_when_copies_of_photographs_come_none_sits_on_two_sides(line: Line):
    for seed in range(12):
        line.send(f"boletus/{seed}.png", file(photograph(seed)))
    line.ingest()
    assert len({row["group_key"] for row in line.samples}) == 12
    for seed in range(12):
        for number, data in enumerate(copies(photograph(seed))):
            line.send(f"russula/{seed}-{number}.png", data)
    line.ingest(batch_size=7)
    groups = Counter(row["group_key"] for row in line.samples)
    assert set(groups.values()) == {4}
    assert len(groups) == 12


def test_ingest_when_copies_come_together_then_in_one_group(line: Line):
    for seed in range(10):
        for number, data in enumerate([file(photograph(seed)), *copies(photograph(seed))]):
            line.send(f"boletus/{seed}-{number}.png", data)
    line.ingest(batch_size=7)
    assert set(Counter(row["group_key"] for row in line.samples).values()) == {4}


def test_ingest_when_copies_have_groups_of_their_senders_they_keep_them_and_share_a_side(line: Line):
    rows = [f"{seed}-{number}.png,find-{seed}-{number}" for seed in range(8) for number in range(4)]
    line.send("boletus/index.csv", "\n".join(["file,group", *rows]).encode())
    for seed in range(8):
        for number, data in enumerate([file(photograph(seed)), *copies(photograph(seed))]):
            line.send(f"boletus/{seed}-{number}.png", data)
    line.ingest(batch_size=5)
    assert len(line.sides) == 32
    for seed in range(8):
        assert len({line.sides[f"find-{seed}-{number}"] for number in range(4)}) == 1


def test_ingest_when_images_are_flat_they_are_no_copies_of_each_other(line: Line):
    for shade in (10, 90, 200):
        line.send(f"boletus/{shade}.png", file(Image.new("RGB", (64, 64), (shade, shade, shade))))
    line.ingest()
    assert len({row["group_key"] for row in line.samples}) == 3


def test_ingest_when_a_train_split_is_imported_divides_it_by_class(line: Line):
    rows = [
        f"{name}/{split}-{number}.png,{split}" for name in "ab" for split in ("train", "test") for number in range(20)
    ]
    line.send("index.csv", "\n".join(["file,split", *rows]).encode())
    for seed, row in enumerate(rows):
        line.send(row.partition(",")[0], image_file(seed))
    line.ingest()
    counts = Counter((row["label"], row["subset"]) for row in line.labelled)
    for name in "ab":
        assert counts[name, "test"] == 20
        assert counts[name, "validation"] == 3
        assert counts[name, "training"] == 17


def test_take_in_when_posted_with_a_class_is_a_sample_of_it(line: Line):
    project = load_project("line")
    line.send_images(1, "boletus")
    line.ingest()
    _, state = take_in(project, Posted(image_file(9), "Steinpilz (?)", author="kim"), "retrain")
    assert (state["label"], state["known"]) == ("Steinpilz (?)", False)
    assert state["subset"] in ("training", "validation", "test")
    assert line.keys("inbox") == []
    with pytest.raises(BadName, match="is no name of a class"):
        take_in(project, Posted(image_file(10), "good"), "retrain")
    with pytest.raises(BadName, match="send it as 'boletus'"):
        take_in(project, Posted(image_file(10), "Boletus"), "retrain")


def test_take_in_when_a_copy_is_posted_it_joins_the_group_of_its_original(line: Line):
    line.send("boletus/a.png", file(photograph(1)))
    line.ingest()
    take_in(load_project("line"), Posted(copies(photograph(1))[0], "boletus"), "retrain")
    assert len({row["group_key"] for row in line.samples}) == 1
