"""COCO JSON, as COCO, CVAT, Label Studio and Roboflow write it: polygons, run-length encodings and boxes.

Format: https://cocodataset.org/#format-data. An image without annotations shows nothing to mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.images.regions import (
    BadRegions,
    Region,
    Value,
    bounds,
    box_region,
    encoded_region,
    plain_values,
    polygon_region,
)
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    upright_regions,
)
from pipelines.ingest.name_lists import count_note

_STANDARD = {"id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd", "attributes", "keypoints"}
_STANDARD |= {"num_keypoints", "ignore"}


def is_coco(content: Any) -> bool:
    """Return whether parsed JSON is COCO."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content


def read(content: Mapping[str, Any], file: Path, images: ImageFiles) -> AnnotationSet:
    """Return the regions of a COCO file's images.

    Raises:
        BadAnnotations: an entry is incomplete or contradicts its image; says which.
    """
    try:
        names = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
        of_image: dict[Any, list[Mapping[str, Any]]] = {}
        for entry in content["annotations"] or []:
            of_image.setdefault(entry["image_id"], []).append(entry)
        listed = [(entry["id"], str(entry["file_name"]), _size(entry)) for entry in content["images"]]
    except (KeyError, TypeError) as error:
        raise BadAnnotations(f"{file}: an entry of this COCO file lacks {error}: export it again") from None
    read: dict[Path, Annotated] = {}
    missing = []
    for number, name, size in listed:
        entries = of_image.pop(number, [])
        image = images.find(name, file.parent)
        if image is None:
            missing.append(name)
            continue
        if image in read:
            raise BadAnnotations(f"{file}: {name} and another entry stand for the same file {image}: rename one")
        regions = (_region(entry, names, size, f"{file}: annotation {entry.get('id')} of {name}") for entry in entries)
        read[image] = Annotated(upright_regions(regions, size, image))
    notes = count_note("images of the COCO file are not there", missing)
    notes += count_note("annotations belong to no listed image", (f"image {number}" for number in of_image))
    return AnnotationSet("COCO JSON", read, frozenset({file}), tuple(notes))


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = entry.get("width"), entry.get("height")
    return (int(width), int(height)) if width and height else None


def _region(entry: Mapping[str, Any], names: Mapping[Any, str], size: tuple[int, int] | None, where: str) -> Region:
    if entry.get("category_id") not in names:
        raise BadAnnotations(f"{where} has category {entry.get('category_id')!r}, which the file does not list")
    kind = names[entry["category_id"]]
    attributes = _attributes(entry)
    shape = entry.get("segmentation")
    try:
        if isinstance(shape, dict):
            return encoded_region(kind, shape["size"], shape["counts"], attributes)
        if shape:
            rings = [list(zip(ring[::2], ring[1::2], strict=True)) for ring in shape]
            return polygon_region(kind, [ring for ring in rings if len(set(ring)) > 2], attributes)
        return box_region(kind, entry["bbox"], attributes)
    except (BadRegions, KeyError, TypeError, ValueError) as error:
        raise BadAnnotations(f"{where} has no usable shape ({error}): draw it again, or remove it") from None


def _attributes(entry: Mapping[str, Any]) -> dict[str, Value]:
    others = {name: value for name, value in entry.items() if name not in _STANDARD}
    others |= entry.get("attributes") or {} if isinstance(entry.get("attributes"), dict | None) else {}
    return plain_values(others)


def write(images: Iterable[tuple[str, tuple[int, int], Sequence[Region]]]) -> str:
    """Return a COCO file of images given as file name, (width, height) and regions.

    Types become categories in alphabetical order; a region without a type has the category `anomaly`.
    """
    listed = list(images)
    types = sorted({region.type or "anomaly" for _, _, regions in listed for region in regions})
    numbers = {name: number for number, name in enumerate(types, start=1)}
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": number, "name": name} for name, number in numbers.items()]
    for image_id, (name, (width, height), regions) in enumerate(listed, start=1):
        content["images"].append({"id": image_id, "file_name": name, "width": width, "height": height})
        for region in regions:
            left, top, right, bottom = bounds(region)
            entry = {
                "id": len(content["annotations"]) + 1,
                "image_id": image_id,
                "category_id": numbers[region.type or "anomaly"],
                "bbox": [left, top, round(right - left, 3), round(bottom - top, 3)],
                "area": round((right - left) * (bottom - top), 3),
                "segmentation": _segmentation(region),
                "iscrowd": int(region.mask is not None),
            }
            content["annotations"].append(
                entry | ({"attributes": dict(region.attributes)} if region.attributes else {})
            )
    return json.dumps(content, ensure_ascii=False, indent=1)


def _segmentation(region: Region) -> Any:
    if region.mask:
        height, width, counts = region.mask
        return {"size": [height, width], "counts": counts}
    return [[value for point in polygon for value in point] for polygon in region.polygons]
