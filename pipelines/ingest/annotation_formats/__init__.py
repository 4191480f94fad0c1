"""Read annotations from the formats of other tools: COCO, Pascal VOC, YOLO, Label Studio and CSV of boxes.

Shapes are kept as they were drawn. Own readers, since the libraries that read these formats turn polygons into masks
(supervision) or bring OpenCV and some hundred megabytes (datumaro, label-studio-sdk).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.ingest.annotation_formats import coco, csv_boxes, label_studio, voc, yolo
from pipelines.ingest.annotation_formats.model import (
    Annotated,
    AnnotationSet,
    BadAnnotations,
    ImageFiles,
    read_text,
    size_of,
)

__all__ = ["Annotated", "AnnotationSet", "BadAnnotations", "ImageFiles", "read_annotations", "size_of"]
_MOST_BYTES = 1 << 30


def read_annotations(root: Path, images: Sequence[Path], others: Sequence[Path]) -> list[AnnotationSet]:
    """Return what the annotation files of a folder say, one entry a file or format.

    Args:
        root: the imported folder.
        images: its image files, masks among them.
        others: its other files.

    Raises:
        BadAnnotations: an annotation file cannot be read or contradicts its images; says which.
    """
    files = ImageFiles(root, tuple(images))
    return [found for found in _read_all(files, others) if found.images or found.notes]


def _read_all(images: ImageFiles, others: Sequence[Path]) -> Iterable[AnnotationSet]:
    class_folders = sorted({file.parent for file in images.files if file.parent.name.lower() == voc.CLASS_FOLDER})
    if class_folders:
        yield voc.read_segmentation(class_folders, images)
    xml = [file for file in others if file.suffix.lower() == ".xml"]
    if xml and not class_folders:
        yield voc.read_xml(xml, images)
    for file in others:
        if file.suffix.lower() == ".json" and not file.name.lower().endswith(".regions.json"):
            yield from _read_json(file, images)
        elif file.suffix.lower() == ".csv" and file.name.lower() != "index.csv":
            yield from filter(None, [csv_boxes.read(file, images)])
    yield from filter(None, [yolo.read(others, images)])


def _read_json(file: Path, images: ImageFiles) -> Iterable[AnnotationSet]:
    if file.stat().st_size > _MOST_BYTES:
        raise BadAnnotations(f"{file} has more than {_MOST_BYTES:,} bytes: split it up")
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise BadAnnotations(f"{file} is no JSON ({error}): export it again, or move it out of the folder") from None
    if coco.is_coco(content):
        yield coco.read(content, file, images)
    elif label_studio.is_label_studio(content):
        yield label_studio.read(content, file, images)
