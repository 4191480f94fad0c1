"""Annotations as other tools write them: their regions, and what does not meet."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.images.region_pixels import rasterise
from pipelines.images.regions import bounds
from pipelines.ingest.annotation_formats import rle_pack
from pipelines.ingest.plan_import import plan_import

WIDTH, HEIGHT = 40, 30
SQUARE = [[10, 5], [20, 5], [20, 15], [10, 15]]


def draw(folder: Path, *names: str, orientation: int | None = None) -> None:
    for seed, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        Image.fromarray(pixels).save(file, "JPEG" if name.endswith("jpg") else "PNG", exif=exif)


def coco(*annotations: dict[str, Any], images: tuple[str, ...] = ("a.png", "b.png"), **size: int) -> str:
    size = size or {"width": WIDTH, "height": HEIGHT}
    return json.dumps(
        {
            "images": [{"id": number, "file_name": name} | size for number, name in enumerate(images)],
            "categories": [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}, {"id": 3, "name": "ok"}],
            "annotations": [{"id": number} | entry for number, entry in enumerate(annotations)],
        }
    )


def marked(regions) -> np.ndarray:
    return np.logical_or.reduce([rasterise(region, (WIDTH, HEIGHT)) for region in regions])


def by_name(folder: Path) -> dict[str, Any]:
    plan = plan_import(folder)
    assert plan.problems == ()
    return {image.file.name: image for image in plan.images}


def test_coco_when_an_image_has_several_types_then_each_region_keeps_its_own(tmp_path: Path):
    draw(tmp_path, "a.png", "b.png", "c.png")
    flat = [value for point in SQUARE for value in point]
    (tmp_path / "anything.json").write_text(
        coco(
            {"image_id": 0, "category_id": 1, "segmentation": [flat], "severity": "minor", "bbox": [10, 5, 10, 10]},
            {"image_id": 0, "category_id": 2, "segmentation": [], "bbox": [1, 2, 3, 4]},
            {"image_id": 0, "category_id": 3, "segmentation": [], "bbox": [1, 2, 3, 4]},
        )
    )
    images = by_name(tmp_path)
    assert (images["a.png"].label, images["a.png"].type) == ("anomaly", "dent+scratch")
    scratch, dent = images["a.png"].regions
    assert scratch.polygons == (tuple(map(tuple, SQUARE)),)
    assert dict(scratch.attributes) == {"severity": "minor"}
    assert dent.box == (1, 2, 3, 4)
    assert images["b.png"].label == "good", "listed, and nothing is marked"
    assert images["c.png"].label is None, "not listed"


@pytest.mark.parametrize("compressed", [True, False])
def test_coco_when_run_length_encoded_then_marks_the_same_pixels(tmp_path: Path, compressed: bool):
    from faster_coco_eval.core import mask as tool

    wanted = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    wanted[3:9, 4:30] = 1
    column_wise = wanted.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], column_wise, [2]])))
    runs = np.diff(np.concatenate([[0], edges])).tolist()
    counts = tool.encode(np.asfortranarray(wanted))["counts"].decode() if compressed else runs
    draw(tmp_path, "a.png")
    entry = {"image_id": 0, "category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
    (tmp_path / "instances.json").write_text(coco(entry, images=("a.png",)))
    assert (marked(by_name(tmp_path)["a.png"].regions) == wanted.astype(bool)).all()


@pytest.mark.parametrize(
    "name",
    ["images/a.png", "..\\..\\label-studio\\data\\upload\\1\\0123abcd-a.png", "0123abcd-a.png", "/home/ann/set/a.png"],
)
def test_coco_when_tools_write_their_own_paths_then_the_file_is_found(tmp_path: Path, name: str):
    draw(tmp_path, "images/a.png")
    (tmp_path / "result.json").write_text(coco({"image_id": 0, "category_id": 2, "bbox": [1, 1, 5, 5]}, images=(name,)))
    assert by_name(tmp_path)["a.png"].type == "dent"


def test_coco_when_each_split_has_its_own_file_then_names_do_not_mix(tmp_path: Path):
    draw(tmp_path, "train/a.png", "valid/a.png")
    for split, entries in (("train", []), ("valid", [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}])):
        (tmp_path / split / "_annotations.coco.json").write_text(coco(*entries, images=("a.png",)))
    plan = plan_import(tmp_path)
    assert [(image.split, image.label) for image in plan.images] == [("train", "good"), ("validation", "anomaly")]


def test_coco_when_entries_and_files_do_not_meet_then_they_are_named(tmp_path: Path):
    draw(tmp_path, "a.png")
    (tmp_path / "c.json").write_text(coco({"image_id": 77, "category_id": 1, "bbox": [1, 1, 5, 5]}))
    notes = " ".join(plan_import(tmp_path).notes)
    assert "b.png" in notes
    assert "77" in notes


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (coco({"image_id": 0, "category_id": 9, "bbox": [1, 1, 5, 5]}), "category 9"),
        (coco({"image_id": 0, "category_id": 1, "bbox": [1, 1, 0, 5]}), "a.png"),
        (coco({"image_id": 0, "category_id": 1, "segmentation": [[1, 2, 3]]}), "a.png"),
        (coco({"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}, width=80, height=60), "80 x 60"),
        (coco({"image_id": 0, "category_id": 1, "segmentation": {"size": [30, 40], "counts": "zz"}}), "a.png"),
        ("{", "c.json"),
    ],
)
def test_coco_when_damaged_or_of_another_size_then_refused_by_name(tmp_path: Path, content: str, named: str):
    draw(tmp_path, "a.png", "b.png")
    (tmp_path / "c.json").write_text(content)
    problems = plan_import(tmp_path).problems
    assert any((named in problem and "c.json" in problem) or named in problem for problem in problems)


@pytest.mark.parametrize("orientation", range(5, 9))
def test_regions_when_drawn_on_the_stored_pixels_then_are_turned_with_the_image(tmp_path: Path, orientation: int):
    draw(tmp_path, "a.jpg", orientation=orientation)
    flat = [value for point in SQUARE for value in point]
    (tmp_path / "c.json").write_text(coco({"image_id": 0, "category_id": 1, "segmentation": [flat]}, images=("a.jpg",)))
    stored = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    stored[5:15, 10:20] = 255
    exif, data = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(data, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(data))) > 0
    (region,) = by_name(tmp_path)["a.jpg"].regions
    assert (rasterise(region, (HEIGHT, WIDTH)) == expected).all()


def voc(name: str, *objects: str, width: int = WIDTH) -> str:
    size = f"<size><width>{width}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{''.join(objects)}</annotation>"


def test_voc_xml_when_boxes_and_polygons_then_both_are_kept(tmp_path: Path):
    draw(tmp_path, "JPEGImages/a.png", "JPEGImages/b.png")
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>13</xmax><ymax>9</ymax></bndbox>"
    corners = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(SQUARE, start=1))
    first = f"<object><name>dent</name><difficult>1</difficult>{box}</object>"
    second = f"<object><name>scratch</name><polygon>{corners}</polygon>{box}</object>"
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text(voc("a.png", first, second))
    (tmp_path / "Annotations/b.xml").write_text(voc("b.png"))
    images = by_name(tmp_path)
    dent, scratch = images["a.png"].regions
    assert dent.box == (3, 4, 10, 5)
    assert dent.attributes == {"difficult": "1"}
    assert scratch.polygons == (tuple(map(tuple, SQUARE)),)
    assert images["b.png"].label == "good"


def test_voc_xml_when_it_holds_entities_then_is_refused(tmp_path: Path):
    draw(tmp_path, "a.png")
    (tmp_path / "a.xml").write_text('<!DOCTYPE a [<!ENTITY b "x">]><annotation><filename>&b;</filename></annotation>')
    assert any("a.xml" in problem for problem in plan_import(tmp_path).problems)


@pytest.mark.parametrize("palette", [True, False])
def test_voc_segmentation_when_classes_have_names_then_each_instance_is_a_region(tmp_path: Path, palette: bool):
    draw(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.jpg")
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes[2:6, 2:6], classes[10:14, 10:20], classes[20:25, 3:9] = 1, 1, 2
    objects = np.zeros_like(classes)
    objects[2:6, 2:6], objects[10:14, 10:20], objects[20:25, 3:9] = 1, 2, 3
    colours = np.array([[0, 0, 0], [250, 50, 83], [0, 128, 0], [128, 128, 0]], np.uint8)
    for folder, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        (tmp_path / folder).mkdir()
        for name, content in (("a", values), ("b", np.zeros_like(values))):
            if palette:
                image = Image.fromarray(content, "P")
                image.putpalette(colours.reshape(-1).tolist())
            else:
                image = Image.fromarray(colours[content])
            image.save(tmp_path / folder / f"{name}.png")
    (tmp_path / "labelmap.txt").write_text("# label:color\nbackground:0,0,0::\nscratch:250,50,83::\ndent:0,128,0::\n")
    images = by_name(tmp_path)
    assert images["b.jpg"].label == "good"
    regions = images["a.jpg"].regions
    assert sorted((region.type, int(rasterise(region).sum())) for region in regions) == [
        ("dent", 30),
        ("scratch", 16),
        ("scratch", 40),
    ]


def test_voc_segmentation_when_a_mask_has_no_image_or_a_colour_no_name_then_refused(tmp_path: Path):
    draw(tmp_path, "JPEGImages/a.jpg")
    (tmp_path / "SegmentationClass").mkdir()
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "SegmentationClass/z.png")
    assert any("z.png" in problem for problem in plan_import(tmp_path).problems)
    (tmp_path / "SegmentationClass/z.png").unlink()
    Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9)).save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\n")
    assert any("(9, 9, 9)" in problem for problem in plan_import(tmp_path).problems)


@pytest.mark.parametrize(
    "names",
    [
        {"data.yaml": "names: [scratch, dent]\nnc: 2\n"},
        {"data.yaml": "names:\n  0: scratch\n  1: dent\n"},
        {"classes.txt": "scratch\ndent\n"},
    ],
)
def test_yolo_when_names_are_given_then_boxes_and_polygons_are_read(tmp_path: Path, names):
    draw(tmp_path, "train/images/a.jpg", "valid/images/b.jpg", "test/images/c.jpg")
    for name, text in names.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "train/labels").mkdir()
    (tmp_path / "valid/labels").mkdir()
    corners = " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in SQUARE)
    (tmp_path / "train/labels/a.txt").write_text(f"1 0.5 0.5 0.25 0.2\n0 {corners}\n")
    (tmp_path / "valid/labels/b.txt").write_text("")
    images = by_name(tmp_path)
    dent, scratch = images["a.jpg"].regions
    assert (dent.type, dent.box) == ("dent", (15, 12, 10, 6))
    assert (scratch.type, scratch.polygons) == ("scratch", (tuple(map(tuple, SQUARE)),))
    assert (images["b.jpg"].label, images["b.jpg"].split) == ("good", "validation")
    assert images["c.jpg"].label is None, "no text file: nobody annotated it"


@pytest.mark.parametrize(
    ("text", "names", "named"),
    [
        ("0 .5 .5 .2 .2\n", None, "a.txt"),
        ("7 .5 .5 .2 .2\n", "names: [a]", "line 1"),
        ("0 .5 .5 .2 .2\n0 .5 .5 .2 .2 .9\n", "names: [a]", "line 2"),
        ("0 15 12 4 4\n", "names: [a]", "line 1"),
    ],
)
def test_yolo_when_a_line_cannot_be_used_then_refused_by_name(tmp_path: Path, text, names, named):
    draw(tmp_path, "a.png")
    (tmp_path / "a.txt").write_text(text)
    if names:
        (tmp_path / "data.yaml").write_text(names)
    assert any(named in problem for problem in plan_import(tmp_path).problems)


def task(image: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    annotations = [{"id": 1, "result": [base | {"id": "r"} | result for result in results]} | more]
    return {"id": 5, "data": {"image": image}, "annotations": annotations}


def test_label_studio_when_shapes_of_every_kind_then_are_read(tmp_path: Path):
    draw(tmp_path, "a.png", "b.png", "c.png", "d.png")
    wanted = np.zeros((HEIGHT, WIDTH), dtype=bool)
    wanted[4:9, 3:33] = True
    packed = rle_pack.encode(np.repeat(np.where(wanted.reshape(-1), 255, 0).astype(np.uint8), 4))
    points = [[x / WIDTH * 100, y / HEIGHT * 100] for x, y in SQUARE]
    box = {"x": 25, "y": 20, "width": 50, "height": 40, "rotation": 0, "rectanglelabels": ["dent"]}
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 0, "ellipselabels": ["stain"]}
    brush = {"format": "rle", "rle": list(packed), "brushlabels": ["scratch"]}
    content = [
        task(
            "/data/upload/3/0a1b2c3d-a.png",
            {"type": "rectanglelabels", "value": box},
            {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["scratch"]}},
            {"type": "brushlabels", "value": brush},
            {"type": "ellipselabels", "value": ellipse},
            {"type": "rectanglelabels", "value": box | {"rotation": 90}},
        ),
        task("/data/local-files/?d=set/b.png"),
        {"id": 6, "data": {"image": "c.png"}, "annotations": []},
        task("d.png", {"type": "choices", "value": {"choices": ["Defective"]}}),
    ]
    (tmp_path / "export.json").write_text(json.dumps(content))
    images = by_name(tmp_path)
    rectangle, polygon, mask, oval, turned = images["a.png"].regions
    assert rectangle.box == (10, 6, 20, 12)
    assert polygon.polygons == (tuple(map(tuple, SQUARE)),)
    assert (rasterise(mask) == wanted).all()
    assert bounds(oval) == pytest.approx((16, 9, 24, 21))
    assert bounds(turned) == pytest.approx((-2, 6, 10, 26)), "turned clockwise about its upper left corner"
    assert images["b.png"].label == "good"
    assert images["c.png"].label is None
    assert images["d.png"].label == "anomaly"


def test_rle_pack_when_values_vary_then_is_read_again():
    values = np.random.default_rng(3).integers(0, 3, 5000).astype(np.uint8)
    values[1000:3000] = 255
    assert (rle_pack.decode(rle_pack.encode(values), 5000) == values).all()
    with pytest.raises(ValueError, match="ends too early"):
        rle_pack.decode(rle_pack.encode(values)[:-30], 5000)


def test_rle_pack_when_blocks_of_both_kinds_meet_then_are_read():
    bits = f"{32:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "0" + "01" + f"{15:04b}" + "".join(f"{value:08b}" for value in range(16))  # 16 values one by one
    bits += "1" + "10" + f"{15:08b}" + f"{200:08b}"  # and one repeated 16 times
    bits += "0" * (-len(bits) % 8)
    data = bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))
    assert rle_pack.decode(data, 32).tolist() == [*range(16), *[200] * 16]


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,dent,3,4,13,9\n", (3, 4, 10, 5)),
        ("image;label;x;y;w;h\na.png;dent;3;4;10;5\n", (3, 4, 10, 5)),
        ("a.png,3,4,13,9,dent\nb.png,,,,,\n", (3, 4, 10, 5)),
    ],
)
def test_csv_when_it_has_boxes_then_they_are_read(tmp_path: Path, text: str, box):
    draw(tmp_path, "a.png", "b.png")
    (tmp_path / "boxes.csv").write_text(text)
    images = by_name(tmp_path)
    assert images["a.png"].regions[0].box == box
    assert images["a.png"].type == "dent"
    assert images["b.png"].label == ("good" if "b.png" in text else None)


def test_csv_when_a_row_is_wrong_then_it_is_named(tmp_path: Path):
    draw(tmp_path, "a.png")
    (tmp_path / "boxes.csv").write_text("file,class,xmin,ymin,xmax,ymax\na.png,dent,3,4,2,9\nz.png,dent,1,1,2,2\n")
    assert any("row 2" in problem for problem in plan_import(tmp_path).problems)


def test_annotations_when_they_contradict_the_folder_then_refused(tmp_path: Path):
    draw(tmp_path, "good/a.png", "bad/b.png")
    (tmp_path / "c.json").write_text(
        coco({"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}, images=("a.png", "b.png"))
    )
    assert any("good/a.png" in problem for problem in plan_import(tmp_path).problems)
