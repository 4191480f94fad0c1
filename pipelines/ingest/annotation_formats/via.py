"""VGG Image Annotator 1 and 2: JSON, its project file, and CSV, with rectangles, polygons, circles and ellipses.

Format: https://www.robots.ox.ac.uk/~vgg/software/via/. The type of a region is its attribute `type`, `class`, `label`,
`name` or the like, or its only attribute. An image without regions shows nothing to mark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.images.regions import BadRegions, Region, Value, box_region, polygon_region
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
)
from pipelines.ingest.annotation_formats.shapes import ellipse_points
from pipelines.ingest.name_lists import count_note

CSV_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
_TYPES = ("type", "class", "label", "category", "damage", "defect", "name", "object", "region_type")


def entries_of(content: Any) -> list[Mapping[str, Any]] | None:
    """Return the entries of VIA's parsed JSON, one an image; None of other JSON."""
    if isinstance(content, dict) and isinstance(content.get("_via_img_metadata"), dict):
        content = content["_via_img_metadata"]
    if not isinstance(content, dict) or not content:
        return None
    entries = list(content.values())
    if all(isinstance(entry, dict) and "filename" in entry and "regions" in entry for entry in entries):
        return entries
    return None


def entries_of_rows(rows: Iterable[Mapping[str, str]], file: Path) -> list[Mapping[str, Any]]:
    """Return the entries of VIA's CSV, whose rows hold a region each, or none.

    Raises:
        BadAnnotations: a row's shape is no JSON; says which.
    """
    entries: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, start=2):
        entry = entries.setdefault(row["filename"], {"filename": row["filename"], "regions": []})
        try:
            shape = json.loads(row["region_shape_attributes"] or "{}")
            if shape:
                attributes = json.loads(row["region_attributes"] or "{}")
                entry["regions"].append({"shape_attributes": shape, "region_attributes": attributes})
        except ValueError as error:
            raise BadAnnotations(f"{file}, row {number}: its shape is no JSON ({error}): export it again") from None
    return list(entries.values())


def read(entries: Iterable[Mapping[str, Any]], file: Path, images: ImageFiles) -> AnnotationSet:
    """Return the regions of VIA's entries.

    Raises:
        BadAnnotations: a shape has no area; says which.
    """
    read: dict[Path, Annotated] = {}
    missing = []
    for entry in entries:
        name = str(entry["filename"])
        image = images.find(name, file.parent)
        if image is None:
            missing.append(name)
            continue
        if image in read:
            raise BadAnnotations(f"{file}: {name} and another entry stand for the same file {image}: rename one")
        found = entry["regions"] or []
        listed = list(found.values()) if isinstance(found, dict) else found  # version 1 numbers them
        regions = [_region(region, f"{file}: region {number} of {name}") for number, region in enumerate(listed, 1)]
        read[image] = Annotated(tuple(regions))
    return AnnotationSet("VGG VIA", read, frozenset({file}), tuple(count_note("images of VIA are not there", missing)))


def _region(region: Mapping[str, Any], where: str) -> Region:
    try:
        shape = region["shape_attributes"]
        kind, attributes = _type(region.get("region_attributes") or {})
        form = shape["name"]
        if form == "rect":
            return box_region(kind, [float(shape[name]) for name in ("x", "y", "width", "height")], attributes)
        if form == "polygon":
            points = list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
            return polygon_region(kind, [points], attributes)
        if form in ("circle", "ellipse"):
            radii = (shape["r"], shape["r"]) if form == "circle" else (shape["rx"], shape["ry"])
            turn = math.degrees(shape.get("theta") or 0)
            return polygon_region(kind, [ellipse_points((shape["cx"], shape["cy"]), radii, turn)], attributes)
    except (BadRegions, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadAnnotations(f"{where} has no usable shape ({error}): draw it again, or remove it") from None
    raise BadAnnotations(f"{where} is a {form}, which has no area: draw a polygon, or remove it")


def _type(attributes: Mapping[str, Any]) -> tuple[str | None, dict[str, Value]]:
    """Return the type among the attributes of a region, and the other attributes."""
    texts: dict[str, Value] = {}
    for name, value in attributes.items():
        if isinstance(value, dict):  # of check boxes: {"dent": true}
            value = "+".join(sorted(str(key) for key, on in value.items() if on))
        if isinstance(value, str | int | float | bool) and str(value).strip():
            texts[str(name)] = value
    by_case = {name.casefold(): name for name in texts}
    found = next((by_case[name] for name in _TYPES if name in by_case), next(iter(texts)) if len(texts) == 1 else None)
    kind = str(texts.pop(found)).strip() if found else None
    return kind, texts
