"""Read `index.csv`, which holds the sender's metadata of the images beside and below it.

Columns: `file` (path relative to the csv), and optionally `split` (train, validation, test: an imported split, which is
preserved), `subset` (training, validation, test: the requested side), `group`, `acquired_at` (a time as
`pipelines.ingest.times` reads it, in the project's time zone if it names none), of classifiers `label` (the class, or
`unlabelled`), and any others, one of which the
project's `group.column` may name. Where several apply, the values of the deepest index.csv take precedence.

Nothing is dropped in silence: `Index.warnings` names rows and values that are not used, `unused_columns` the columns.
Paths compare in Unicode's form NFC (`comparable`), since macOS writes names in NFD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipelines.catalogue.splits import SIDES, SPLITS
from pipelines.config.class_names import BadClass, class_name, is_unlabelled
from pipelines.config.project import Project
from pipelines.ingest.inbox_keys import INDEX, comparable
from pipelines.ingest.index_text import MAX_BYTES, BadIndex, read_table
from pipelines.ingest.name_lists import some
from pipelines.ingest.times import read_time

__all__ = ["MAX_BYTES", "BadIndex", "FileMetadata", "Index", "describe", "read_index", "read_time", "unused_columns"]

_USED = ("split", "subset", "group", "acquired_at")


@dataclass(frozen=True)
class Index:
    """The content of one index.csv.

    Attributes:
        folder: its folder below the inbox; empty for the inbox itself.
        rows: values by column name, by image path below the inbox, comparable. Values that are empty are kept.
        numbers: the row in which each of these paths is named, as a spreadsheet counts: the header is row 1.
        written: how the index writes each of these paths.
        columns: the names of all columns but that of the files, in lower case.
        warnings: a message for each kind of thing that is not used, to be read after the name of the index.
    """

    folder: str
    rows: dict[str, dict[str, str]] = field(repr=False)
    numbers: dict[str, int] = field(default_factory=dict, repr=False)
    written: dict[str, str] = field(default_factory=dict, repr=False)
    columns: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Return the path of the index.csv below the inbox."""
        return f"{self.folder}/{INDEX}" if self.folder else INDEX

    def row_name(self, path: str) -> str:
        """Return how messages name the row of `path`, which `read_index` read: its number and the path as written."""
        return f"row {self.numbers[path]} {self.written[path]}"


@dataclass(frozen=True)
class FileMetadata:
    """Metadata of one image from index.csv and the project's group rule.

    Attributes:
        split: imported split: train, validation or test. Default None.
        asked: requested side: training, validation or test. Default None.
        group: the sample's group. Default None.
        acquired_at: time of acquisition in ISO 8601 with zone. Default None.
        notes: a message for each value that was ignored.
        label: the class. Default None: not given.
    """

    split: str | None = None
    asked: str | None = None
    group: str | None = None
    acquired_at: str | None = None
    notes: tuple[str, ...] = ()
    label: str | None = None


def read_index(data: bytes, folder: str) -> Index:
    """Parse an index.csv in `folder` of the inbox.

    Raises:
        BadIndex: it is too large, no text in a known encoding, not CSV, or has no column `file`.
    """
    table = read_table(data)
    rows: dict[str, dict[str, str]] = {}
    numbers: dict[str, int] = {}
    written: dict[str, str] = {}
    twice: list[str] = []
    nameless: list[str] = []
    for number, row in table.rows:
        file = row.pop(table.file_column, "")
        if not file:
            if any(row.values()):
                nameless.append(f"row {number}")
            continue
        path = _path(file, folder)
        if path in rows:
            twice.append(f"{file} (rows {numbers[path]} and {number})")
        rows[path], numbers[path], written[path] = row, number, file
    warnings = list(table.warnings)
    if twice:
        warnings.append(f"names a file twice, and the last row counts: {some(twice)}")
    if nameless:
        warnings.append(f"has rows that name no file, which are not used: {some(nameless)}")
    return Index(folder, rows, numbers, written, table.columns, tuple(warnings))


def unused_columns(index: Index, project: Project) -> list[str]:
    """Return the columns of an index that hold values and mean nothing to `project`."""
    column = project.group.column if project.group else None
    used = {*_USED, (column or "").strip().lower()}
    if project.task == "classification":
        used.add("label")
    filled = {name for row in index.rows.values() for name, value in row.items() if value}
    return [name for name in index.columns if name in filled - used]


def describe(path: str, indexes: Iterable[Index], project: Project) -> FileMetadata:
    """Return the metadata of the image at `path` from `indexes`, outermost first, and the project's group rule."""
    row: dict[str, str] = {}
    where: dict[str, str] = {}
    name = comparable(path)
    for index in indexes:
        values = {column: value for column, value in index.rows.get(name, {}).items() if value}
        row |= values
        number = f" (row {index.numbers[name]} of {index.path})" if name in index.numbers else ""
        where |= dict.fromkeys(values, number)
    notes: list[str] = []
    split = asked = acquired_at = None
    if text := row.get("split"):
        split = SPLITS.get(text.lower())
        if split is None:
            notes.append(f"split {text!r}{where['split']} is none of train, validation, test: left out")
    if text := row.get("subset"):
        asked = text.lower()
        if asked not in SIDES:
            notes.append(f"subset {text!r}{where['subset']} is none of {', '.join(SIDES)}: left out")
            asked = None
    if text := row.get("acquired_at"):
        try:
            acquired_at = read_time(text, project.timezone).isoformat()
        except ValueError:
            notes.append(
                f"acquired_at {text!r}{where['acquired_at']} is no time, or can mean more than one: left out; write it "
                "as 2026-05-01T13:30:00+02:00"
            )
    label = None
    if (text := row.get("label")) and project.task == "classification" and not is_unlabelled(text):
        try:
            label = class_name(text)
        except BadClass as error:
            notes.append(f"label {text!r}{where['label']} is left out: {error}")
    return FileMetadata(split, asked, _group(path, row, project), acquired_at, tuple(notes), label)


def _path(file: str, folder: str) -> str:
    """Return the comparable path of a file that an index in `folder` names; one that is absolute fits no file."""
    file = file.replace("\\", "/")
    if not file.startswith("/"):
        file = "/".join(part for part in file.split("/") if part not in ("", "."))
    return comparable(f"{folder}/{file}" if folder else file)


def _group(path: str, row: Mapping[str, str], project: Project) -> str | None:
    rule = project.group
    if rule and rule.column and (value := row.get(rule.column.strip().lower())):
        return value
    if value := row.get("group"):
        return value
    if rule and rule.regex:
        match = re.search(rule.regex, path)
        if match:
            return (match.group("group") if "group" in match.re.groupindex else match.group(1)) or None
    return None
