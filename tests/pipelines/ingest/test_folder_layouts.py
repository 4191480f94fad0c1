"""The layouts of image folders: what is good, what is an anomaly, what is refused."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.ingest.folder_layouts import BadFolder, find_images


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def imported(folder: Path) -> dict[str, tuple[str, str | None, str | None]]:
    images, _ = find_images(folder)
    return {image.name: (image.folder, image.split, image.mask and image.mask.name) for image in images}


def test_find_images_when_mvtec_then_keeps_split_types_and_masks(tmp_path: Path):
    make(tmp_path, "train/good/000.png", "test/good/000.png", "test/scratch/000.png", "test/dent/000.png")
    make(tmp_path, "ground_truth/scratch/000_mask.png", "ground_truth/dent/000.png", "license.txt", "readme.md")
    assert imported(tmp_path) == {
        "train/good/000.png": ("good", "train", None),
        "test/good/000.png": ("good", "test", None),
        "test/scratch/000.png": ("anomaly/scratch", "test", "000_mask.png"),
        "test/dent/000.png": ("anomaly/dent", "test", "000.png"),
    }
    assert find_images(tmp_path)[1] == 2


def test_find_images_when_good_and_anomaly_then_takes_types_and_masks_beside(tmp_path: Path):
    make(tmp_path, "good/a.JPG", "good/deep/b.png", "anomaly/c.png", "anomaly/c_mask.png", "anomaly/stain/d.bmp")
    make(tmp_path, "masks/anomaly/stain/d_mask.png")
    assert imported(tmp_path) == {
        "good/a.JPG": ("good", None, None),
        "good/deep/b.png": ("good", None, None),
        "anomaly/c.png": ("anomaly/anomaly", None, "c_mask.png"),
        "anomaly/stain/d.bmp": ("anomaly/stain", None, "d_mask.png"),
    }


def test_find_images_when_good_lies_beside_defects_then_each_folder_is_a_type(tmp_path: Path):
    make(tmp_path, "OK/a.png", "crack/b.png", "Bad/c.png")
    assert {name: folder for name, (folder, _, _) in imported(tmp_path).items()} == {
        "OK/a.png": "good",
        "crack/b.png": "anomaly/crack",
        "Bad/c.png": "anomaly/anomaly",
    }


def test_find_images_when_images_lie_alone_then_are_good(tmp_path: Path):
    make(tmp_path, "a.png", "2026-05-01/b.png", ".hidden/c.png", ".DS_Store", "notes.txt", "index.csv")
    assert Counter(folder for folder, _, _ in imported(tmp_path).values()) == {"good": 2}
    assert find_images(tmp_path)[1] == 1


def test_find_images_when_split_has_no_classes_then_train_is_good_and_test_unlabelled(tmp_path: Path):
    make(tmp_path, "train/a.png", "test/b.png")
    assert imported(tmp_path) == {"train/a.png": ("good", "train", None), "test/b.png": ("unlabelled", "test", None)}


@pytest.mark.parametrize("inner", ["set1/train/good/a.png", "set1/good/a.png", "set1/anomaly/a.png"])
def test_find_images_when_datasets_lie_further_down_then_refuses_and_names_the_folder(tmp_path: Path, inner: str):
    make(tmp_path, inner, "set1/other/b.png")
    with pytest.raises(BadFolder, match="set1 itself"):
        find_images(tmp_path)


def test_find_images_when_names_are_odd_then_are_made_safe_and_stay_apart(tmp_path: Path):
    make(tmp_path, "a?.png", "a*.png", "größe 1.png", "plain.png")
    names = sorted(image.name for image in find_images(tmp_path)[0])
    assert {"größe 1.png", "plain.png"} < set(names)
    assert len(set(names)) == 4
    assert not any(set(name) & set("?*") for name in names)
