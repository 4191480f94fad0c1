"""Label Studio's JSON export: rectangles, polygons, ellipses and brush masks, and choices for the whole image.

Format: https://labelstud.io/guide/export. Positions are percentages of the image. A task that nobody annotated is
unlabelled; one that was submitted without a region shows nothing to mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from pipelines.images.region_pixels import rasterise
from pipelines.images.regions import (
    BadRegions,
    Region,
    Value,
    box_region,
    mask_region,
    plain_values,
    polygon_region,
)
from pipelines.ingest.annotation_formats import rle_pack
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    upright_regions,
    whole_image_label,
)
from pipelines.ingest.annotation_formats.shapes import ellipse_points, turned_points
from pipelines.ingest.name_lists import count_note

_LABELS = ("rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "labels")


def tasks_of(content: Any) -> list[Mapping[str, Any]] | None:
    """Return the tasks of an export, of its short form (JSON-MIN), or a task alone; None of other JSON."""
    if isinstance(content, dict):
        if isinstance(content.get("task"), dict) and isinstance(
            content.get("result"), list
        ):  # of a storage it wrote to
            return tasks_of([content["task"] | {"annotations": [content]}])
        return tasks_of([content]) if "annotations" in content and isinstance(content.get("data"), dict) else None
    if not isinstance(content, list) or not content or not all(isinstance(task, dict) for task in content):
        return None
    if all(isinstance(task.get("data"), dict) for task in content):
        named = any("annotations" in task or "completions" in task or _file_name(task["data"]) for task in content)
        return content if named else None
    short = [_of_short_form(task) for task in content]
    return [task for task in short if task] if all(short) else None


def _of_short_form(task: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the task of an entry of JSON-MIN, which has the results beside the data; None of anything else."""
    if not {"annotation_id", "annotator", "lead_time"} & set(task):
        return None
    results: list[Mapping[str, Any]] = []
    for value in task.values():
        if isinstance(value, list) and all(isinstance(entry, dict) and "original_width" in entry for entry in value):
            results += [{"value": entry} | entry for entry in value]
    for name in ("choice", "choices"):
        if choice := task.get(name):
            results.append({"value": {"choices": choice if isinstance(choice, list) else [choice]}})
    data = {name: value for name, value in task.items() if isinstance(value, str) and "." in value}
    return {"id": task.get("id"), "data": data, "annotations": [{"result": results}]}


def read(content: Sequence[Mapping[str, Any]], file: Path, images: ImageFiles) -> AnnotationSet:
    """Return the regions of a Label Studio export's images.

    Raises:
        BadAnnotations: a result cannot be read or contradicts its image; says which.
    """
    read: dict[Path, Annotated] = {}
    missing: list[str] = []
    ignored: list[str] = []
    predicted: list[str] = []
    for task in content:
        name = _file_name(task["data"])
        image = images.find(name, file.parent) if name else None
        if image is None:
            missing.append(name or f"task {task.get('id')}")
            continue
        where = f"{file}: task {task.get('id')} ({name})"
        if not task.get("annotations") and task.get("predictions"):
            predicted.append(str(name))
        done = [entry for entry in task.get("annotations") or task.get("completions") or [] if _counts(entry)]
        if image in read:
            raise BadAnnotations(f"{where} stands for the same file as another task: remove one")
        read[image] = _annotated(done[-1].get("result") or [], image, where, ignored) if done else Annotated(done=False)
    notes = count_note("tasks have no image file", missing)
    notes += count_note("tasks have predictions and nobody's annotation: they stay unlabelled", predicted)
    notes += count_note("results of other kinds were left out", ignored)
    return AnnotationSet("Label Studio JSON", read, frozenset({file}), tuple(notes))


def _counts(entry: Mapping[str, Any]) -> bool:
    return not (entry.get("was_cancelled") or entry.get("skipped"))


def _file_name(data: Mapping[str, Any]) -> str | None:
    """Return the file name of the task's image: of a path, an address, or a local-files address (`?d=path`)."""
    for name in ("image", "img", "picture", *data):
        text = data.get(name)
        if isinstance(text, str) and text:
            parts = urlsplit(text)
            local = parse_qs(parts.query).get("d")
            return unquote(local[0] if local else parts.path)
    return None


def _annotated(results: Sequence[Mapping[str, Any]], image: Path, where: str, ignored: list[str]) -> Annotated:
    regions: list[Region] = []
    choices: list[str] = []
    for result in results:
        value = result.get("value") or {}
        try:
            if "choices" in value:
                choices += map(str, value["choices"])
                continue
            found = _regions(result, value)
        except (BadRegions, KeyError, TypeError, ValueError, IndexError) as error:
            raise BadAnnotations(f"{where}: result {result.get('id')!r} has no usable shape ({error})") from None
        if found is None:
            ignored.append(str(result.get("type")))
            continue
        size = (int(result["original_width"]), int(result["original_height"]))
        regions += upright_regions(found, size, image)
    label = whole_image_label(choices)
    if choices and label is None:
        ignored.append(f"choice {', '.join(choices)}")
    # A choice that is not understood, or that contradicts another, may well say that the image shows a defect.
    return Annotated(tuple(regions), done=bool(regions or label or not choices), label=label)


def _regions(result: Mapping[str, Any], value: Mapping[str, Any]) -> list[Region] | None:
    """Return the regions of a result, one for each of its labels; None for a kind that is not a region."""
    kinds = next((value[name] for name in _LABELS if value.get(name)), [None])
    attributes = _attributes(result)
    if not ({"rle", "points", "radiusX", "width"} & set(value)) or (
        "x" not in value and not {"rle", "points"} & set(value)
    ):
        return None
    width, height = int(result["original_width"]), int(result["original_height"])

    def point(x: float, y: float) -> tuple[float, float]:
        return x / 100 * width, y / 100 * height

    if "rle" in value:
        marked = _brush(value["rle"], (height, width))
        return [mask_region(kind, marked, attributes) for kind in kinds]
    if "points" in value:
        return [polygon_region(kind, [[point(x, y) for x, y in value["points"]]], attributes) for kind in kinds]
    turn = float(value.get("rotation") or 0)
    corner = point(value["x"], value["y"])
    if "radiusX" in value:
        outline = ellipse_points(corner, point(value["radiusX"], value["radiusY"]), turn)
        return [polygon_region(kind, [outline], attributes) for kind in kinds]
    across, down = point(value["width"], value["height"])
    if not turn:
        return [box_region(kind, (*corner, across, down), attributes) for kind in kinds]
    outline = turned_points([(0, 0), (across, 0), (across, down), (0, down)], corner, turn)
    return [polygon_region(kind, [outline], attributes) for kind in kinds]


def _brush(numbers: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a brush mask, bool [height, width]: its values are RGBA, of which alpha says what is marked."""
    height, width = size
    values = rle_pack.decode(bytes(numbers), 4 * height * width)
    return values.reshape(height, width, 4)[..., 3] > 0


def _attributes(result: Mapping[str, Any]) -> dict[str, Value]:
    return plain_values(result.get("meta") or {})


def write(images: Iterable[tuple[str, tuple[int, int], Sequence[Region]]]) -> str:
    """Return an export of images given as file name, (width, height) and regions."""
    tasks = []
    for number, (name, size, regions) in enumerate(images, start=1):
        results = [_result(region, size, f"r{index}") for index, region in enumerate(regions, start=1)]
        tasks.append({"id": number, "data": {"image": name}, "annotations": [{"id": number, "result": results}]})
    return json.dumps(tasks, ensure_ascii=False)


def _result(region: Region, size: tuple[int, int], name: str) -> dict[str, Any]:
    width, height = size
    labels = [region.type or "anomaly"]
    value: dict[str, Any]
    if region.box:
        x, y, across, down = region.box
        value = {"x": x / width * 100, "y": y / height * 100, "rotation": 0}
        value |= {"width": across / width * 100, "height": down / height * 100, "rectanglelabels": labels}
        kind = "rectanglelabels"
    elif region.mask:
        marked = np.repeat(np.where(rasterise(region).reshape(-1), 255, 0).astype(np.uint8), 4)
        value = {"format": "rle", "rle": list(rle_pack.encode(marked)), "brushlabels": labels}
        kind = "brushlabels"
    else:
        points = [[x / width * 100, y / height * 100] for x, y in region.polygons[0]]
        value = {"points": points, "closed": True, "polygonlabels": labels}
        kind = "polygonlabels"
    result = {"id": name, "type": kind, "value": value, "original_width": width, "original_height": height}
    result |= {"from_name": "label", "to_name": "image", "image_rotation": 0}
    return result | ({"meta": dict(region.attributes)} if region.attributes else {})
