"""Regions that come with an image, before it and after it."""

import numpy as np
import pytest

from pipelines.catalogue import connect
from pipelines.catalogue.samples import labelled_samples
from pipelines.images.masks import open_mask
from pipelines.images.region_pixels import rasterise
from pipelines.images.regions import Region, box_region, dumps, from_json, mask_region, polygon_region
from tests.pipelines.ingest.conftest import Line, image_file

SCRATCH = polygon_region("scratch", [[(5, 5), (30, 5), (30, 9), (5, 9)]], {"severity": "minor"})
DENT = box_region("dent", (1, 2, 30, 8))


def only(line: Line) -> dict:
    with connect() as connection:
        (row,) = labelled_samples(connection, line.name)
    return dict(row)


def test_ingest_when_regions_come_with_the_image_then_types_shapes_and_mask_are_kept(line: Line):
    line.send("anomaly/a.regions.json", dumps([SCRATCH]))
    line.send("anomaly/a.png", image_file(1))
    assert line.ingest()["accepted"] == 1
    row = only(line)
    assert row["type"] == "scratch"
    assert from_json(row["content"]) == (SCRATCH,)
    mask = open_mask(line.storage.get(row["mask_key"]), (40, 40))
    assert (mask == rasterise(SCRATCH, (40, 40))).all()
    assert line.keys("inbox") == []


def test_ingest_when_an_image_holds_a_scratch_and_a_dent_then_both_are_in_the_catalogue(line: Line):
    line.send("anomaly/a.regions.json", dumps([SCRATCH, DENT]))
    line.send("anomaly/a.png", image_file(1))
    line.ingest()
    row = only(line)
    assert (row["type"], row["mask_key"]) == ("dent+scratch", None), "a box is no exact mask"
    assert from_json(row["content"]) == (SCRATCH, DENT)


def test_ingest_when_one_mask_says_it_all_then_it_is_kept_as_a_mask(line: Line):
    marked = np.zeros((40, 40), dtype=bool)
    marked[3:9, 5:9] = True
    line.send("anomaly/rust/a.regions.json", dumps([mask_region("rust", marked)]))
    line.send("anomaly/rust/a.png", image_file(1))
    line.ingest()
    row = only(line)
    assert (row["type"], row["content"]) == ("rust", None)
    assert (open_mask(line.storage.get(row["mask_key"]), (40, 40)) == marked).all()


def test_ingest_when_regions_come_later_then_the_image_is_annotated_once(line: Line):
    line.send("anomaly/a.png", image_file(1))
    line.ingest()
    for outcome in ("annotated", "known"):
        line.send("anomaly/a.regions.json", dumps([SCRATCH]))
        assert line.ingest()[outcome] == 1
        assert from_json(only(line)["content"]) == (SCRATCH,)
    assert len(line.annotations) == 2


def test_ingest_when_regions_come_before_their_image_then_they_wait(line: Line):
    line.send("anomaly/a.regions.json", dumps([SCRATCH]))
    assert line.ingest()["waiting"] == 1
    line.send("anomaly/a.png", image_file(1))
    line.ingest()
    assert from_json(only(line)["content"]) == (SCRATCH,)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        dumps([]),
        dumps([box_region("dent", (35, 35, 30, 30))]),
        dumps([mask_region("rust", np.ones((9, 9), dtype=bool))]),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_ingest_when_regions_cannot_be_used_then_they_are_refused_and_the_image_is_taken(line: Line, data, late):
    line.send("anomaly/a.png", image_file(1))
    if late:
        line.ingest()
    line.send("anomaly/a.regions.json", data)
    summary = line.ingest()
    assert summary["rejected"] == 1
    assert only(line)["content"] is None
    assert [key for key in line.keys("rejected") if key.endswith(".json")] == ["anomaly/a.regions.json"]


@pytest.mark.parametrize("folder", ["good", "unlabelled"])
def test_ingest_when_regions_lie_beside_another_label_then_they_are_refused(line: Line, folder: str):
    line.send(f"{folder}/a.png", image_file(1))
    line.send(f"{folder}/a.regions.json", dumps([SCRATCH]))
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"]) == (1, 1)


def test_ingest_when_the_image_is_refused_then_so_are_its_regions(line: Line):
    line.send("anomaly/a.png", b"no image")
    line.send("anomaly/a.regions.json", dumps([SCRATCH]))
    assert line.ingest()["rejected"] == 2
    assert line.keys("inbox") == []


def test_content_when_a_mask_is_sent_later_then_it_replaces_the_regions(line: Line):
    from PIL import Image

    from tests.pipelines.hostile import encode

    line.send("anomaly/a.png", image_file(1))
    line.send("anomaly/a.regions.json", dumps([SCRATCH]))
    line.ingest()
    line.send("anomaly/a_mask.png", encode(Image.new("L", (40, 40), 255)))
    line.ingest()
    row = only(line)
    assert row["content"] is None
    assert open_mask(line.storage.get(row["mask_key"]), (40, 40)).all()


def test_region_when_its_type_is_missing_then_the_folder_names_it(line: Line):
    line.send("anomaly/stain/a.regions.json", dumps([Region(None, box=(1, 1, 5, 5))]))
    line.send("anomaly/stain/a.png", image_file(1))
    line.ingest()
    assert only(line)["type"] == "stain"
