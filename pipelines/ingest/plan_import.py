"""Make the plan of an import: which files are images and masks, what each image shows, and its name in the inbox."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from pipelines.images.regions import types_of
from pipelines.ingest.folder_contents import FolderContents
from pipelines.ingest.folder_files import find_files
from pipelines.ingest.folder_layouts import data_root
from pipelines.ingest.image_labels import ImageLabel, ImageLabels
from pipelines.ingest.import_names import group_same_stems, inbox_name, safe_part
from pipelines.ingest.import_plan import BadFolder, ImportPlan, PlannedImage, PlanRow
from pipelines.ingest.plan_classes import plan_classes


def plan_import(
    folder: Path, maps: Mapping[str, str] | None = None, *, task: str = "anomaly", known: Collection[str] = ()
) -> ImportPlan:
    """Return the plan for importing a folder; what is not understood is among its `problems`.

    Args:
        folder: the folder of images.
        maps: what folders are, by path or pattern: good, anomaly, anomaly/TYPE, mask, unlabelled, ignore; of a
            classifier a class, unlabelled or ignore.
        task: the project's task. Default anomaly.
        known: classes that the project has already. Default empty.

    Raises:
        BadFolder: there is no such folder, or a map fits none.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise BadFolder(f"{folder} is no folder: give one that holds images")
    files = find_files(folder)
    if task == "classification":
        return plan_classes(folder, files, maps or {}, known)
    root = data_root(folder, files.images) if files.images else folder
    contents = FolderContents(folder, root, files, maps or {})
    labels = ImageLabels(contents)
    images: list[PlannedImage] = []
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    names: set[str] = set()
    for file in contents.images:
        place, label = contents.place(file), labels.of(file)
        meaning = label.meaning if label else "?"
        row = rows.setdefault(("/".join(contents.parts(file)) or ".", meaning, place.split or ""), Counter())
        row["images"] += 1
        if label:
            row["masks"] += len(label.masks)
            name = inbox_name(root, file, files.endings, names)
            images.append(
                PlannedImage(
                    file,
                    name,
                    label.label,
                    _folder_type(label),
                    place.split,
                    label.masks,
                    label.regions,
                    metadata=contents.index.rows.get(file, {}),
                )
            )
    images, same = group_same_stems(images, root)
    table = [
        PlanRow(folder_name, meaning, row["images"], row["masks"], split)
        for (folder_name, meaning, split), row in rows.items()
    ]
    problems = (*contents.problems, *labels.problems)
    return ImportPlan(root, tuple(images), tuple(table), problems, (*contents.notes, *labels.notes, *same))


def _folder_type(label: ImageLabel) -> str | None:
    """Return the type to name the inbox's folder after; None if the regions give it, and a folder's name cannot."""
    if label.type is None or label.type.casefold() == "anomaly":
        return None
    safe = safe_part(label.type)
    return None if safe != label.type and label.type == types_of(label.regions) else safe
