"""YOLO: one text file an image, a line a region: class and a box (centre, size), or class and a polygon; all relative.

Format: https://docs.ultralytics.com/datasets/. `data.yaml` (`names`), `classes.txt` or `obj.names` names the classes.
An empty text file says that the image shows nothing to mark; an image without one is unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from pipelines.images.regions import BadRegions, Region, bounds, box_region, polygon_region
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    Size,
    read_text,
    size_of,
)
from pipelines.ingest.name_lists import count_note

_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "names.txt")


def find_names(files: Iterable[Path]) -> tuple[Path, dict[int, str]] | None:
    """Return the file that names the classes, and the names; None if there is none.

    Raises:
        BadAnnotations: a file of that name cannot be read.
    """
    for file in files:
        if file.suffix.lower() in (".yaml", ".yml"):
            try:
                content = yaml.safe_load(read_text(file))
            except yaml.YAMLError as error:
                raise BadAnnotations(f"{file} is no YAML ({' '.join(str(error).split())[:120]})") from None
            names = content.get("names") if isinstance(content, dict) else None
            if isinstance(names, list):
                return file, {number: str(name) for number, name in enumerate(names)}
            if isinstance(names, dict):
                try:
                    return file, {int(number): str(name) for number, name in names.items()}
                except (TypeError, ValueError):
                    raise BadAnnotations(f"{file}: names must be a list, or number: name") from None
        elif file.name.lower() in _NAME_FILES:
            lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
            return file, dict(enumerate(lines))
    return None


def find_labels(image: Path, root: Path) -> Path | None:
    """Return the text file of an image: in `labels/` instead of, above or below a folder of its path, or beside it."""
    parts = list(image.relative_to(root).with_suffix(".txt").parts)
    places = [index for index, part in enumerate(parts[:-1]) if part.lower() == "images"]
    candidates = [root.joinpath(*parts[:index], "labels", *parts[index + 1 :]) for index in reversed(places)]
    candidates.append(image.with_suffix(".txt"))
    for index in reversed(range(len(parts))):
        candidates.append(root.joinpath(*parts[:index], "labels", *parts[index:]))
        if index < len(parts) - 1:
            candidates.append(root.joinpath(*parts[:index], "labels", *parts[index + 1 :]))
    return next((file for file in candidates if file.is_file()), None)


def read(files: Sequence[Path], images: ImageFiles) -> AnnotationSet | None:
    """Return the regions of YOLO's text files among `files`; None if they are not YOLO.

    Raises:
        BadAnnotations: a line cannot be read, or its class has no name; says which.
    """
    if not any(file.suffix.lower() == ".txt" for file in files):
        return None
    labels = {image: found for image in images.files if (found := find_labels(image, images.root))}
    if not labels or not all(map(_looks_like, list(labels.values())[:20])):
        return None
    named = find_names(files)
    if named is None:
        raise BadAnnotations(
            f"{next(iter(labels.values()))} looks like YOLO, and nothing names its classes: add data.yaml with names, "
            "or classes.txt"
        )
    names_file, names = named
    read = {image: Annotated(_regions(file, names, size_of(image))) for image, file in labels.items()}
    read |= {image: Annotated(done=False) for image in images.files if image not in labels}
    used = {*labels.values(), names_file}
    orphans = [
        file.name
        for file in files
        if file.suffix.lower() == ".txt" and file not in used and file.parent.name.lower() == "labels"
    ]
    notes = count_note("text files have no image", orphans)
    return AnnotationSet("YOLO", read, frozenset(used), tuple(notes))


def _looks_like(file: Path) -> bool:
    for line in read_text(file).splitlines():
        words = line.split()
        try:
            if words and (len(words) < 5 or float(words[0]) != int(float(words[0])) or not [*map(float, words)]):
                return False
        except ValueError:
            return False
    return True


def _regions(file: Path, names: Mapping[int, str], size: Size) -> tuple[Region, ...]:
    regions = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            kind = names[int(float(words[0]))]
        except KeyError:
            raise BadAnnotations(f"{file}, line {number}: class {words[0]} has no name: add it to the names") from None
        try:
            values = [float(word) for word in words[1:]]
            if not all(-0.01 <= value <= 1.01 for value in values):
                raise ValueError("its numbers must lie between 0 and 1")
            regions.append(_region(kind, values, size))
        except (ValueError, BadRegions) as error:
            raise BadAnnotations(f"{file}, line {number}: {error}") from None
    return tuple(regions)


def _region(kind: str, values: Sequence[float], size: Size) -> Region:
    if len(values) == 4:
        x, y, width, height = (value * side for value, side in zip(values, (size.width, size.height) * 2, strict=True))
        return box_region(kind, (x - width / 2, y - height / 2, width, height))
    if len(values) >= 6 and len(values) % 2 == 0:
        points = zip(values[::2], values[1::2], strict=True)
        return polygon_region(kind, [[(x * size.width, y * size.height) for x, y in points]])
    raise ValueError("a line has a class and 4 numbers (a box) or 6, 8, … (a polygon)")


def write(regions: Sequence[Region], names: Mapping[str, int], size: tuple[int, int]) -> str:
    """Return the text file of one image of `size` (width, height); masks have no line in this format."""
    width, height = size
    lines: list[tuple[float, ...]] = []
    for region in regions:
        kind = names[region.type or "anomaly"]
        if region.box:
            left, top, right, bottom = bounds(region)
            centre = ((left + right) / 2 / width, (top + bottom) / 2 / height)
            lines.append((kind, *centre, (right - left) / width, (bottom - top) / height))
        for polygon in region.polygons:
            lines.append((kind, *(part for x, y in polygon for part in (x / width, y / height))))
    return "".join(f"{kind} {' '.join(f'{value:.9f}' for value in values)}\n" for kind, *values in lines)
