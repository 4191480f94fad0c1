"""The `index.csv` files of an imported folder: labels and metadata of its images, and what does not meet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.ingest.import_plan import BadFolder
from pipelines.ingest.inbox_keys import INDEX, comparable
from pipelines.ingest.index_csv import BadIndex, read_index, read_time
from pipelines.ingest.name_lists import some

# Columns whose name says that they hold the time of acquisition, used where `acquired_at` is empty.
_TIME_COLUMNS = re.compile(r"acquired_at|timestamp|(?:date_?)?time(?:_.*)?|date(?:_.*)?", re.IGNORECASE)


@dataclass(frozen=True)
class FolderIndex:
    """The rows of all index files of a folder.

    Attributes:
        rows: values by column, by image file; of several files the deepest counts.
        notes: what does not meet or is not used, in lines for people.
        folders: the folders of the index files that have rows.
    """

    rows: Mapping[Path, dict[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()

    def without_row(self, root: Path, images: Sequence[Path]) -> list[str]:
        """Return a line on the images beside and below an index file that no index has a row for."""
        covered = (image for image in images if any(image.is_relative_to(folder) for folder in self.folders))
        without = [image.relative_to(root).as_posix() for image in covered if image not in self.rows]
        return [f"{len(without)} images have no row in {INDEX}: {some(without)}"] if without else []


def read_indexes(root: Path, images: Sequence[Path], others: Sequence[Path]) -> FolderIndex:
    """Return the rows of the index files among `others`; paths compare in Unicode's form NFC.

    Raises:
        BadFolder: an index cannot be read; says which and why.
    """
    files = sorted((file for file in others if file.name.lower() == INDEX), key=lambda file: len(file.parts))
    # A file may lie above the root, which leaves out folders whose names say nothing.
    top = Path(os.path.commonpath([root, *(file.parent for file in files)]))
    by_path = {comparable(image.relative_to(top).as_posix()): image for image in images}
    rows: dict[Path, dict[str, str]] = {}
    notes: list[str] = []
    folders: list[Path] = []
    for file in files:
        folder = file.parent.relative_to(top).as_posix()
        path = file.relative_to(top).as_posix()
        try:
            index = read_index(file.read_bytes(), "" if folder == "." else folder)
        except BadIndex as error:
            raise BadFolder(f"{file} {error}") from None
        notes += [f"{path} {warning}" for warning in index.warnings]
        if missing := [index.row_name(name) for name in index.rows if name not in by_path]:
            notes.append(f"{path}: {len(missing)} of {len(index.rows)} rows match no image: {some(missing)}")
        if index.rows:
            folders.append(file.parent)
        for name, row in index.rows.items():
            if image := by_path.get(name):
                rows.setdefault(image, {}).update({column: value for column, value in row.items() if value})
    return FolderIndex(rows, tuple(notes), tuple(folders))


def acquired(row: Mapping[str, str], timezone: str) -> tuple[dict[str, str], str | None]:
    """Return a row with `acquired_at` in ISO 8601 from the first column that holds a time, and a time left out.

    The second value is the text of the first such column if none can be read as a time; else None.
    """
    kept = {name: value for name, value in row.items() if value}
    unread = None
    for column in ("acquired_at", *(name for name in kept if _TIME_COLUMNS.fullmatch(name))):
        if text := kept.get(column):
            try:
                return kept | {"acquired_at": read_time(text, timezone).isoformat()}, None
            except ValueError:
                unread = unread or f"{column} {text!r}"
    kept.pop("acquired_at", None)
    return kept, unread
