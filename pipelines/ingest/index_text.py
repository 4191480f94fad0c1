"""Parse the text of an `index.csv` as spreadsheets on any system write it: encoding, separator, header and rows.

Encodings: UTF-8; UTF-16 with a byte order mark; Windows-1252, where no byte means another letter in the older encodings
of DOS and macOS. Separators: comma, semicolon, tab or vertical bar, whichever gives a column of files; a first line
`sep=;` names it. Lines may end in any way, and blank ones are skipped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.errors import InspectlineError
from pipelines.ingest.name_lists import some

MAX_BYTES = 64 << 20
FILE_COLUMNS = ("file", "path", "filename", "image", "filepath", "imagepath", "imagefile", "imagename", "relativepath")
_SEPARATORS = (",", ";", "\t", "|")
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class BadIndex(InspectlineError):
    """An index.csv cannot be read; its images wait until it is corrected or removed."""


@dataclass(frozen=True)
class Table:
    """The rows of an index.csv.

    Attributes:
        file_column: name of the column of files.
        columns: names of the other columns, in lower case and in order; those without a name are left out.
        rows: number of each row (the header is row 1), and its values by column name, stripped.
        warnings: a message for each kind of thing that is not used.
    """

    file_column: str
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]
    warnings: list[str]


def read_table(data: bytes) -> Table:
    """Parse the bytes of an index.csv.

    Raises:
        BadIndex: it is too large, no text in a known encoding, not CSV, or has no column of files.
    """
    if len(data) > MAX_BYTES:
        raise BadIndex(f"has {len(data):,} bytes, more than {MAX_BYTES:,}: split it up")
    text, encoding = _decode(data)
    warnings = []
    if encoding == "Windows-1252":
        warnings.append("is no UTF-8 text and was read as Windows-1252: save it as UTF-8 if letters look wrong")
    text, separator = _named_separator(text)
    try:
        separator, file_column = _choose(text, separator)
        if file_column is None:
            found = ", ".join(filter(None, _names(next(_parse(text, separator), []))))
            hint = f"; it was read as {encoding}: save it as UTF-8" if encoding != "UTF-8" else ""
            raise BadIndex(f"has no column 'file' (it has {found or 'no header'}): add one{hint}")
        lines = _parse(text, separator)
        names = _names(next(lines))
        rows, long = [], []
        for number, line in enumerate(lines, start=2):
            row: dict[str, str] = {}
            for name, value in zip(names, line, strict=False):
                if name and not row.get(name):
                    row[name] = value.strip()
            surplus = [value for value, name in zip(line, names, strict=False) if not name]
            if any(value.strip() for value in [*line[len(names) :], *surplus]):
                long.append(str(number))
            if any(row.values()):
                rows.append((number, row))
    except csv.Error as error:
        raise BadIndex(f"is no CSV ({error}): save it again as CSV") from None
    doubled = sorted({name for name in names if name and names.count(name) > 1})
    if doubled:
        warnings.append(f"has the column {', '.join(doubled)} more than once: the first value of a row counts")
    if long:
        warnings.append(
            f"has values without a column name, which are not used, in row {some(long)}: check its separators"
        )
    columns = tuple(dict.fromkeys(name for name in names if name and name != file_column))
    return Table(file_column, columns, rows, warnings)


def _decode(data: bytes) -> tuple[str, str]:
    """Return the text and the name of its encoding."""
    if data.startswith(_WORKBOOKS):
        raise BadIndex("is a workbook or an archive, no UTF-8 text: save it as CSV UTF-8")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16"), "UTF-16"
        except UnicodeDecodeError:
            raise BadIndex("is no UTF-8 text, and no UTF-16 text either: save it as UTF-8") from None
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        pass
    # From 0x81 to 0x9f lie the umlauts of DOS and macOS, and hardly any letter of Windows-1252.
    if not any(0x81 <= byte <= 0x9F for byte in set(data)):
        text = data.decode("cp1252")
        if not _CONTROLS.search(text):
            return text, "Windows-1252"
    raise BadIndex("is no UTF-8 text: save it as UTF-8")


def _named_separator(text: str) -> tuple[str, str | None]:
    """Return the text without a first line `sep=…`, and the separator that it names; Excel writes and reads it."""
    match = re.match(r"\s*\"?sep=(?P<separator>[^\r\n\"]|\\t)\"?[,;\t| ]*(?:\r\n|\r|\n|$)", text, re.IGNORECASE)
    if match is None:
        return text, None
    separator = match["separator"]
    return text[match.end() :], "\t" if separator == "\\t" else separator


def _choose(text: str, separator: str | None) -> tuple[str, str | None]:
    """Return the separator and the name of the column of files, or None for want of one."""
    header = next(iter(text.splitlines()), "")
    candidates = [separator] if separator else sorted(_SEPARATORS, key=header.count, reverse=True)
    for candidate in candidates:
        names = _names(next(_parse(text, candidate), []))
        for known in FILE_COLUMNS:
            for name in names:
                if re.sub(r"[ _-]", "", name) == known:
                    return candidate, name
    return candidates[0], None


def _parse(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)


def _names(header: list[str]) -> list[str]:
    return [name.strip().strip("\ufeff").lower() for name in header]
