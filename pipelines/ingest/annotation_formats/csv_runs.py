"""A CSV with a run-length encoded mask a row, as in Kaggle's competitions: image, class and `EncodedPixels`.

Runs are pairs of a start, counted from 1, and a length, column by column:
https://www.kaggle.com/c/severstal-steel-defect-detection/overview/evaluation. A row without runs marks nothing. The
class may stand behind the name (`ImageId_ClassId` with `0002cc93b.jpg_1`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pipelines.images.regions import Region, mask_region
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    size_of,
    upright_regions,
)
from pipelines.ingest.name_lists import count_note

_NAMES = ("imageid", "image_id", "imageid_classid", "image", "filename", "id", "img_id")
_CLASSES = ("classid", "class_id", "class", "label", "type")
_RUNS = ("encodedpixels", "encoded_pixels", "rle", "rle_mask", "encodedpixel")


def columns(header: Iterable[str]) -> tuple[str, str | None, str] | None:
    """Return the columns of the name, the class (None without one) and the runs; None of another CSV."""
    names = set(header)
    found = [next((name for name in wanted if name in names), None) for wanted in (_NAMES, _CLASSES, _RUNS)]
    return (found[0], found[1], found[2]) if found[0] and found[2] else None


def read(
    rows: Iterable[Mapping[str, str]], named: tuple[str, str | None, str], file: Path, images: ImageFiles
) -> AnnotationSet:
    """Return the masks of the rows of a CSV.

    Raises:
        BadAnnotations: the runs of a row are damaged; says which.
    """
    name_column, class_column, runs_column = named
    found: dict[Path, list[Region]] = {}
    missing = []
    for number, row in enumerate(rows, start=2):
        name, kind = row[name_column], row[class_column] if class_column else ""
        image = images.find(name, file.parent)
        if image is None and "_" in name:
            name, _, kind = name.rpartition("_")
            image = images.find(name, file.parent)
        if image is None:
            missing.append(f"{name or 'no name'} (row {number})")
            continue
        regions = found.setdefault(image, [])
        runs = row[runs_column].strip()
        if runs and runs not in ("-1", "nan", "NaN"):
            regions += _regions(runs, f"class {kind}" if kind.isdigit() else kind or None, image, file, number)
    read = {image: Annotated(tuple(regions)) for image, regions in found.items()}
    notes = count_note("rows of the CSV have no image file", missing)
    return AnnotationSet("CSV of run lengths", read, frozenset({file}), tuple(notes))


def _regions(runs: str, kind: str | None, image: Path, file: Path, number: int) -> tuple[Region, ...]:
    """Return the region of a row; runs count the pixels as stored."""
    stored = width, height = size_of(image).stored
    try:
        values = np.array([int(value) for value in runs.split()]).reshape(-1, 2)
        starts, ends = values[:, 0] - 1, values[:, 0] - 1 + values[:, 1]
        if (starts < 0).any() or (values[:, 1] < 1).any() or ends.max() > width * height:
            raise ValueError(f"a run lies outside its image of {width} x {height} pixels")
    except ValueError as error:
        raise BadAnnotations(f"{file}, row {number}: its run lengths are damaged ({error}): export it again") from None
    marked = np.zeros(width * height, dtype=bool)
    for start, end in zip(starts, ends, strict=True):
        marked[start:end] = True
    return upright_regions([mask_region(kind, marked.reshape(width, height).T)], stored, image)
