"""Pascal VOC: XML with boxes and polygons, and folders of segmentation masks.

Formats: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html. Boxes are read from xmin to xmax and
ymin to ymax in pixels counted from 0, as most tools write them. Of a segmentation mask, index 0 is background and 255
the void at borders; `labelmap.txt` (CVAT) names the others by colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.images.regions import BadRegions, Region, Value, box_region, mask_region, polygon_region
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    read_text,
    size_of,
    upright_regions,
)
from pipelines.ingest.name_lists import count_note

CLASS_FOLDER, OBJECT_FOLDER = "segmentationclass", "segmentationobject"
_VOID = (224, 224, 192)  # colour of index 255 in VOC's palette


def read_xml(files: Iterable[tuple[Path, Any]], images: ImageFiles) -> AnnotationSet:
    """Return the regions of VOC's XML files, given as path and parsed XML; also of LabelMe's old form.

    Raises:
        BadAnnotations: a file contradicts its image; says which.
    """
    read: dict[Path, Annotated] = {}
    used, missing = [], []
    for file, tree in files:
        used.append(file)
        name = (tree.findtext("filename") or "").strip()
        image = (images.find(name, file.parent) if name else None) or images.beside(file)
        if image is None:
            missing.append(name or file.name)
            continue
        objects = (part for part in tree.iter("object") if (part.findtext("deleted") or "0").strip() != "1")
        regions = (_region(part, file) for part in objects)
        read[image] = Annotated(upright_regions(regions, _size(tree), image))
    return AnnotationSet(
        "Pascal VOC XML", read, frozenset(used), tuple(count_note("images of the XML files are not there", missing))
    )


def _size(tree: Any) -> tuple[int, int] | None:
    try:
        width, height = int(float(tree.findtext("size/width"))), int(float(tree.findtext("size/height")))
    except (TypeError, ValueError):
        return None
    return (width, height) if width and height else None  # some tools write 0 for an unknown size


def _region(part: Any, file: Path) -> Region:
    kind = (part.findtext("name") or "").strip() or None
    attributes: dict[str, Value] = {}
    for name in ("pose", "truncated", "difficult", "occluded"):
        text = (part.findtext(name) or "").strip()
        if text and text not in ("0", "Unspecified"):
            attributes[name] = text
    try:
        if (points := part.findall("polygon/pt")) and len(points) > 2:  # LabelMe's
            return polygon_region(
                kind, [[[float(point.findtext(axis)) for axis in "xy"] for point in points]], attributes
            )
        if (outline := part.find("polygon")) is not None and len(outline):
            texts = {child.tag: float(child.text) for child in outline if child.text}
            count = len(texts) // 2
            corners = [(texts[f"x{index}"], texts[f"y{index}"]) for index in range(1, count + 1)]
            return polygon_region(kind, [corners], attributes)
        left, top, right, bottom = (float(part.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
        return box_region(kind, (left, top, right - left, bottom - top), attributes)
    except (BadRegions, KeyError, TypeError, ValueError) as error:
        raise BadAnnotations(f"{file}: object {kind!r} has no usable box ({error}): draw it again") from None


def read_segmentation(class_folders: Iterable[Path], images: ImageFiles) -> AnnotationSet:
    """Return the regions of the masks in `SegmentationClass/`, by instance where `SegmentationObject/` has them.

    Raises:
        BadAnnotations: a mask has a colour without a name, no image, or another size.
    """
    read: dict[Path, Annotated] = {}
    used: set[Path] = set()
    for folder in class_folders:
        names = _label_map(folder.parent / "labelmap.txt")
        objects = next((other for other in folder.parent.iterdir() if other.name.lower() == OBJECT_FOLDER), None)
        for file in sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png"):
            image = _beside(images, folder, file.stem)
            if image is None:
                raise BadAnnotations(f"the mask {file} has no image {file.stem}.* in {folder.parent / 'JPEGImages'}")
            size = size_of(image)
            classes = _classes(file, names)
            instances = _instances(objects / file.name if objects else None)
            used |= {file} | ({objects / file.name} if objects else set())
            regions = list(_regions(classes, instances))
            declared = (next(iter(classes.values())).shape[::-1]) if classes else (size.width, size.height)
            read[image] = Annotated(upright_regions(regions, declared, image))
    return AnnotationSet("Pascal VOC segmentation", read, frozenset(used))


def _beside(images: ImageFiles, folder: Path, stem: str) -> Path | None:
    found = [
        image
        for image in images.files
        if image.stem == stem and image.is_relative_to(folder.parent) and not image.is_relative_to(folder)
    ]
    found = [image for image in found if OBJECT_FOLDER not in (part.lower() for part in image.parts)]
    return found[0] if len(found) == 1 else None


def _label_map(file: Path) -> dict[tuple[int, int, int], str] | None:
    """Return the names by colour of a `labelmap.txt` with lines `name:r,g,b:parts:actions`; None without the file."""
    if not file.is_file():
        return None
    names = {}
    for line in read_text(file).splitlines():
        if line.strip() and not line.startswith("#"):
            try:
                name, colour = line.split(":")[:2]
                red, green, blue = (int(value) for value in colour.split(","))
            except ValueError:
                raise BadAnnotations(f"{file}: {line!r} is not name:red,green,blue::") from None
            names[red, green, blue] = name.strip()
    return names


def _classes(file: Path, names: Mapping[tuple[int, int, int], str] | None) -> dict[str, NDArray[np.bool_]]:
    """Return the pixels of each class but background and void."""
    image = Image.open(file)
    if names is None and image.mode not in ("P", "L", "1"):
        raise BadAnnotations(f"{file} is coloured, and there is no labelmap.txt to name its colours: add one")
    found: dict[str, NDArray[np.bool_]] = {}
    if names is None:
        values = np.asarray(image).astype(int)
        for value in sorted({int(value) for value in np.unique(values)} - {0, 255}):
            found[f"class {value}"] = values == value
        return found
    colours = np.asarray(image.convert("RGB")).astype(np.int32)
    codes = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
    for code in (int(code) for code in np.unique(codes)):
        colour = (code >> 16, code >> 8 & 255, code & 255)
        name = names.get(colour, "background" if colour in ((0, 0, 0), _VOID) else None)
        if name is None:
            raise BadAnnotations(f"{file} has the colour {colour}, which labelmap.txt does not name: add it")
        if name.lower() not in ("background", "void"):
            found[name] = found.get(name, np.zeros(codes.shape, dtype=bool)) | (codes == code)
    return found


def _instances(file: Path | None) -> list[NDArray[np.bool_]]:
    if file is None or not file.is_file():
        return []
    image = Image.open(file)
    if image.mode == "P":
        values = np.asarray(image).astype(np.int32)
        background = {0, 255}
    else:
        colours = np.asarray(image.convert("RGB")).astype(np.int32)
        values = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
        background = {0, _VOID[0] << 16 | _VOID[1] << 8 | _VOID[2]}
    return [values == value for value in np.unique(values) if int(value) not in background]


def _regions(classes: Mapping[str, NDArray[np.bool_]], instances: Iterable[NDArray[np.bool_]]) -> Iterable[Region]:
    instances = list(instances)
    for name, marked in classes.items():
        parts = [marked & instance for instance in instances if instance.shape == marked.shape]
        parts = [part for part in parts if part.any()]
        rest = marked & ~np.logical_or.reduce(parts) if parts else marked
        yield from (mask_region(name, part) for part in parts)
        if rest.any():
            yield mask_region(name, rest)
