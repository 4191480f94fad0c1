"""Tables as CSV: boxes, run lengths, or VIA's regions, by the names of their columns."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from pipelines.ingest.annotation_formats import csv_boxes, csv_runs, via
from pipelines.ingest.annotation_formats.model import AnnotationSet, BadAnnotations, ImageFiles, read_text

_MOST_CELL = 1 << 26  # characters of a cell; run lengths are long


def read(file: Path, images: ImageFiles) -> AnnotationSet | None:
    """Return the regions of a CSV; None if its columns are none that are known.

    Raises:
        BadAnnotations: a row cannot be read or contradicts its image; says which.
    """
    text = read_text(file, fallback="cp1252")
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    csv.field_size_limit(_MOST_CELL)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise BadAnnotations(f"{file} is no CSV ({error}): save it again as CSV") from None
    if not lines:
        return None
    header = [name.strip().lower() for name in lines[0]]
    rows = [dict(zip(header, (*line, *[""] * len(header)), strict=False)) for line in lines[1:] if any(line)]
    if set(via.CSV_COLUMNS) <= set(header):
        return via.read(via.entries_of_rows(rows, file), file, images)
    if named := csv_runs.columns(header):
        return csv_runs.read(rows, named, file, images)
    return csv_boxes.read(lines, file, images)
