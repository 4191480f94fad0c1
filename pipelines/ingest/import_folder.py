"""Import a folder of images into a project's inbox: `python -m pipelines.ingest.import_folder FOLDER PROJECT`.

Layouts are those of `pipelines.ingest.folder_layouts`; splits and the metadata of an `index.csv` at the folder's root
are preserved.

Files are uploaded to sub-folders of the inbox named by a content hash, so that different imports do not collide and a
repeated import yields only known samples.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipelines.config.project import Project, load_project
from pipelines.errors import InspectlineError
from pipelines.ingest.folder_layouts import BadFolder, Image, find_images
from pipelines.ingest.inbox_keys import INDEX, inbox_prefix
from pipelines.ingest.index_csv import BadIndex, read_index, read_time
from pipelines.storage.s3 import Storage

THREADS = 8
_TIME_COLUMNS = re.compile(r"acquired_at|timestamp|(?:date_?)?time(?:_.*)?|date(?:_.*)?", re.IGNORECASE)
# Digit-only time formats by length, accepted in addition to ISO 8601.
_TIMES = {12: "%y%m%d%H%M%S", 14: "%Y%m%d%H%M%S", 8: "%Y%m%d"}


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        images: number of images by inbox folder.
        masks: number of masks.
        skipped: number of files that were neither.
        uploaded: number of files uploaded.
    """

    images: dict[str, int]
    masks: int
    skipped: int
    uploaded: int

    @property
    def lines(self) -> list[str]:
        """Return the result as lines of text for people."""
        counts = ", ".join(f"{count} {folder}" for folder, count in sorted(self.images.items()))
        lines = [f"{sum(self.images.values())} images and {self.masks} masks are in the inbox: {counts}"]
        if self.skipped:
            lines.append(f"{self.skipped} other files were left aside")
        return lines


def import_folder(folder: Path, project: str, progress: Callable[[int, int], None] | None = None) -> Imported:
    """Upload the images of `folder` to the inbox of `project`.

    Args:
        folder: folder of images.
        project: name of the project.
        progress: called as `progress(done, total)` after each file. Default None.

    Raises:
        BadFolder: the folder is missing, holds no image, or its index.csv is unreadable.
        SettingsError: the project file is invalid.
        StorageError: S3 is unavailable.
    """
    rules = load_project(project)
    folder = folder.expanduser()
    if not folder.is_dir():
        raise BadFolder(f"{folder} is no folder: give one that holds images")
    images, skipped = find_images(folder)
    if not images:
        raise BadFolder(
            f"{folder} holds no images (JPEG, PNG, BMP, TIFF, WebP): give one with good/ and anomaly/, "
            "with train/ and test/, or with images alone"
        )
    storage = Storage(rules.bucket)
    storage.ensure_bucket()
    name = f"import-{_content_name(folder, images)}"
    indexes = _indexes(folder, images, name, rules)
    prefix = inbox_prefix(project)
    # Upload each index before its images: a concurrent ingest would otherwise assign their sides without it.
    for below, text in indexes.items():
        storage.put(f"{prefix}{below}/{INDEX}", text.encode(), "text/csv; charset=utf-8")
    uploads = [(image.mask, f"{image.folder}/{name}/{image.mask_name}") for image in images if image.mask]
    masks = len(uploads)
    uploads += [(image.file, f"{image.folder}/{name}/{image.name}") for image in images]

    def upload(what: tuple[Path | None, str]) -> None:
        file, below = what
        assert file is not None
        storage.upload(file, prefix + below)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="import") as threads:
        for done, _ in enumerate(threads.map(upload, uploads), start=1):
            if progress:
                progress(done, len(uploads))
    return Imported(dict(Counter(image.folder for image in images)), masks, skipped, len(uploads))


def _content_name(folder: Path, images: Sequence[Image]) -> str:
    """Return a short hash of the files' names and sizes."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.file.relative_to(folder)} {image.file.stat().st_size}\n".encode("utf-8", "replace"))
    return digest.hexdigest()[:8]


def _indexes(folder: Path, images: Sequence[Image], name: str, project: Project) -> dict[str, str]:
    """Return the content of index.csv by inbox folder, for the folders that have metadata."""
    index_rows = _root_index(folder)
    rows: dict[str, list[dict[str, str]]] = {}
    for image in images:
        row = _acquired(index_rows.get(image.file.relative_to(folder).as_posix(), {}), project.timezone)
        if image.split:
            row = {**row, "split": image.split}
        if row:
            rows.setdefault(f"{image.folder}/{name}", []).append({"file": image.name} | row)
    return {below: _csv(of_folder) for below, of_folder in rows.items()}


def _root_index(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / INDEX
    if not path.is_file():
        return {}
    try:
        return read_index(path.read_bytes(), "").rows
    except BadIndex as error:
        raise BadFolder(f"{path} {error}") from None


def _acquired(row: dict[str, str], timezone: str) -> dict[str, str]:
    """Return a row with `acquired_at` parsed from the first column that holds a time."""
    row = {name: value for name, value in row.items() if value}
    columns = ("acquired_at", *(name for name in row if _TIME_COLUMNS.fullmatch(name)))
    for column in columns:
        if moment := _moment(row.get(column, ""), timezone):
            return row | {"acquired_at": moment.isoformat()}
    row.pop("acquired_at", None)
    return row


def _moment(text: str, timezone: str) -> datetime | None:
    """Parse a time given in ISO 8601, as digits beginning with the year, or as Unix time; None if it is neither."""
    text = text.strip()
    try:
        if re.fullmatch(r"\d{9,10}(\.\d+)?", text):
            return datetime.fromtimestamp(float(text), UTC)
        if text.isdigit():
            if len(text) not in _TIMES:
                return None
            text = datetime.strptime(text, _TIMES[len(text)]).isoformat()
        return read_time(text, timezone)
    except (ValueError, OverflowError, OSError):
        return None


def _csv(rows: Sequence[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Import a folder from a shell, with a progress line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.ingest.import_folder", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="train/ and test/, or good/ and anomaly/, or images alone")
    parser.add_argument("project")
    asked = parser.parse_args(arguments)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} files", end="\n" if done == total else "", file=sys.stderr, flush=True)

    try:
        imported = import_folder(asked.folder, asked.project, progress)
    except InspectlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(imported.lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
