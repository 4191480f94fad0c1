"""Read annotations of other tools: COCO, Pascal VOC, YOLO, Label Studio, CVAT, LabelMe, VIA, CSV of boxes and runs.

Shapes are kept as they were drawn. Own readers, since the libraries that read these formats turn polygons into masks
(supervision) or bring OpenCV and some hundred megabytes (datumaro, label-studio-sdk).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.images.regions import Region
from pipelines.ingest.annotation_formats import coco, csv_tables, cvat, label_studio, labelme, via, voc, yolo
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    read_text,
    size_of,
)
from pipelines.ingest.inbox_keys import INDEX, REGIONS_ENDING

__all__ = ["Annotated", "AnnotationSet", "BadAnnotations", "ImageFiles", "read_annotations", "size_of"]
_MOST_BYTES = 1 << 30


def read_annotations(root: Path, images: Sequence[Path], others: Sequence[Path]) -> list[AnnotationSet]:
    """Return what the annotation files of a folder say, one entry a file or format.

    A region of the type `anomaly` has no type: that is the word of formats that need one.

    Args:
        root: the imported folder.
        images: its image files, masks among them.
        others: its other files.

    Raises:
        BadAnnotations: an annotation file cannot be read or contradicts its images; says which.
    """
    files = ImageFiles(root, tuple(images))
    sets = (_without_general_type(found) for found in _read_all(files, others))
    return [found for found in sets if found.images or found.notes]


def _without_general_type(found: AnnotationSet) -> AnnotationSet:
    def cleared(region: Region) -> Region:
        return replace(region, type=None) if region.type and region.type.casefold() == "anomaly" else region

    images = {image: replace(said, regions=tuple(map(cleared, said.regions))) for image, said in found.images.items()}
    return replace(found, images=images)


def _read_all(images: ImageFiles, others: Sequence[Path]) -> Iterable[AnnotationSet]:
    class_folders = sorted({file.parent for file in images.files if file.parent.name.lower() == voc.CLASS_FOLDER})
    if class_folders:
        yield voc.read_segmentation(class_folders, images)
    yield from _read_xml([file for file in others if file.suffix.lower() == ".xml"], images, bool(class_folders))
    labelme_files: list[tuple[Path, Any]] = []
    for file in others:
        if file.suffix.lower() == ".json" and not file.name.lower().endswith(REGIONS_ENDING):
            content = _parsed(file)
            if labelme.is_labelme(content):
                labelme_files.append((file, content))
            else:
                yield from _guarded(file, _read_json, content, file, images)
        elif file.suffix.lower() in (".csv", ".tsv") and file.name.lower() != INDEX:
            yield from _guarded(file, csv_tables.read, file, images)
    if labelme_files:
        yield from _guarded(labelme_files[0][0], labelme.read, labelme_files, images)
    yield from filter(None, [yolo.read(others, images)])


def _guarded(file: Path, read: Callable[..., AnnotationSet | None], *arguments: Any) -> Iterable[AnnotationSet]:
    """Yield what `read` returns for its arguments.

    Raises:
        BadAnnotations: the content has another form than its format defines.
    """
    try:
        found = read(*arguments)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        what = f"{type(error).__name__}: {error}"
        raise BadAnnotations(f"{file} is damaged or of an unknown form ({what[:120]}): export it again") from None
    if found:
        yield found


def _read_xml(files: Sequence[Path], images: ImageFiles, with_masks: bool) -> Iterable[AnnotationSet]:
    from defusedxml import DefusedXmlException, ElementTree

    voc_files = []
    for file in files:
        try:
            tree = ElementTree.fromstring(file.read_bytes())
        except (ElementTree.ParseError, DefusedXmlException, ValueError, LookupError) as error:
            raise BadAnnotations(f"{file} is no XML that can be read ({error}): export it again") from None
        if tree.tag == "annotation":
            voc_files.append((file, tree))
        elif tree.tag == "annotations" and (tree.find("image") is not None or tree.find("track") is not None):
            yield from _guarded(file, cvat.read, tree, file, images)
    # Masks say more than the boxes of the same data set.
    if voc_files and not with_masks:
        yield from _guarded(voc_files[0][0], voc.read_xml, voc_files, images)


def _parsed(file: Path) -> Any:
    if file.stat().st_size > _MOST_BYTES:
        raise BadAnnotations(f"{file} has more than {_MOST_BYTES:,} bytes: split it up")
    try:
        return json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise BadAnnotations(f"{file} is no JSON ({error}): export it again, or move it out of the folder") from None


def _read_json(content: Any, file: Path, images: ImageFiles) -> AnnotationSet | None:
    if coco.is_coco(content):
        return coco.read(content, file, images)
    if (tasks := label_studio.tasks_of(content)) is not None:
        return label_studio.read(tasks, file, images)
    if (entries := via.entries_of(content)) is not None:
        return via.read(entries, file, images)
    return None
