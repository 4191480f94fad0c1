"""Annotations of LabelMe, CVAT, VIA, Label Studio's other exports, and run lengths in CSV."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.images.region_pixels import rasterise
from pipelines.images.regions import bounds
from pipelines.ingest.import_plan import BadFolder
from pipelines.ingest.plan_import import plan_import
from tests.pipelines.ingest.annotation_formats.test_formats import HEIGHT, WIDTH, by_name, draw

SQUARE = [[10, 5], [20, 5], [20, 15], [10, 15]]


def labelme(name: str, *shapes: dict[str, Any], **others: Any) -> str:
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": name, "imageData": None}
    return json.dumps(content | {"imageHeight": HEIGHT, "imageWidth": WIDTH} | others)


def shape(form: str, points: list[list[float]], label: str = "dent", **others: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": form, "flags": {}} | others


def png(marked: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(marked.astype(np.uint8) * 255).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def cvat(*images: str) -> str:
    return f"<annotations><version>1.1</version><meta/>{''.join(images)}</annotations>"


def cvat_image(name: str, *shapes: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    return f'<image id="0" name="{name}" width="{size[0]}" height="{size[1]}">{"".join(shapes)}</image>'


def via(name: str, *regions: dict[str, Any]) -> dict[str, Any]:
    return {"filename": name, "size": 1, "regions": list(regions), "file_attributes": {}}


def test_labelme_when_every_image_has_its_file_then_shapes_keep_their_form(tmp_path: Path):
    draw(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "a.json").write_text(
        labelme(
            "..\\elsewhere\\a.png",
            shape("polygon", SQUARE, "scratch", flags={"deep": True}),
            shape("rectangle", [[9, 8], [1, 2]]),
            shape("circle", [[20, 15], [25, 15]], "pit"),
            shape("mask", [[3, 4], [6, 5]], "rust", mask=png(np.ones((2, 4)))),
        )
    )
    (tmp_path / "b.json").write_text(labelme("b.png"))
    images = by_name(tmp_path)
    assert (images["a.png"].label, images["a.png"].type) == ("anomaly", "dent+pit+rust+scratch")
    scratch, dent, pit, rust = images["a.png"].regions
    assert scratch.polygons == (tuple(map(tuple, SQUARE)),)
    assert dict(scratch.attributes) == {"deep": True}
    assert dent.box == (1, 2, 8, 6)
    assert rasterise(pit, (WIDTH, HEIGHT)).sum() == pytest.approx(math.pi * 25, rel=0.1)
    assert bounds(rust) == (3, 4, 7, 6)
    assert images["b.png"].label == "good"
    assert images["c.png"].label is None, "without a file nobody annotated it"


@pytest.mark.parametrize(
    ("flags", "label"), [({"good": True, "NG": False}, "good"), ({"NG": True}, "anomaly"), ({"blurred": True}, None)]
)
def test_labelme_when_flags_are_set_then_only_understood_ones_label_the_image(tmp_path: Path, flags, label):
    draw(tmp_path, "a.png")
    (tmp_path / "a.json").write_text(labelme("a.png", flags=flags))
    plan = plan_import(tmp_path)
    assert plan.images[0].label == label
    assert any("blurred" in note for note in plan.notes) == ("blurred" in flags)


@pytest.mark.parametrize(
    "content",
    [
        labelme("a.png", shape("linestrip", [[1, 1], [9, 9]])),
        labelme("a.png", shape("point", [[1, 1]])),
        labelme("a.png", shape("polygon", [[1, 1], [9, 9]])),
        labelme("a.png", shape("rectangle", [["x", 1], [9, 9]])),
        labelme("a.png", shape("mask", [[0, 0], [1, 1]], mask="no base64")),
        labelme("a.png", shape("mask", [[39, 0], [44, 1]], mask=png(np.ones((2, 5))))),
        labelme("a.png", shape("polygon", SQUARE), imageWidth=80),
        json.dumps({"shapes": ["x"], "imagePath": "a.png"}),
        json.dumps({"shapes": [], "imagePath": "a.png", "flags": [1]}),
    ],
)
def test_labelme_when_a_shape_cannot_be_used_then_names_the_file(tmp_path: Path, content: str):
    draw(tmp_path, "a.png")
    (tmp_path / "a.json").write_text(content)
    assert any("a.json" in problem or "a.png" in problem for problem in plan_import(tmp_path).problems)


def test_labelme_when_its_old_xml_then_polygons_are_read_and_deleted_objects_are_not(tmp_path: Path):
    draw(tmp_path, "a.png")
    points = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in SQUARE)
    objects = "".join(
        f"<object><name>{name}</name><deleted>{deleted}</deleted><polygon>{points}</polygon></object>"
        for name, deleted in (("dent", 0), ("oops", 1))
    )
    (tmp_path / "a.xml").write_text(f"<annotation><filename>a.png</filename>{objects}</annotation>")
    image = by_name(tmp_path)["a.png"]
    assert image.type == "dent"
    assert image.regions[0].polygons == (tuple(map(tuple, SQUARE)),)


def test_cvat_when_images_have_shapes_then_they_are_read(tmp_path: Path):
    draw(tmp_path, "images/a.png", "images/b.png", "images/c.png", "images/d.png")
    (tmp_path / "annotations.xml").write_text(
        cvat(
            cvat_image(
                "a.png",
                '<box label="dent" xtl="1" ytl="2" xbr="9" ybr="8"><attribute name="size">big</attribute></box>',
                '<box label="dent" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>',
                '<polygon label="scratch" points="10,5;20,5;20,15;10,15"/>',
                '<ellipse label="pit" cx="20" cy="15" rx="10" ry="4"/>',
                '<mask label="rust" rle="1, 2, 3" left="4" top="5" width="3" height="2"/>',
            ),
            cvat_image("b.png"),
            cvat_image("c.png", '<tag label="NG"/>'),
            cvat_image("d.png", '<tag label="dark"/>'),
        )
    )
    images = by_name(tmp_path)
    box, turned, polygon, ellipse, mask = images["a.png"].regions
    assert box.box == (1, 2, 8, 6)
    assert dict(box.attributes) == {"size": "big"}
    assert bounds(turned) == (13, 7, 17, 17)
    assert polygon.type == "scratch"
    assert rasterise(ellipse, (WIDTH, HEIGHT)).sum() == pytest.approx(math.pi * 40, rel=0.1)
    assert np.argwhere(rasterise(mask)).tolist() == [[5, 5], [5, 6]]
    assert {name: image.label for name, image in images.items()} == {
        "a.png": "anomaly",
        "b.png": "good",
        "c.png": "anomaly",
        "d.png": None,
    }


@pytest.mark.parametrize(
    "content",
    [
        cvat('<track id="0" label="dent"><box frame="0" xtl="1" ytl="1" xbr="9" ybr="9"/></track>'),
        cvat(cvat_image("a.png", '<polyline label="crack" points="1,1;9,9"/>')),
        cvat(cvat_image("a.png", '<box label="dent" xtl="1" ytl="1"/>')),
        cvat(cvat_image("a.png", '<mask label="rust" rle="1,2" left="4" top="5" width="3" height="2"/>')),
        cvat(cvat_image("a.png", '<mask label="rust" rle="0,6" left="39" top="5" width="3" height="2"/>')),
        cvat(cvat_image("a.png", '<polygon label="dent" points="1,1;9,1;9,9"/>', size=(80, 60))),
        cvat('<image name="a.png"><box label="dent" xtl="1" ytl="1" xbr="2" ybr="2"/></image>'),
    ],
)
def test_cvat_when_something_has_no_place_then_names_it(tmp_path: Path, content: str):
    draw(tmp_path, "a.png")
    (tmp_path / "annotations.xml").write_text(content)
    assert any("annotations.xml" in problem or "a.png" in problem for problem in plan_import(tmp_path).problems)


RECTANGLE = {"name": "rect", "x": 1, "y": 2, "width": 8, "height": 6}
POLYGON = {"name": "polygon", "all_points_x": [10, 20, 20], "all_points_y": [5, 5, 15]}


@pytest.mark.parametrize("form", ["json", "version 1", "project", "csv"])
def test_via_when_exported_in_any_form_then_is_read(tmp_path: Path, form: str):
    draw(tmp_path, "a.png", "b.png")
    regions = [
        {"shape_attributes": RECTANGLE, "region_attributes": {"type": "dent", "note": "old"}},
        {"shape_attributes": POLYGON, "region_attributes": {"damage": {"scratch": True, "rust": False}}},
    ]
    entries = {"a.png1": via("a.png", *regions), "b.png1": via("b.png")}
    if form == "version 1":
        entries["a.png1"]["regions"] = dict(enumerate(regions))
        entries["b.png1"]["regions"] = {}
    if form == "csv":
        quoted = [[json.dumps(part).replace('"', '""') for part in region.values()] for region in regions]
        rows = [f'a.png,1,"{{}}",2,{number},"{a}","{b}"' for number, (a, b) in enumerate(quoted)]
        head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
        (tmp_path / "via.csv").write_text("\n".join([head, *rows, 'b.png,1,"{}",0,0,"{}","{}"']))
    else:
        content = {"_via_settings": {}, "_via_img_metadata": entries} if form == "project" else entries
        (tmp_path / "via.json").write_text(json.dumps(content))
    images = by_name(tmp_path)
    rectangle, polygon = images["a.png"].regions
    assert (rectangle.type, rectangle.box, dict(rectangle.attributes)) == ("dent", (1, 2, 8, 6), {"note": "old"})
    assert (polygon.type, polygon.polygons) == ("scratch", (((10, 5), (20, 5), (20, 15)),))
    assert images["b.png"].label == "good"


@pytest.mark.parametrize("wrong", [{"name": "polyline"}, {"name": "rect", "x": 1}, {"name": "point"}, {}, None])
def test_via_when_a_shape_has_no_area_then_names_it(tmp_path: Path, wrong):
    draw(tmp_path, "a.png")
    entry = via("a.png", {"shape_attributes": wrong, "region_attributes": {}})
    (tmp_path / "via.json").write_text(json.dumps({"a.png1": entry}))
    assert any("a.png" in problem for problem in plan_import(tmp_path).problems)


RESULT = {"x": 10, "y": 10, "width": 50, "height": 20, "rotation": 0, "rectanglelabels": ["dent"]}
SIZE = {"original_width": WIDTH, "original_height": HEIGHT}


@pytest.mark.parametrize(
    "content",
    [
        [
            {
                "image": "/data/upload/1/0123abcd-a.png",
                "id": 7,
                "box": [RESULT | SIZE],
                "annotator": 1,
                "annotation_id": 2,
            }
        ],
        {"id": 7, "data": {"image": "a.png"}, "annotations": [{"result": [{"value": RESULT} | SIZE]}]},
        {"id": 1, "result": [{"value": RESULT} | SIZE], "task": {"id": 7, "data": {"image": "s3://bucket/a.png"}}},
    ],
)
def test_label_studio_when_exported_in_other_forms_then_is_read(tmp_path: Path, content):
    draw(tmp_path, "a.png")
    (tmp_path / "export.json").write_text(json.dumps(content))
    assert by_name(tmp_path)["a.png"].regions[0].box == (4, 3, 20, 6)


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ({"data": {"image": "a.png"}}, None),
        ({"data": {"image": "a.png"}, "predictions": [{"result": [{"value": RESULT} | SIZE]}]}, None),
        ({"image": "a.png", "choice": "OK", "annotator": 1}, "good"),
        ({"data": {"image": "a.png"}, "annotations": [{"result": [{"value": {"choices": ["scratch"]}}]}]}, None),
        ({"image": "a.png", "choice": ["OK", "Defective"], "annotator": 1}, None),
        ({"image": "a.png", "choice": ["good", "scratch"], "annotator": 1}, "good"),
    ],
)
def test_label_studio_when_nobody_marked_a_region_then_the_image_is_not_taken_as_good(tmp_path: Path, task, label):
    draw(tmp_path, "a.png")
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    assert by_name(tmp_path)["a.png"].label == label


@pytest.mark.parametrize("with_class", [True, False])
def test_csv_when_it_holds_run_lengths_then_masks_are_read_column_by_column(tmp_path: Path, with_class: bool):
    draw(tmp_path, "a.png", "b.png", "c.png")
    runs = f"{2 * HEIGHT + 4} 3 {3 * HEIGHT + 4} 3"
    lines = (
        ["ImageId,ClassId,EncodedPixels", f"a.png,3,{runs}", "b.png,,"]
        if with_class
        else ["ImageId_ClassId,EncodedPixels", f"a.png_3,{runs}", "a.png_1,", "b.png_1,"]
    )
    (tmp_path / "train.csv").write_text("\n".join(lines))
    images = by_name(tmp_path)
    assert images["a.png"].type == "class 3"
    assert [bounds(region) for region in images["a.png"].regions] == [(2, 3, 4, 6)]
    assert (images["b.png"].label, images["c.png"].label) == ("good", None)


def test_csv_when_exif_turns_the_image_then_run_lengths_are_turned_with_it(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "train.csv").write_text(f"ImageId,EncodedPixels\na.jpg,{2 * HEIGHT + 4} 3\n")
    assert [bounds(region) for region in by_name(tmp_path)["a.jpg"].regions] == [(HEIGHT - 6, 2, HEIGHT - 3, 3)]


@pytest.mark.parametrize("runs", ["0 3", "1 2 3", "1 x", f"{WIDTH * HEIGHT} 2", "5 0"])
def test_csv_when_run_lengths_are_damaged_then_names_the_row(tmp_path: Path, runs: str):
    draw(tmp_path, "a.png")
    (tmp_path / "train.csv").write_text(f"ImageId,ClassId,EncodedPixels\na.png,3,{runs}")
    assert any("row 2" in problem for problem in plan_import(tmp_path).problems)


def test_csv_when_a_row_has_a_class_and_no_box_then_the_image_is_not_good(tmp_path: Path):
    draw(tmp_path, "a.png")
    (tmp_path / "boxes.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.png,scratch,,,,\n")
    with pytest.raises(BadFolder, match="row 2"):
        plan_import(tmp_path).check()


def test_csv_when_saved_by_excel_in_windows_1252_then_types_keep_their_letters(tmp_path: Path):
    draw(tmp_path, "a.png")
    text = "filename;class;xmin;ymin;xmax;ymax\na.png;Stoß;1;1;9;9\n"
    (tmp_path / "boxes.csv").write_bytes(text.encode("cp1252"))
    assert by_name(tmp_path)["a.png"].type == "Stoß"


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("img/a.png", "labels/a.txt"),
        ("train/a.png", "labels/train/a.txt"),
        ("set/train/a.png", "set/train/labels/a.txt"),
    ],
)
def test_yolo_when_labels_lie_elsewhere_then_they_are_found(tmp_path: Path, image: str, labels: str):
    draw(tmp_path, image)
    (tmp_path / labels).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / labels).write_text("0 0.5 0.5 0.5 0.2\n")
    (tmp_path / "data.yaml").write_text("train: /home/ann/x/images\nnames: [dent]\n")
    assert by_name(tmp_path)["a.png"].regions[0].box == (10, 12, 20, 6)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", '{"images": [1, 2], "categories": null, "annotations": {"a": 1}}'),
        ("x.json", '{"images": [{"id": [1], "file_name": "a.png", "width": "x", "height": 3}], "annotations": []}'),
        ("x.json", '[{"data": {"image": "a.png"}, "annotations": [7]}]'),
        ("x.json", '[{"data": {"image": "a.png"}, "annotations": [{"result": 7}]}]'),
        ("x.json", '{"a": {"filename": "a.png", "regions": 7}}'),
        ("x.json", "[" * 100_000),
        ("data.yaml", "names: {a: dent}"),
    ],
)
def test_annotations_when_a_file_is_damaged_then_it_is_named_in_one_line(tmp_path: Path, name: str, content: str):
    draw(tmp_path, "a.png")
    (tmp_path / name).write_text(content)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    problems = plan_import(tmp_path).problems
    assert any(name in problem for problem in problems)
    assert not any("\n" in problem for problem in problems)
