"""Write a dataset version out as a folder that other tools read, and that imports as the same dataset version again.

Every format has the images as they came, `index.csv` with label, type, subset, group and time, and the mask files.
`coco`, `yolo` and `labelstudio` add the regions in their own form; what a form cannot hold, such as the attributes of a
region in YOLO, stands in a `<image>.regions.json` beside the image.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.samples import ANOMALY_SUBSETS
from pipelines.catalogue.schema import dataset_versions
from pipelines.config.project import load_project
from pipelines.datasets.versions import read_manifest
from pipelines.errors import BadDataset
from pipelines.images.decode import EXTENSIONS
from pipelines.images.file_signatures import looks_like
from pipelines.images.masks import open_mask
from pipelines.images.regions import Region, dumps, from_json, mask_region
from pipelines.ingest.annotation_formats import coco, label_studio, read_annotations, yolo
from pipelines.ingest.folder_names import meaning_of
from pipelines.ingest.import_names import safe_part
from pipelines.ingest.inbox_keys import INDEX, REGIONS_ENDING
from pipelines.storage.s3 import Storage

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["mvtec", "coco", "yolo", "labelstudio"]
FORMATS: tuple[Format, ...] = ("mvtec", "coco", "yolo", "labelstudio")
THREADS = 8
_SPLITS = {"training": "train", "validation": "validation", "test": "test"}
_SIDES = {subset: side for side, subset in ANOMALY_SUBSETS.items()}


@dataclass(frozen=True)
class _Entry:
    """One sample to write.

    Attributes:
        row: its row of the manifest.
        file: its file in the folder.
        mask: file of its mask; None without one, or if its regions give the mask.
        regions: its regions.
    """

    row: Mapping[str, Any]
    file: Path
    mask: Path | None
    regions: tuple[Region, ...]

    @property
    def size(self) -> tuple[int, int]:
        return int(self.row["width"]), int(self.row["height"])


def export_dataset(project: str, version_id: str | None, form: Format, folder: Path) -> str:
    """Write a dataset version (None: the newest) to a new or empty folder and return a line that says what is there.

    Raises:
        BadDataset: there is no such version, or the folder is not empty.
        StorageError: S3 is unavailable.
    """
    folder = folder.expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadDataset(f"{folder} is there already: give a new or empty folder")
    storage = Storage(load_project(project).bucket)
    version_id, manifest_key = _version(project, version_id)
    frame = read_manifest(storage.uri(manifest_key))
    entries = [_entry(row, form, folder) for row in _rows(frame)]

    def fetch(entry: _Entry) -> _Entry:
        storage.download(entry.row["key"], entry.file)
        if not entry.mask:
            return entry
        data = storage.get(entry.row["mask_key"])
        mask = entry.mask.with_suffix(f".{EXTENSIONS.get(looks_like(data) or '', 'png')}")
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.write_bytes(data)
        marked = open_mask(data, entry.size)
        # Other tools read no mask files, so that each gets the mask as a region of its own form.
        return _Entry(entry.row, entry.file, mask, (mask_region(entry.row["type"], marked),))

    with ThreadPoolExecutor(THREADS, thread_name_prefix="export") as threads:
        entries = list(threads.map(fetch, entries))
    _write_index(entries, folder)
    if form == "mvtec":
        _write_sidecars((entry for entry in entries if entry.regions and not entry.mask), {})
    else:
        _write_annotations(entries, form, folder)
        _write_sidecars((entry for entry in entries if not entry.mask), _read_back(folder, entries))
    masks = sum(entry.mask is not None for entry in entries)
    regions = sum(len(entry.regions) for entry in entries if not entry.mask)
    return (
        f"{project} {version_id}: {len(entries)} images, {masks} masks and {regions} regions are in {folder} ({form})"
    )


def _version(project: str, version_id: str | None) -> tuple[str, str]:
    table = dataset_versions
    query = select(table.c.version_id, table.c.manifest_key).where(table.c.project == project)
    if version_id:
        query = query.where(table.c.version_id == version_id)
    with connect() as connection:
        row = connection.execute(query.order_by(table.c.created_at.desc()).limit(1)).first()
    if row is None:
        what = f"no dataset version {version_id}" if version_id else "no dataset version yet"
        raise BadDataset(f"{project} has {what}: every run of {project}_retrain writes one")
    return row.version_id, row.manifest_key


def _rows(frame: pd.DataFrame) -> Iterable[dict[str, Any]]:
    for row in frame.to_dict("records"):
        yield {str(name): value for name, value in row.items()}


def _side(row: Mapping[str, Any]) -> str:
    """Return the side of a sample's group."""
    return _SIDES.get(row["subset"], str(row["subset"]))


def _entry(row: Mapping[str, Any], form: Format, folder: Path) -> _Entry:
    split = _SPLITS[_side(row)]
    stem, ending = str(row["sha256"])[:20], str(row["key"]).rpartition(".")[2]
    regions = from_json(json.loads(row["regions"])) if row["regions"] else ()
    kind = row["type"] if row["type"] and meaning_of(row["type"]).kind == "unknown" and "/" not in row["type"] else None
    label = kind or "anomaly" if row["label"] == "anomaly" else safe_part(row["label"])
    if form == "mvtec":
        file, mask = folder / split / label, folder / "ground_truth" / split / label
    else:
        file, mask = folder / "images" / split, folder / "masks" / split
    with_mask = row["mask_key"] and not regions
    return _Entry(row, file / f"{stem}.{ending}", mask / f"{stem}_mask.png" if with_mask else None, regions)


def _write_index(entries: Sequence[_Entry], folder: Path) -> None:
    with (folder / INDEX).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file", "label", "type", "subset", "group", "acquired_at"])
        for entry in entries:
            row = entry.row
            group = row["group_key"] if row["group_key"] != row["sha256"] else ""
            time = row["acquired_at"].isoformat() if row["acquired_at"] == row["acquired_at"] else ""  # not NaT
            name = entry.file.relative_to(folder).as_posix()
            writer.writerow([name, row["label"], row["type"] or "", _side(row), group, time])


def _write_annotations(entries: Sequence[_Entry], form: Format, folder: Path) -> None:
    listed = [(entry.file.relative_to(folder).as_posix(), entry.size, entry.regions) for entry in entries]
    if form == "coco":
        (folder / "annotations.json").write_text(coco.write(listed), encoding="utf-8")
    elif form == "labelstudio":
        (folder / "tasks.json").write_text(label_studio.write(listed), encoding="utf-8")
    else:
        types = sorted({region.type or "anomaly" for entry in entries for region in entry.regions})
        names = {name: number for number, name in enumerate(types)}
        content = {"path": ".", "names": dict(enumerate(types))}
        content |= {
            key: f"images/{split}" for key, split in (("train", "train"), ("val", "validation"), ("test", "test"))
        }
        (folder / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        for entry in entries:
            file = folder / "labels" / entry.file.relative_to(folder / "images").with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(yolo.write(entry.regions, names, entry.size), encoding="utf-8")


def _read_back(folder: Path, entries: Sequence[_Entry]) -> dict[Path, tuple[Region, ...]]:
    """Return the regions of each image as an import of the written files reads them."""
    images = [entry.file for entry in entries]
    others = sorted(path for path in folder.rglob("*") if path.is_file() and path not in set(images))
    read: dict[Path, tuple[Region, ...]] = {}
    for found in read_annotations(folder, images, others):
        read |= {image: annotated.regions for image, annotated in found.images.items()}
    return read


def _write_sidecars(entries: Iterable[_Entry], written: Mapping[Path, Sequence[Region]]) -> None:
    for entry in entries:
        if dumps(written.get(entry.file, ())) != dumps(entry.regions):
            entry.file.with_name(f"{entry.file.stem}{REGIONS_ENDING}").write_bytes(dumps(entry.regions))
