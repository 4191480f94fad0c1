"""Make the plan of an import: which files are images and masks, what each image shows, and its name in the inbox."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.images.regions import types_of
from pipelines.ingest.file_names import left_alone
from pipelines.ingest.folder_contents import FolderContents
from pipelines.ingest.folder_files import find_files
from pipelines.ingest.folder_layouts import data_root
from pipelines.ingest.folder_names import mask_base
from pipelines.ingest.image_labels import ImageLabel, ImageLabels
from pipelines.ingest.import_plan import BadFolder, ImportPlan, PlannedImage, PlanRow

_LONGEST_PART = 150  # bytes; file systems below S3 allow 255, and masks have a suffix
_LONGEST_PATH = 600  # bytes; see the limit of inbox keys


def plan_import(folder: Path, maps: Mapping[str, str] | None = None) -> ImportPlan:
    """Return the plan for importing a folder; what is not understood is among its `problems`.

    Args:
        folder: the folder of images.
        maps: what folders are, by path or pattern: good, anomaly, anomaly/TYPE, mask, unlabelled, ignore.

    Raises:
        BadFolder: there is no such folder, or a map fits none.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise BadFolder(f"{folder} is no folder: give one that holds images")
    files = find_files(folder)
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
            name = _name(root, file, files.endings, names)
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
    images, same = _group_same_stems(images, root)
    table = [
        PlanRow(folder_name, meaning, row["images"], row["masks"], split)
        for (folder_name, meaning, split), row in rows.items()
    ]
    problems = (*contents.problems, *labels.problems)
    return ImportPlan(root, tuple(images), tuple(table), problems, (*contents.notes, *labels.notes, *same))


def _group_same_stems(images: Sequence[PlannedImage], root: Path) -> tuple[list[PlannedImage], list[str]]:
    """Put images of one folder and stem (`7.jpg`, `7.png`) into one group, and say so."""
    stems: dict[tuple[Path, str], list[PlannedImage]] = {}
    for image in images:
        stems.setdefault((image.file.parent, image.file.stem.casefold()), []).append(image)
    several = [same for same in stems.values() if len(same) > 1]
    if not several:
        return list(images), []
    groups = {image.file: same[0].name.rpartition(".")[0] for same in several for image in same}
    grouped = [replace(image, group=groups.get(image.file)) for image in images]
    first = " and ".join(image.file.relative_to(root).as_posix() for image in several[0])
    note = f"{len(several)} names stand for several files ({first}…): they are one group, and share masks of that name"
    return grouped, [note]


def _folder_type(label: ImageLabel) -> str | None:
    """Return the type to name the inbox's folder after; None if the regions give it, and a folder's name cannot."""
    if label.type is None or label.type.casefold() == "anomaly":
        return None
    safe = safe_part(label.type)
    return None if safe != label.type and label.type == types_of(label.regions) else safe


def _name(root: Path, file: Path, endings: Mapping[Path, str], names: set[str]) -> str:
    """Return a name below the inbox that is valid, unique by its stem, and no name of a mask."""
    parts = [safe_part(unicodedata.normalize("NFC", part)) for part in file.relative_to(root).parts]
    stem, dot, ending = parts[-1].rpartition(".")
    if file in endings:
        stem, ending = (stem if dot and len(ending) <= 5 else parts[-1]), endings[file][1:]
    if mask_base(stem):
        stem += "-image"
    folder = "/".join(parts[:-1])
    path = f"{folder}/{stem}" if folder else stem
    if len(path.encode()) > _LONGEST_PATH:
        path = f"{_shortened(path[: _LONGEST_PATH // 2], str(file))}/{_shortened(stem, str(file))}"
    if path.casefold() in names:
        path += f"-{hashlib.sha256(str(file).encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"
    names.add(path.casefold())
    return f"{path}.{ending}"


def safe_part(part: str) -> str:
    """Replace characters that not every S3 server accepts in a path component, and shorten it to 150 bytes.

    A hash suffix keeps it unique. The name of a folder of unfinished copies (`x.part`), which ingest leaves alone, gets
    another ending.
    """
    safe = re.sub(r"[^\w .=+,()@-]+", "_", part).strip(" ") or "_"
    if left_alone(f"{safe}/image.png"):
        return _shortened(safe.replace(".", "_"), part)
    if safe == part and len(part.encode()) <= _LONGEST_PART:
        return part
    stem, dot, ending = safe.rpartition(".")
    if dot and stem and len(ending) <= 5:
        return f"{_shortened(stem, part)}.{ending}"
    return _shortened(safe, part)


def _shortened(safe: str, name: str) -> str:
    """Return `safe` cut to what a path component may have, with a hash of `name`."""
    cut = safe.encode()[: _LONGEST_PART - 7].decode("utf-8", "ignore")
    return f"{cut}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"
