"""A dataset version written out in each format imports as the same dataset version."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.catalogue import connect, migrate
from pipelines.catalogue.samples import labelled_samples
from pipelines.datasets.export_dataset import FORMATS, export_dataset
from pipelines.datasets.versions import freeze, read_manifest
from pipelines.errors import BadDataset
from pipelines.images.regions import Region, box_region, dumps, mask_region, polygon_region
from pipelines.ingest.import_folder import import_folder
from tests.conftest import Projects
from tests.pipelines.hostile import encode
from tests.pipelines.ingest.conftest import Line, image_file

MARKED = np.zeros((40, 40), dtype=bool)
MARKED[3:9, 5:30] = True
TRIANGLE = [(1.5, 2.25), (20, 2), (7.125, 33)]
REGIONS: dict[str, list[Region]] = {
    "several types": [polygon_region("scratch", [TRIANGLE]), box_region("dent", (1, 2, 30.5, 8.125))],
    "attributes": [polygon_region("scratch", [TRIANGLE], {"severity": "minor"})],
    "two polygons": [polygon_region("dent", [TRIANGLE, [(30, 30), (39, 30), (39, 39)]])],
    "a mask and a box": [mask_region("rust", MARKED), box_region("rust", (0, 0, 40, 40))],
    "one mask": [mask_region("rust", MARKED)],
    "no type": [polygon_region(None, [TRIANGLE])],
    "general type": [box_region("anomaly", (3, 3, 5, 5)), box_region("Anomaly", (8, 8, 5, 5))],
    "like a number": [box_region("1e3", (3, 3, 5, 5)), polygon_region("yes", [TRIANGLE])],
    "like a label": [box_region("OK: no", (3, 3, 5, 5)), polygon_region("a/b", [TRIANGLE])],
    "words": [box_region("Kratzer, tief", (3, 3, 5, 5))],
}


@pytest.fixture
def new_database(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Use a fresh catalogue, and return a function that changes to another one."""

    def change() -> None:
        monkeypatch.setenv("INSPECTLINE_DATABASE_URL", f"sqlite:///{tmp_path / 'second.db'}")
        migrate()

    return change


def fill(line: Line) -> None:
    """Ingest good images with groups and times, and anomalies with masks, regions and neither."""
    rows = [f"image-{seed:04}.png,lot {seed % 5},2026-05-0{seed % 9 + 1}T12:00:00+02:00" for seed in range(32)]
    line.send("good/index.csv", "\n".join(["file,group,acquired_at", *rows]).encode())
    line.send_images(32)
    for number, (name, regions) in enumerate(REGIONS.items()):
        folder = f"anomaly/{regions[0].type or 'anomaly'}" if len(regions) == 1 else "anomaly"
        line.send(f"{folder}/{name}.regions.json", dumps(regions))
        line.send(f"{folder}/{name}.png", image_file(500 + number))
    line.send("anomaly/scratch/with mask.jpg", image_file(600, "JPEG"))
    line.send("anomaly/scratch/with mask_mask.tif", encode(Image.fromarray(MARKED.astype(np.uint8) * 3), "TIFF"))
    line.send("anomaly/mask/badly named type.png", image_file(601))
    line.send("anomaly/bare.png", image_file(602))
    summary = line.ingest()
    assert (summary["rejected"], summary["failed"], summary["waiting"]) == (0, 0, 0)


def listed() -> list[dict[str, object]]:
    with connect() as connection:
        rows = [dict(row) for row in labelled_samples(connection, "line")]
    names = ("sha256", "label", "type", "subset", "mask_key", "content", "group_key", "acquired_at")
    return [{name: row[name] for name in names} for row in rows]


@pytest.mark.parametrize("form", FORMATS)
def test_export_when_imported_again_then_is_the_same_version(
    projects: Projects, new_database, tmp_path: Path, form: str
):
    projects.write("line")
    fill(Line(projects.bucket))
    version, before = freeze("line"), listed()
    told = export_dataset("line", None, form, tmp_path / "out")
    assert version.version_id in told
    new_database()
    for item in list(Line(projects.bucket).storage.list("line/")):
        Line(projects.bucket).storage.delete(item.key)
    import_folder(tmp_path / "out", "line")
    again = Line(projects.bucket)
    summary = again.ingest()
    assert (summary["rejected"], summary["waiting"]) == (0, 0)
    assert listed() == before
    assert freeze("line").version_id == version.version_id


def test_export_when_a_format_holds_regions_then_other_tools_find_them_in_it(
    projects: Projects, new_database, tmp_path: Path
):
    projects.write("line")
    fill(Line(projects.bucket))
    frame = read_manifest(freeze("line").manifest_uri)
    export_dataset("line", None, "coco", tmp_path / "coco")
    content = json.loads((tmp_path / "coco/annotations.json").read_text())
    assert len(content["images"]) == len(frame)
    assert {category["name"] for category in content["categories"]} >= {"scratch", "dent", "rust"}
    assert len(content["annotations"]) == sum(map(len, REGIONS.values())) + 1
    export_dataset("line", None, "yolo", tmp_path / "yolo")
    texts = list((tmp_path / "yolo/labels").rglob("*.txt"))
    assert len(texts) == len(frame)
    assert sum(bool(text.read_text()) for text in texts) == len(REGIONS) - 1, "a mask has no line in YOLO"


def test_export_when_there_is_nothing_or_the_folder_is_full_then_refuses(projects: Projects, new_database, tmp_path):
    projects.write("line")
    with pytest.raises(BadDataset, match="no dataset version"):
        export_dataset("line", None, "coco", tmp_path / "new")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadDataset, match="is there already"):
        export_dataset("line", None, "coco", tmp_path)


@pytest.mark.parametrize("form", FORMATS)
def test_export_of_a_classifier_imports_as_the_same_version(projects, new_database, tmp_path, form):
    projects.write("line", task="classification")
    line = Line(projects.bucket)
    line.send("index.csv", b"file,group\nboletus/image-0000.png,find 1\nboletus/image-0001.png,find 1\n")
    line.send_images(12, "boletus")
    line.send_images(12, "amanita muscaria", first=100)
    line.ingest()
    frozen = freeze("line")
    export_dataset("line", frozen.version_id, form, tmp_path / "out")
    new_database()
    imported = import_folder(tmp_path / "out", "line")
    assert imported.images == {"amanita muscaria": 12, "boletus": 12}
    line.ingest()
    assert freeze("line").version_id == frozen.version_id
