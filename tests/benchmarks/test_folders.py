"""Sets of real images: reading, splitting, and errors."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.folders import BadSet, ImageSet, read_mask, read_pixels, read_set
from pipelines.errors import BadImage
from tests.benchmarks.conftest import TESTED, TRAINED, write_images, write_set
from tests.pipelines.tasks.anomaly.pictures_of_parts import defective_parts


def test_read_set_tells_good_images_defects_and_their_masks_apart(parts: Path):
    images = read_set(parts)
    assert images.name == "parts"
    assert len(images.training) == TRAINED
    assert [image.type for image in images.test] == ["good"] * TESTED + ["spot"] * TESTED
    assert all(bool(image.masks) == (image.type == "spot") for image in images.test)
    masks = [read_mask(image, 48, 48) for image in images.test]
    assert {mask.sum() for mask in masks[:TESTED]} == {0}
    assert {mask.sum() for mask in masks[TESTED:]} == {36}


def test_split_holds_a_quarter_back_and_another_seed_another_quarter(parts: Path):
    images = read_set(parts)
    fitted, held_back = images.split(0)
    assert (len(fitted), len(held_back)) == (18, 6)
    assert sorted([*fitted, *held_back]) == sorted(images.training)
    assert images.split(0) == (fitted, held_back)
    assert images.split(1) != (fitted, held_back)


@pytest.mark.parametrize(("count", "held_back"), [(16, 4), (17, 4), (18, 4), (19, 5), (20, 5), (64, 16), (2000, 200)])
def test_split_of_any_number_of_images_keeps_at_least_twelve_to_fit_on_and_four_to_hold_back(count, held_back):
    images = ImageSet("parts", [Path(f"{number:03d}.png") for number in range(count)], [])
    assert [len(part) for part in images.split(0)] == [count - held_back, held_back]


def test_read_set_takes_sixteen_good_images_to_train_on_and_no_fewer(tmp_path: Path):
    assert len(read_set(write_set(tmp_path / "enough", trained=16)).training) == 16
    with pytest.raises(BadSet, match=r"few: has 15 images in train/good/, and 16 are needed"):
        read_set(write_set(tmp_path / "few", trained=15))


def test_digest_is_of_the_files_and_not_of_where_they_lie(parts: Path, tmp_path: Path):
    first = read_set(parts).digest()
    moved = shutil.copytree(parts, tmp_path / "elsewhere" / "parts")
    assert read_set(moved).digest() == first
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(moved / "test" / "good" / "000.png")
    assert read_set(moved).digest() != first


def test_read_set_of_some_types_leaves_the_other_defects_out_and_keeps_the_good(parts: Path):
    write_images(parts / "test" / "hole", defective_parts(2, 48))
    assert {image.type for image in read_set(parts).test} == {"good", "spot", "hole"}
    chosen = read_set(parts, ["hole"])
    assert [image.type for image in chosen.test].count("good") == TESTED
    assert {image.type for image in chosen.test} == {"good", "hole"}
    # Without masks, nobody knows which pixels are wrong.
    assert read_mask(chosen.test[-1], 48, 48) is None


@pytest.mark.parametrize(
    ("missing", "types", "pattern"),
    [
        ("", None, "there is no such folder"),
        ("train/good", None, r"has 0 images in train/good/, and 16 are needed"),
        ("test/good", None, r"needs test/good/ and at least one test/<defect>/"),
        ("test/spot", None, r"6 masks have no image"),
        ("ground_truth", ["crack"], r"has no test/crack/; there are spot"),
    ],
)
def test_read_set_when_it_cannot_be_measured_on_says_why(parts: Path, missing, types, pattern):
    shutil.rmtree(parts / missing)
    with pytest.raises(BadSet, match=pattern):
        read_set(parts, types)


def test_read_pixels_of_a_damaged_file_refuses_it(parts: Path):
    file = parts / "train" / "good" / "000.png"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadImage):
        read_pixels(file)
