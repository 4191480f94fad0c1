"""LabelMe: one JSON file an image, with polygons, rectangles, circles and masks; also X-AnyLabeling's.

Format: https://github.com/wkentaro/labelme. A file without shapes says that the image shows nothing to mark; an image
without a file is unlabelled. A flag that is set and means good or an anomaly labels the whole image.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.images.regions import BadRegions, Region, Value, box_region, mask_region, plain_values, polygon_region
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    upright_regions,
    whole_image_label,
)
from pipelines.ingest.annotation_formats.shapes import ellipse_points
from pipelines.ingest.name_lists import count_note


def is_labelme(content: Any) -> bool:
    """Return whether parsed JSON is LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read(contents: Iterable[tuple[Path, Mapping[str, Any]]], images: ImageFiles) -> AnnotationSet:
    """Return the regions of LabelMe files, given as path and parsed JSON.

    Raises:
        BadAnnotations: a shape has no area or contradicts its image; says which.
    """
    read: dict[Path, Annotated] = {}
    used, missing = [], []
    unclear: set[str] = set()
    for file, content in contents:
        used.append(file)
        name = str(content.get("imagePath") or "")
        image = (images.find(name, file.parent) if name else None) or images.beside(file)
        if image is None:
            missing.append(name or file.name)
            continue
        if image in read:
            raise BadAnnotations(f"{file} and another file stand for the same image {image.name}: remove one")
        width, height = content.get("imageWidth"), content.get("imageHeight")
        size = (int(width), int(height)) if width and height else None
        regions = [_region(shape, size, f"{file}: shape {n}") for n, shape in enumerate(content["shapes"], start=1)]
        flags = content.get("flags") or {}
        flagged = {str(name) for name, value in flags.items() if value is True}
        label = whole_image_label(flagged)
        unclear |= flagged if label is None else set()
        done = bool(regions or label or not flagged)  # a flag that is not understood may well name a defect
        read[image] = Annotated(upright_regions(regions, size, image), done, label)
    notes = count_note("images of the LabelMe files are not there", missing)
    notes += count_note(
        "flags mean neither good nor an anomaly; images with no more than them stay unlabelled", sorted(unclear)
    )
    return AnnotationSet("LabelMe JSON", read, frozenset(used), tuple(notes))


def _region(shape: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> Region:
    kind = str(shape.get("label") or "").strip() or None
    points = shape.get("points") or []
    form = shape.get("shape_type") or "polygon"
    attributes = _attributes(shape)
    try:
        if form in ("polygon", "rotation", "quadrilateral"):
            return polygon_region(kind, [points], attributes)
        if form == "rectangle" and len(points) > 2:
            left, top = np.min(points, axis=0).tolist()
            right, bottom = np.max(points, axis=0).tolist()
            return box_region(kind, (left, top, right - left, bottom - top), attributes)
        if form == "rectangle":
            (x1, y1), (x2, y2) = points
            return box_region(kind, (min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)), attributes)
        if form == "circle":
            (x, y), (x2, y2) = points
            radius = float(np.hypot(x2 - x, y2 - y))
            return polygon_region(kind, [ellipse_points((x, y), (radius, radius))], attributes)
        if form == "mask":
            return _mask(kind, points, shape.get("mask"), size, attributes)
    except (BadRegions, TypeError, ValueError, KeyError, OSError, binascii.Error) as error:
        raise BadAnnotations(f"{where} ({kind}) has no usable shape ({error}): draw it again, or remove it") from None
    raise BadAnnotations(f"{where} ({kind}) is a {form}, which has no area: draw a polygon, or remove it")


def _mask(
    kind: str | None,
    points: Sequence[Sequence[float]],
    data: Any,
    size: tuple[int, int] | None,
    attributes: Mapping[str, Value],
) -> Region:
    """Return the region of a PNG in base64, which lies at the first of its two points."""
    if size is None:
        raise ValueError("imageWidth and imageHeight are missing")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        part = np.asarray(picture.convert("L")) > 0
    left, top = (round(value) for value in points[0])
    marked = np.zeros((size[1], size[0]), dtype=bool)
    height, width = part.shape
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError("its mask reaches outside the image")
    marked[top : top + height, left : left + width] = part
    return mask_region(kind, marked, attributes)


def _attributes(shape: Mapping[str, Any]) -> dict[str, Value]:
    others = {name: shape.get(name) for name in ("group_id", "description", "difficult")}
    others |= {name: value for name, value in (shape.get("flags") or {}).items() if value}
    others |= shape["attributes"] if isinstance(shape.get("attributes"), dict) else {}
    return {name: value for name, value in plain_values(others).items() if value != ""}
