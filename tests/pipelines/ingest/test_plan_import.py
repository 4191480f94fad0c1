"""What folders are taken for: labels, types, masks, splits; and what is not understood."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.images.mask_placement import placed
from pipelines.images.orientation import SIDEWAYS, turned
from pipelines.ingest.file_names import left_alone
from pipelines.ingest.import_folder import merged_mask
from pipelines.ingest.import_plan import BadFolder, ImportPlan
from pipelines.ingest.plan_import import plan_import

SIZE = (24, 16)


def draw(folder: Path, *names: str) -> Path:
    """Write an image of noise for each name; a mask with a square for a name with `mask:`, empty with `empty:`."""
    for seed, name in enumerate(names):
        kind, _, path = name.rpartition(":")
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        if kind:
            pixels = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8)
            if kind == "mask":
                pixels[4:8, 5:9] = 255
        form = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "png": "PNG", "bmp": "BMP"}.get(
            file.suffix[1:].lower(), "JPEG"
        )
        Image.fromarray(pixels).save(file, form, quality=95)
    return folder


def counts(plan: ImportPlan) -> dict[str, int]:
    assert plan.problems == ()
    return plan.counts


def of(plan: ImportPlan, path: str):
    return next(image for image in plan.images if image.file.relative_to(plan.root).as_posix() == path)


@pytest.mark.parametrize(
    ("names", "expected", "masks"),
    [
        pytest.param(
            [
                "train/good/0.png",
                "test/good/0.png",
                "test/scratch/0.png",
                "test/dent/0.png",
                "mask:ground_truth/scratch/0_mask.png",
                "mask:ground_truth/dent/0.png",
            ],
            {"good": 2, "anomaly/scratch": 1, "anomaly/dent": 1},
            2,
            id="MVTec AD",
        ),
        pytest.param(
            [
                "train/good/0.png",
                "validation/good/0.png",
                "test_public/good/0.png",
                "test_public/bad/0_dark.png",
                "mask:test_public/ground_truth/bad/0_dark_mask.png",
                "test_private/1.png",
                "test_private_mixed/1.png",
            ],
            {"good": 3, "anomaly/anomaly": 1, "unlabelled": 2},
            1,
            id="MVTec AD 2",
        ),
        pytest.param(
            ["normal_dir/image1.png", "abnormal_dir/image3.png", "mask:mask_dir/mask3.png"],
            {"good": 1, "anomaly/anomaly": 1},
            1,
            id="names with dir",
        ),
        pytest.param(["io/0.png", "nio/0.png"], {"good": 1, "anomaly/anomaly": 1}, 0, id="io and nio"),
        pytest.param(["i.O./0.png", "n.i.O./0.png"], {"good": 1, "anomaly/anomaly": 1}, 0, id="with dots"),
        pytest.param(["Pass/0.png", "FAIL/0.png"], {"good": 1, "anomaly/anomaly": 1}, 0, id="any case"),
        pytest.param(["Defect-Free/0.png", "Defective/0.png"], {"good": 1, "anomaly/anomaly": 1}, 0, id="defect-free"),
        pytest.param(["good_lids/0.png", "bad_lids/0.png"], {"good": 1, "anomaly/anomaly": 1}, 0, id="counterparts"),
        pytest.param(
            ["train/ok_front/0.png", "train/def_front/0.png", "test/ok_front/1.png", "test/def_front/1.png"],
            {"good": 2, "anomaly/anomaly": 2},
            0,
            id="views",
        ),
        pytest.param(
            ["good/0.png", "defect_crack/0.png", "defect_stain/0.png"],
            {"good": 1, "anomaly/crack": 1, "anomaly/stain": 1},
            0,
            id="type in the name",
        ),
        pytest.param(
            ["normal/0.png", "abnormal/7.png", "normal/7.png", "mask:mask/7.png"],
            {"good": 2, "anomaly/anomaly": 1},
            1,
            id="a mask prefers the anomaly",
        ),
        pytest.param(
            ["good/0.jpg", "NG/colour/0.jpg", "NG/crack/0.jpg", "mask:mask/colour/0.png", "mask:mask/crack/0.png"],
            {"good": 1, "anomaly/colour": 1, "anomaly/crack": 1},
            2,
            id="masks by type",
        ),
        pytest.param(
            [
                "train/good/0.png",
                "test/good/0.png",
                "test/logical/000.png",
                "mask:ground_truth/logical/000/000.png",
                "mask:ground_truth/logical/000/001.png",
            ],
            {"good": 2, "anomaly/logical": 1},
            2,
            id="a folder of masks for an image",
        ),
        pytest.param(
            [
                "train/normal/images/0.tif",
                "test/normal/images/0.tif",
                "test/anomalous/images/0.tif",
                "mask:test/anomalous/masks/0.tif",
            ],
            {"good": 2, "anomaly/anomaly": 1},
            1,
            id="images and masks below the label",
        ),
        pytest.param(
            [
                "candle/Data/Images/Normal/0.JPG",
                "candle/Data/Images/Anomaly/1.JPG",
                "mask:candle/Data/Masks/Anomaly/1.png",
            ],
            {"good": 1, "anomaly/anomaly": 1},
            1,
            id="VisA, from above",
        ),
        pytest.param(
            [
                "train/0.png",
                "empty:train/0_GT.png",
                "train/1.png",
                "mask:train/1_GT.png",
                "test/2.png",
                "empty:test/2_GT.png",
            ],
            {"good": 2, "anomaly/anomaly": 1},
            3,
            id="Kolektor",
        ),
        pytest.param(
            ["images/0.png", "images/1.png", "empty:masks/0.png", "mask:masks/1.png"],
            {"good": 1, "anomaly/anomaly": 1},
            2,
            id="images and masks",
        ),
        pytest.param(
            ["good/0.png", "anomaly/scratch/1.png", "unlabelled/2.png", "Unlabeled/3.png"],
            {"good": 1, "anomaly/scratch": 1, "unlabelled": 2},
            0,
            id="unlabelled",
        ),
        pytest.param(
            ["good/0.jpg", "anomaly/1.jpg", "mask:anomaly/1.png"],
            {"good": 1, "anomaly/anomaly": 1},
            1,
            id="a mask of the same stem in another format",
        ),
        pytest.param(
            ["good/0.png", "anomaly/1.png", "mask:anomaly/1_mask_1.png", "mask:anomaly/1_mask_2.png"],
            {"good": 1, "anomaly/anomaly": 1},
            2,
            id="numbered masks",
        ),
        pytest.param(
            ["good/0.png", "empty:good/0_mask.png", "anomaly/1.png"],
            {"good": 1, "anomaly/anomaly": 1},
            0,
            id="the empty mask of a good image",
        ),
        pytest.param(
            ["train/ok/0.bmp", "test/ok/0.bmp", "test/ko/1.bmp", "mask:ground_truth/ko/1.png"],
            {"good": 2, "anomaly/anomaly": 1},
            1,
            id="BTAD",
        ),
        pytest.param(
            ["良品/0.png", "不良品/划痕/1.png", "Gut/2.png", "Ausschuss/3.png"],
            {"good": 2, "anomaly/划痕": 1, "anomaly/anomaly": 1},
            0,
            id="other languages",
        ),
        pytest.param(
            ["good/cam1/0.png", "good/lot 7/0.png", "bad/cam1/0.png", "bad/lot 7/1.png", "bad/2026-05-01/dent/0.png"],
            {"good": 2, "anomaly/anomaly": 2, "anomaly/dent": 1},
            0,
            id="cameras, lots and dates are no types",
        ),
        pytest.param(["a.png", "b.jpg"], {"good": 2}, 0, id="images alone"),
        pytest.param(["train/a.png", "test/b.png"], {"good": 1, "unlabelled": 1}, 0, id="splits without folders"),
        pytest.param(
            ["good/a.jfif", "good/noending", "bad/b.jpe"], {"good": 2, "anomaly/anomaly": 1}, 0, id="by content"
        ),
    ],
)
def test_plan_when_layout_is_known_then_each_image_is_what_it_is(tmp_path: Path, names, expected, masks):
    plan = plan_import(draw(tmp_path / "data", *names))
    assert counts(plan) == dict(sorted(expected.items()))
    assert plan.masks == masks


@pytest.mark.parametrize(
    ("names", "named"),
    [
        pytest.param(["0/a.png", "1/b.png"], "0/", id="digits"),
        pytest.param(["good/a.png", "scratch/b.png"], "scratch/", id="a type beside good, below nothing known"),
        pytest.param(["good/a.png", "originals/b.png"], "originals/", id="something else beside good"),
        pytest.param(["2026-05-01/a.png", "2026-05-02/b.png"], "2026-05-01/", id="dates"),
        pytest.param(["test/scratch/a.png", "test/dent/a.png"], "test/", id="types without good"),
        pytest.param(["good/a.png", "bad/b.png", "c.png"], "c.png", id="an image beside labelled folders"),
        pytest.param(["good/anomaly/a.png", "good/b.png"], "good/anomaly/", id="both labels"),
        pytest.param(["good/a.png", "bad/b.png", "mask:masks/c.png"], "masks/c.png", id="a mask without image"),
        pytest.param(["good/a.png", "bad/b.png", "mask:bad/c_mask.png"], "bad/c_mask.png", id="beside, without image"),
        pytest.param(
            ["good/a.png", "mask:good/a_mask.png"], "good/a.png", id="a good image whose mask marks something"
        ),
        pytest.param(
            ["train/images/0.png", "test/images/0.png", "mask:masks/0.png"], "masks/0.png", id="a mask that fits two"
        ),
        pytest.param(["images/0.png", "images/1.png", "empty:masks/0.png"], "images/1.png", id="one without mask"),
        pytest.param(
            ["unlabelled/0.png", "good/1.png", "mask:unlabelled/0_mask.png"], "unlabelled/0.png", id="unlabelled"
        ),
        pytest.param(["set1/good/a.png", "set2/good/a.png"], "set1 itself", id="two data sets"),
        pytest.param(["c/Data/Normal/a.png", "d/Data/Normal/a.png"], "c itself", id="two data sets, deeper"),
        pytest.param(["test/good/a.png", "test/heatmaps/a.png"], "heatmaps/", id="heat maps are no type"),
        pytest.param(["good/rgb/a.png", "good/xyz/a.png"], "good/xyz/", id="depth beside colour, as in MVTec 3D"),
        pytest.param(["test/good/a.png", "test/anomaly_maps/a.png"], "anomaly_maps/", id="anomaly maps"),
        pytest.param(["good/a.png", "bad/a.png", "bad_overlay/a.png"], "bad_overlay/", id="overlays of anomalies"),
        pytest.param(["test/good/a.png", "test/2026-05-01/a.png"], "2026-05-01/", id="a date is no type"),
    ],
)
def test_plan_when_something_is_not_understood_then_it_is_named_and_nothing_is_imported(tmp_path: Path, names, named):
    plan = plan_import(draw(tmp_path / "data", *names))
    assert any(named in problem for problem in plan.problems)
    with pytest.raises(BadFolder):
        plan.check()


def test_plan_when_masks_lie_anywhere_then_none_becomes_an_image(tmp_path: Path):
    places = ["ground_truth/a.png", "bad/a_mask.png", "gt/a.png", "label_mask/a.png", "bad/a-GT.png", "Masks/bad/a.png"]
    for number, place in enumerate(places):
        plan = plan_import(draw(tmp_path / f"data{number}", "good/0.png", "bad/a.png", f"mask:{place}"))
        assert [image.file.name for image in plan.images] == ["a.png", "0.png"], place
        assert plan.masks == 1, place


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ({"0": "good", "1": "anomaly/dent"}, {"good": 1, "anomaly/dent": 1}),
        ({"*": "good"}, {"good": 2}),
        ({"0": "unlabelled", "1": "ignore"}, {"unlabelled": 1}),
        ({"0/": "anomaly", "./1": "good"}, {"good": 1, "anomaly/anomaly": 1}),
    ],
)
def test_plan_when_folders_are_mapped_then_the_map_holds(tmp_path: Path, maps, expected):
    assert counts(plan_import(draw(tmp_path, "0/a.png", "1/b.png"), maps)) == dict(sorted(expected.items()))


def test_plan_when_a_folder_is_mapped_to_masks_then_they_are_paired(tmp_path: Path):
    plan = plan_import(draw(tmp_path, "good/0.png", "bad/1.png", "mask:overlays/1.png"), {"overlays": "mask"})
    assert counts(plan) == {"anomaly/anomaly": 1, "good": 1}
    assert of(plan, "bad/1.png").masks == (tmp_path / "overlays/1.png",)


@pytest.mark.parametrize("maps", [{"0": "fine"}, {"2": "good"}, {"0": "good/dent"}])
def test_plan_when_a_map_makes_no_sense_then_refuses(tmp_path: Path, maps):
    with pytest.raises(BadFolder, match="--map"):
        plan_import(draw(tmp_path, "0/a.png"), maps)


def test_plan_when_names_say_mask_but_somebody_says_good_then_they_are_images(tmp_path: Path):
    plan = plan_import(draw(tmp_path, "good/face_mask.png", "good/blue_mask.png"), {"good": "good"})
    assert counts(plan) == {"good": 2}
    assert not any(image.name.endswith("_mask.png") for image in plan.images), "the inbox would take them for masks"


def test_plan_when_a_link_leads_back_then_each_image_counts_once(tmp_path: Path):
    draw(tmp_path, "good/0.png", "good/1.png")
    (tmp_path / "good" / "latest").symlink_to(tmp_path / "good")
    (tmp_path / "a_link").symlink_to(tmp_path / "good")
    (tmp_path / "good" / "again.png").symlink_to(tmp_path / "good" / "0.png")
    assert counts(plan_import(tmp_path)) == {"good": 2}


def test_plan_when_two_files_share_a_stem_then_they_are_one_group_with_the_mask(tmp_path: Path):
    plan = plan_import(draw(tmp_path, "good/0.png", "bad/7.jpg", "bad/7.png", "mask:bad/7_mask.png"))
    first, second = of(plan, "bad/7.jpg"), of(plan, "bad/7.png")
    assert first.masks == second.masks == (tmp_path / "bad/7_mask.png",)
    assert first.group == second.group is not None
    assert first.name.rpartition(".")[0] != second.name.rpartition(".")[0]
    assert any("bad/7.jpg" in note for note in plan.notes)


def test_plan_when_an_index_lies_in_a_folder_then_its_rows_hold_there(tmp_path: Path):
    draw(tmp_path, "good/0.png", "good/1.png", "bad/0.png")
    (tmp_path / "good" / "index.csv").write_text("file,group\n0.png,lot 7\nnowhere.png,lot 8\n")
    plan = plan_import(tmp_path)
    assert of(plan, "good/0.png").metadata == {"group": "lot 7"}
    assert of(plan, "bad/0.png").metadata == {}
    assert any("nowhere.png" in note for note in plan.notes)
    assert any("good/1.png" in note for note in plan.notes)


def test_plan_when_an_index_lies_above_the_only_folder_then_its_rows_hold(tmp_path: Path):
    draw(tmp_path, "candle/train/good/a.png", "candle/train/good/b.png", "candle/test/dent/c.png")
    (tmp_path / "index.csv").write_text("file,group\ncandle/train/good/a.png,g1\ncandle/train/good/gone.png,g2\n")
    plan = plan_import(tmp_path)
    assert plan.problems == ()
    assert {image.file.name: image.metadata.get("group") for image in plan.images} == {
        "a.png": "g1",
        "b.png": None,
        "c.png": None,
    }
    assert any("gone.png" in note for note in plan.notes)


def test_plan_when_every_image_has_a_row_then_its_masks_need_none(tmp_path: Path):
    draw(tmp_path, "good/0.png", "bad/0.png", "mask:bad/0_mask.png")
    (tmp_path / "index.csv").write_text("file,group\ngood/0.png,a\nbad/0.png,b\n")
    assert plan_import(tmp_path).notes == ()


def test_plan_when_the_index_says_labels_then_folders_need_none(tmp_path: Path):
    draw(tmp_path, "0/a.png", "0/b.png", "1/c.png")
    (tmp_path / "index.csv").write_text("file,label,type\n0/a.png,ok,\n0/b.png,NG,dent\n1/c.png,unlabelled,\n")
    assert counts(plan_import(tmp_path)) == {"anomaly/dent": 1, "good": 1, "unlabelled": 1}


def test_plan_when_names_are_odd_then_are_made_safe_and_stay_apart(tmp_path: Path):
    names = ["a?.png", "a*.png", "größe 1.png", "gro\u0308ße 1.png", "plain.png", "Los 3 + #4 (50%) & Co.png"]
    plan = plan_import(draw(tmp_path, *names))
    kept = [image.name for image in plan.images]
    assert {"größe 1.png", "plain.png"} < set(kept)
    assert len({name.casefold() for name in kept}) == 6
    assert not any(set(name) & set("?*#%&") for name in kept)


def test_plan_when_a_folder_is_named_like_an_unfinished_copy_then_ingest_takes_its_images(tmp_path: Path):
    draw(tmp_path, "good/set.part/0.png", "anomaly/x.download/1.png")
    for image in plan_import(tmp_path).images:
        assert left_alone(f"{image.folder}/{image.name}") is None


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_plan_when_exif_turns_an_image_then_masks_of_its_stored_pixels_are_read(
    tmp_path: Path, orientation: int, several: bool
):
    draw(tmp_path, "train/good/0.png")
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "test" / "scratch").mkdir(parents=True)
    Image.new("RGB", SIZE).save(tmp_path / "test" / "scratch" / "7.jpg", exif=exif)
    masks = ["7/a.png", "7/b.png"] if several else ["7_mask.png"]
    draw(tmp_path, *(f"mask:ground_truth/scratch/{name}" for name in masks))
    plan = plan_import(tmp_path)
    assert plan.problems == ()
    (image,) = (image for image in plan.images if image.label == "anomaly")
    assert len(image.masks) == len(masks)
    upright = SIZE[::-1] if orientation in SIDEWAYS else SIZE
    stored = np.zeros(SIZE[::-1], dtype=bool)
    stored[4:8, 5:9] = True
    arrived = placed(merged_mask(image), upright, orientation)  # as ingest reads it
    np.testing.assert_array_equal(arrived.marked, turned(stored, orientation))


def test_plan_when_other_files_lie_there_then_counts_them_by_kind(tmp_path: Path):
    draw(tmp_path, "good/0.png", ".hidden/1.png", "__MACOSX/2.png")
    for name in ("notes.txt", "readme.md", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    plan = plan_import(tmp_path)
    assert counts(plan) == {"good": 1}
    assert [note for note in plan.notes if ".txt" in note and ".md" in note and ".db" not in note]


def test_lines_when_printed_then_every_folder_has_its_meaning(tmp_path: Path):
    plan = plan_import(draw(tmp_path, "good/0.png", "good/1.png", "bad/2.png", "mask:bad/2_mask.png", "odd/3.png"))
    table = {line.split()[0]: line.split()[1:] for line in plan.lines()}
    assert table["good"][:2] == ["good", "2"]
    assert table["bad"][:3] == ["anomaly", "1", "1"]
    assert Counter(line.startswith("not understood") for line in plan.lines())[True] == 1


def test_plan_when_splits_have_a_year_as_in_coco_then_they_are_understood(tmp_path: Path):
    plan = plan_import(draw(tmp_path, "train2017/good/a.png", "val2017/good/b.png", "test2017/good/c.png"))
    assert [image.split for image in plan.images] == ["test", "train", "validation"]


def test_plan_when_a_folder_named_unlabelled_is_listed_in_an_annotation_file_then_it_stays_unlabelled(tmp_path: Path):
    draw(tmp_path, "good/a.png", "unlabelled/b.png")
    images = [{"id": number, "file_name": name} for number, name in enumerate(["a.png", "b.png"])]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "categories": [], "annotations": []}))
    assert counts(plan_import(tmp_path)) == {"good": 1, "unlabelled": 1}
