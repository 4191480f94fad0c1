"""Read `index.csv`, which holds the sender's metadata of the images beside and below it.

Columns: `file` (path relative to the csv), and optionally `split` (train, validation, test: an imported split, which is
preserved), `subset` (training, validation, test: the requested side), `group`, `acquired_at` (ISO 8601; in the
project's time zone if it has none), and any others, one of which the project's `group.column` may name. Where several
apply, the values of the deepest index.csv take precedence.
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
    """An index.csv cannot be read; its images wait until it is corrected or removed."""


@dataclass(frozen=True)
class Index:
    """The content of one index.csv.

    Attributes:
        folder: its folder below the inbox; empty for the inbox itself.
        rows: values by column name, by image path below the inbox.
    """

    folder: str
    rows: dict[str, dict[str, str]] = field(repr=False)


@dataclass(frozen=True)
class FileMetadata:
    """Metadata of one image from index.csv and the project's group rule.

    Attributes:
        split: imported split: train, validation or test. Default None.
        asked: requested side: training, validation or test. Default None.
        group: the sample's group. Default None.
        acquired_at: time of acquisition in ISO 8601 with zone. Default None.
        notes: a message for each value that was ignored.
    """

    split: str | None = None
    asked: str | None = None
    group: str | None = None
    acquired_at: str | None = None
    notes: tuple[str, ...] = ()


def read_index(data: bytes, folder: str) -> Index:
    """Parse an index.csv in `folder` of the inbox.

    Raises:
        BadIndex: it is too large, not UTF-8, not CSV, or has no column `file`.
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


def describe(path: str, indexes: Iterable[Index], project: Project) -> FileMetadata:
    """Return the metadata of the image at `path` from `indexes`, outermost first, and the project's group rule."""
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
    return FileMetadata(split, asked, _group(path, row, project), acquired_at, tuple(notes))


def read_time(text: str, timezone: str) -> datetime:
    """Parse an ISO 8601 time, in `timezone` if it has no zone.

    Raises:
        ValueError: it is not a valid time, or not representable in UTC.
    """
    moment = datetime.fromisoformat(text)
    try:
        moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))
        moment.astimezone(UTC)  # the catalogue stores UTC, which overflows within hours of datetime's limits
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
        match = re.search(rule.regex, path)
        if match:
            return (match.group("group") if "group" in match.re.groupindex else match.group(1)) or None
    return None
