"""`index.csv` beside the images: what the sender knows of each file.

Columns: `file` (path relative to the csv), and as far as known `split` (train, validation, test: an imported split
that is kept), `subset` (training, validation, test: the side asked for), `group`, `acquired_at` (ISO 8601; without
zone, the project's), and any others, of which the project's `group.column` may name one. An index.csv holds for its
folder and all below; a deeper one wins.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pipelines.catalogue.splits import SIDES, SPLITS
from pipelines.config.project import Project
from pipelines.errors import InspectlineError

_FILE_COLUMNS = ("file", "path", "filename", "image")
MAX_BYTES = 64 << 20


class BadIndex(InspectlineError):
    """An index.csv cannot be read; the images that it concerns wait until it is mended or removed."""


@dataclass(frozen=True)
class Index:
    """An index.csv: its folder below the inbox (`""` for the inbox itself), and a row for each path below the inbox."""

    folder: str
    rows: dict[str, dict[str, str]] = field(repr=False)


@dataclass(frozen=True)
class Known:
    """What index.csv and the project's group rule say of one image; `notes` tells what of it could not be used."""

    split: str | None = None
    asked: str | None = None
    group: str | None = None
    acquired_at: str | None = None
    notes: tuple[str, ...] = ()


def read_index(data: bytes, folder: str) -> Index:
    """Read an index.csv that lies in `folder` of the inbox.

    Raises:
        BadIndex: it is no UTF-8 text with a header line that has a column `file`.
    """
    if len(data) > MAX_BYTES:
        raise BadIndex(f"has {len(data):,} bytes, more than {MAX_BYTES:,}: split it up")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadIndex("is no UTF-8 text: save it as UTF-8") from None
    separator = ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
    try:
        lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        columns = [(name or "").strip().lower() for name in lines.fieldnames or []]
        lines.fieldnames = columns
        column = next((name for name in _FILE_COLUMNS if name in columns), None)
        if column is None:
            raise BadIndex(f"has no column 'file' (it has {', '.join(filter(None, columns)) or 'no header'}): add one")
        rows: dict[str, dict[str, str]] = {}
        for line in lines:
            row = {name: value.strip() for name, value in line.items() if name and isinstance(value, str)}
            file = row.pop(column, "").replace("\\", "/").removeprefix("./")
            if file:
                rows[f"{folder}/{file}" if folder else file] = row
    except csv.Error as error:
        raise BadIndex(f"is no CSV ({error}): save it again as CSV") from None
    return Index(folder, rows)


def describe(path: str, indexes: Iterable[Index], project: Project) -> Known:
    """Return what `indexes`, the outermost first, and the project's group rule say of the image at `path`."""
    row: dict[str, str] = {}
    for index in indexes:
        row |= {name: value for name, value in index.rows.get(path, {}).items() if value}
    notes: list[str] = []
    split = asked = acquired_at = None
    if text := row.get("split"):
        split = SPLITS.get(text.lower())
        if split is None:
            notes.append(f"split {text!r} is none of train, validation, test: left out")
    if text := row.get("subset"):
        asked = text.lower()
        if asked not in SIDES:
            notes.append(f"subset {text!r} is none of {', '.join(SIDES)}: left out")
            asked = None
    if text := row.get("acquired_at"):
        try:
            acquired_at = read_time(text, project.timezone).isoformat()
        except ValueError:
            notes.append(f"acquired_at {text!r} is no ISO 8601 time, such as 2026-05-01T13:30:00+02:00: left out")
    return Known(split, asked, _group(path, row, project), acquired_at, tuple(notes))


def read_time(text: str, timezone: str) -> datetime:
    """Read an ISO 8601 time; without a zone it is taken to be in `timezone`.

    Raises:
        ValueError: it is no such time.
    """
    moment = datetime.fromisoformat(text)
    try:
        moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))
        moment.astimezone(UTC)  # as the catalogue keeps it: the first and last hours of all time have none
    except (OverflowError, OSError) as error:
        raise ValueError(str(error)) from error
    return moment


def _group(path: str, row: dict[str, str], project: Project) -> str | None:
    rule = project.group
    if rule and rule.column and (value := row.get(rule.column.strip().lower())):
        return value
    if value := row.get("group"):
        return value
    if rule and rule.regex:
        found = re.search(rule.regex, path)
        if found:
            return (found.group("group") if "group" in found.re.groupindex else found.group(1)) or None
    return None
