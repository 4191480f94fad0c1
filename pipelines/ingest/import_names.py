"""Names of imported images in the inbox: valid on every S3 server, unique, and none of a mask."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.ingest.file_names import left_alone
from pipelines.ingest.folder_names import mask_base
from pipelines.ingest.import_plan import PlannedImage

_LONGEST_PART = 150  # bytes; file systems below S3 allow 255, and masks have a suffix
_LONGEST_PATH = 600  # bytes; see the limit of inbox keys


def group_same_stems(images: Sequence[PlannedImage], root: Path) -> tuple[list[PlannedImage], list[str]]:
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


def inbox_name(root: Path, file: Path, endings: Mapping[Path, str], names: set[str]) -> str:
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
