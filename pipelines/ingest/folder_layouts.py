"""Detect the layout of a folder of images: labels, anomaly types, masks and splits.

Supported layouts:

* MVTec AD: `train/good`, `test/good`, `test/<defect>`, `ground_truth/<defect>/<name>_mask.png`;
* `good/` beside `anomaly/` (with or without a sub-folder per type), or beside one folder per defect;
* images alone in any folders, which are good (unlabelled if directly in `test/`).

Anything else is refused, since a defect mistaken for a good image would be learnt as normal.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.catalogue.splits import SPLITS
from pipelines.errors import InspectlineError

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_GOOD = frozenset({"good", "ok", "normal"})
_ANOMALY = frozenset({"anomaly", "anomalies", "anomalous", "bad", "defect", "defects", "defective", "nok", "ng"})
_MASKS = frozenset({"ground_truth", "masks", "mask"})
_INDEX = ("index.csv",)


class BadFolder(InspectlineError):
    """A folder cannot be imported."""


@dataclass(frozen=True)
class Image:
    """One image to import.

    Attributes:
        file: the image file.
        folder: target folder in the inbox.
        name: name below that folder.
        split: imported split. Default None.
        mask: the mask file. Default None.
    """

    file: Path
    folder: str
    name: str
    split: str | None = None
    mask: Path | None = None

    @property
    def mask_name(self) -> str:
        """Return the name of the mask in the inbox."""
        return f"{self.name.rpartition('.')[0]}_mask{self.mask.suffix.lower() if self.mask else '.png'}"


def find_images(folder: Path) -> tuple[list[Image], int]:
    """Return the images of a folder and the number of other files.

    Raises:
        BadFolder: the layout is ambiguous as to which images are good.
    """
    masks: dict[tuple[str, ...], Path] = {}
    candidates: list[tuple[Path, tuple[str, ...]]] = []
    skipped = 0
    for file in _files(folder):
        parts = file.relative_to(folder).parts
        stem = file.stem
        if file.suffix.lower() not in ENDINGS:
            skipped += parts != _INDEX
        elif parts[0].lower() in _MASKS and len(parts) > 1:
            masks[(*_lower(parts[1:-1]), stem.removesuffix("_mask"))] = file
        elif stem.endswith("_mask") and any(file.with_name(stem[:-5] + end).exists() for end in _both_cases()):
            masks[(*_lower(_split(parts)[1]), stem.removesuffix("_mask"))] = file
        else:
            candidates.append((file, parts))
    tops = {_split(parts)[1][0].lower() for _, parts in candidates if _split(parts)[1]}
    by_class = bool(tops & (_GOOD | _ANOMALY))
    images = []
    for file, parts in candidates:
        split, below = _split(parts)
        inbox = _inbox_folder(below, split, by_class, folder)
        mask = masks.pop((*_lower(below), file.stem), None) if inbox != "good" else None
        images.append(Image(file, inbox, "/".join(map(_safe, parts)), split, mask))
    return images, skipped + len(masks)


def _inbox_folder(below: Sequence[str], split: str | None, by_class: bool, folder: Path) -> str:
    """Return the inbox folder for an image in the folders `below`, without the split."""
    if not below:
        return "unlabelled" if split == "test" else "good"
    label = below[0].lower()
    if label in _GOOD:
        return "good"
    if not (by_class or split):
        if nested := {*_lower(below)} & (_GOOD | _ANOMALY | _MASKS | set(SPLITS)):
            raise BadFolder(
                f"{folder} has {sorted(nested)[0]}/ only further down, in {below[0]}/: give {folder / below[0]} itself"
            )
        return "good"
    kinds = below[1:] if label in _ANOMALY else below
    # The type "anomaly" stands for no type.
    return f"anomaly/{_safe(kinds[0]) if kinds else 'anomaly'}"


def _files(folder: Path) -> Iterable[Path]:
    """Yield the files below a folder in sorted order, without hidden ones."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in sorted(names) if not name.startswith("."))


def _split(parts: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Return the split that a path begins with, if any, and the remaining folders."""
    folders = tuple(parts[:-1])
    if folders and (split := SPLITS.get(folders[0].lower())):
        return split, folders[1:]
    return None, folders


def _safe(part: str) -> str:
    """Replace characters that not every S3 server accepts in a path component; a hash suffix keeps it unique."""
    safe = re.sub(r"[^\w .=+,()@-]+", "_", part).strip() or "_"
    if safe == part:
        return part
    stem, dot, ending = safe.rpartition(".")
    digits = hashlib.sha256(part.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{stem}-{digits}.{ending}" if dot and stem else f"{safe}-{digits}"


def _lower(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(part.lower() for part in parts)


def _both_cases() -> list[str]:
    return [form for ending in sorted(ENDINGS) for form in (ending, ending.upper())]
