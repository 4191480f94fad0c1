"""A CSV with a box a row: file, class and xmin, ymin, xmax, ymax, or x, y, width, height, in pixels.

A row with a file and no box says that the image shows nothing to mark. The headerless form of RetinaNet
(`path,x1,y1,x2,y2,class`) is read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.images.regions import BadRegions, box_region
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    upright_regions,
)
from pipelines.ingest.folder_names import meaning_of
from pipelines.ingest.name_lists import count_note

_FILE = ("filename", "file_name", "file", "image", "image_path", "img", "path", "name", "image_name", "image_id")
_CLASS = ("class", "label", "type", "category", "class_name", "label_name", "region_type", "damage")
_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
_BOXES = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
)


def read(lines: Sequence[Sequence[str]], file: Path, images: ImageFiles) -> AnnotationSet | None:
    """Return the boxes of the lines of a CSV, the header first; None if it has no columns of boxes.

    Raises:
        BadAnnotations: a row cannot be read or contradicts its image; says which.
    """
    header, rows = [name.strip().lower() for name in lines[0]], lines[1:]
    if _is_retinanet(lines[0]):
        header, rows = ["path", "x1", "y1", "x2", "y2", "class"], lines
    columns = {name: index for index, name in enumerate(header)}
    name_column = next((name for name in _FILE if name in columns), None)
    corners = next((names for names in _CORNERS if set(names) <= set(columns)), None)
    box = corners or next((names for names in _BOXES if set(names) <= set(columns)), None)
    if name_column is None or box is None:
        return None
    kind_column = next((name for name in _CLASS if name in columns and name not in (name_column, *box)), None)
    found: dict[Path, list[tuple[int, Sequence[str]]]] = {}
    missing = []
    for number, row in enumerate(rows, start=len(lines) - len(rows) + 1):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) < len(header):
            raise BadAnnotations(f"{file}, row {number}: has {len(row)} columns and the header {len(header)}")
        name = row[columns[name_column]].strip()
        image = images.find(name, file.parent)
        if image is None:
            missing.append(f"{name or 'no name'} (row {number})")
        else:
            found.setdefault(image, []).append((number, row))
    read = {
        image: _annotated(of_image, columns, kind_column, box, bool(corners), image, file)
        for image, of_image in found.items()
    }
    notes = count_note("rows of the CSV have no image file", missing)
    return AnnotationSet("CSV of boxes", read, frozenset({file}), tuple(notes))


def _is_retinanet(row: Sequence[str]) -> bool:
    if len(row) != 6:
        return False
    try:
        [float(cell) for cell in row[1:5] if cell.strip()]
    except ValueError:
        return False
    return "." in row[0]


def _annotated(
    rows: Sequence[tuple[int, Sequence[str]]],
    columns: Mapping[str, int],
    kind_column: str | None,
    box: Sequence[str],
    corners: bool,
    image: Path,
    file: Path,
) -> Annotated:
    regions = []
    declared = None
    for number, row in rows:
        cells = [row[columns[name]].strip() for name in box]
        kind = (row[columns[kind_column]].strip() if kind_column else "") or None
        if not any(cells):
            if kind and meaning_of(kind).kind != "good":
                raise BadAnnotations(f"{file}, row {number}: has the class {kind!r} and no box: add it, or clear both")
            continue
        try:
            a, b, c, d = (float(cell) for cell in cells)
            values = (a, b, c - a, d - b) if corners else (a, b, c, d)
            regions.append(box_region(kind, values))
            if corners and {"width", "height"} <= set(columns):
                declared = int(float(row[columns["width"]])), int(float(row[columns["height"]]))
        except (ValueError, BadRegions) as error:
            raise BadAnnotations(f"{file}, row {number}: {error}") from None
    return Annotated(upright_regions(regions, declared, image))
