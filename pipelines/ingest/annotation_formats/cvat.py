"""CVAT for images 1.1: one XML file with boxes, polygons, ellipses, masks and tags of whole images.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. An image without shapes shows nothing to
mark. The form for video names frames instead of files, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.images.regions import BadRegions, Region, Value, box_region, mask_region, polygon_region
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    upright_regions,
    whole_image_label,
)
from pipelines.ingest.annotation_formats.shapes import box_points, ellipse_points
from pipelines.ingest.name_lists import count_note


def read(tree: Any, file: Path, images: ImageFiles) -> AnnotationSet:
    """Return the regions of the parsed XML whose outermost element is `annotations`.

    Raises:
        BadAnnotations: it is a video's, or a shape has no area or contradicts its image; says which.
    """
    if tree.find("track") is not None:
        raise BadAnnotations(
            f"{file} is CVAT for video, which names frames and no files: export it as CVAT for images or COCO"
        )
    read: dict[Path, Annotated] = {}
    missing, tags, subsets = [], set(), set()
    for entry in tree.iter("image"):
        name = entry.get("name") or ""
        subsets.add(entry.get("subset") or "")
        image = images.find(name, file.parent) if name else None
        if image is None:
            missing.append(name or f"image {entry.get('id')}")
            continue
        if image in read:
            raise BadAnnotations(f"{file}: {name} and another entry stand for the same file {image}: rename one")
        size = _size(entry, f"{file}: image {name}")
        regions, labels = [], []
        for part in entry:
            if part.tag == "tag":
                labels.append(part.get("label") or "")
            else:
                regions.append(_region(part, size, f"{file}: a {part.tag} of {name}"))
        label = whole_image_label(labels)
        tags |= set(labels) if label is None else set()
        done = bool(regions or label or not labels)  # a tag that is not understood may well name a defect
        read[image] = Annotated(upright_regions(regions, size, image), done, label)
    notes = count_note("images of the CVAT file are not there", missing)
    notes += count_note(
        "tags mean neither good nor an anomaly; images with no more than them stay unlabelled", sorted(tags)
    )
    notes += count_note("subsets of the CVAT file are not used; put the images into train/ and test/", _named(subsets))
    return AnnotationSet("CVAT XML", read, frozenset({file}), tuple(notes))


def _named(subsets: set[str]) -> list[str]:
    return sorted(subsets - {"", "default", "Default"})


def _size(entry: Any, where: str) -> tuple[int, int]:
    try:
        return int(entry.get("width")), int(entry.get("height"))
    except (TypeError, ValueError):
        raise BadAnnotations(f"{where} has no width and height: export it again") from None


def _region(part: Any, size: tuple[int, int], where: str) -> Region:
    kind = (part.get("label") or "").strip() or None
    shapes: dict[str, Callable[[], Region]] = {
        "box": lambda: _box(part, kind),
        "polygon": lambda: polygon_region(kind, [_points(part)], _attributes(part)),
        "ellipse": lambda: polygon_region(kind, [_ellipse(part)], _attributes(part)),
        "mask": lambda: _mask(part, kind, size),
    }
    if part.tag not in shapes:
        raise BadAnnotations(f"{where} ({kind}) has no area: draw a polygon, or remove it")
    try:
        return shapes[part.tag]()
    except (BadRegions, TypeError, ValueError) as error:
        raise BadAnnotations(f"{where} ({kind}) has no usable shape ({error}): draw it again, or remove it") from None


def _numbers(part: Any, *names: str) -> list[float]:
    return [float(part.get(name)) for name in names]


def _points(part: Any) -> list[list[float]]:
    return [[float(value) for value in point.split(",")] for point in part.get("points").split(";")]


def _box(part: Any, kind: str | None) -> Region:
    left, top, right, bottom = _numbers(part, "xtl", "ytl", "xbr", "ybr")
    box = (left, top, right - left, bottom - top)
    turn = float(part.get("rotation") or 0)
    if turn:
        return polygon_region(kind, [box_points(box, turn)], _attributes(part))
    return box_region(kind, box, _attributes(part))


def _ellipse(part: Any) -> list[tuple[float, float]]:
    x, y, radius_x, radius_y = _numbers(part, "cx", "cy", "rx", "ry")
    return ellipse_points((x, y), (radius_x, radius_y), float(part.get("rotation") or 0))


def _mask(part: Any, kind: str | None, size: tuple[int, int]) -> Region:
    """Return a mask, whose runs go row by row through its box, background first."""
    left, top, width, height = (int(float(part.get(name))) for name in ("left", "top", "width", "height"))
    runs = [int(run) for run in part.get("rle").split(",")]
    if min(width, height, *runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"its runs cover {sum(runs):,} of {width * height:,} pixels")
    if min(left, top) < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError("its mask reaches outside the image")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    marked = np.zeros((size[1], size[0]), dtype=bool)
    marked[top : top + height, left : left + width] = values
    return mask_region(kind, marked, _attributes(part))


def _attributes(part: Any) -> dict[str, Value]:
    return {entry.get("name"): entry.text for entry in part.iter("attribute") if entry.get("name") and entry.text}
