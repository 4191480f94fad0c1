"""Import a folder of images into a project's inbox: `python -m pipelines.ingest.import_folder FOLDER PROJECT`.

Prints a plan first: what each folder was taken for, and what is not understood, with which nothing is imported. Asks
on a terminal unless `--yes` is given.

Files are uploaded to sub-folders of the inbox named by a content hash, so that different imports do not collide and a
repeated import yields only known samples. Splits, groups, times and regions travel with them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.catalogue import connect
from pipelines.catalogue.samples import classes_of
from pipelines.config.project import Project, load_project
from pipelines.errors import InspectlineError
from pipelines.images.mask_placement import placed
from pipelines.images.regions import dumps
from pipelines.ingest.annotation_formats import size_of
from pipelines.ingest.folder_maps import read_maps
from pipelines.ingest.import_index import acquired
from pipelines.ingest.import_plan import ImportPlan, PlannedImage
from pipelines.ingest.inbox_keys import INDEX, REGIONS_ENDING, inbox_prefix
from pipelines.ingest.name_lists import some
from pipelines.ingest.plan_import import plan_import
from pipelines.ingest.store_regions import mask_file
from pipelines.storage.s3 import Storage

THREADS = 8


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        images: number of images by inbox folder.
        masks: number of masks.
        regions: number of images that came with regions.
        uploaded: number of files uploaded.
        notes: what was left out, in lines for people.
    """

    images: dict[str, int]
    masks: int
    regions: int
    uploaded: int
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """Return the result as lines of text for people."""
        counts = ", ".join(f"{count} {folder}" for folder, count in sorted(self.images.items()))
        regions = f", regions of {self.regions} images" if self.regions else ""
        first = f"{sum(self.images.values())} images and {self.masks} masks{regions} are in the inbox: {counts}"
        return [first, *self.notes]


def import_folder(
    folder: Path,
    project: str,
    progress: Callable[[int, int], None] | None = None,
    maps: Mapping[str, str] | None = None,
) -> Imported:
    """Plan the import of `folder` and upload it to the inbox of `project`.

    Args:
        folder: folder of images.
        project: name of the project.
        progress: called as `progress(done, total)` after each file. Default None.
        maps: what folders are; see `plan_import`. Default None.

    Raises:
        BadFolder: the folder is missing, holds no image, or is not understood.
        SettingsError: the project file is invalid.
        StorageError: S3 is unavailable.
    """
    task = load_project(project).task
    plan = plan_import(folder, maps, task=task, known=known_classes(project) if task == "classification" else ())
    return upload_plan(plan, project, progress)


def known_classes(project: str) -> list[str]:
    """Return the classes that a project has in the catalogue.

    Raises:
        CatalogueError: the catalogue is unavailable.
    """
    with connect() as connection:
        return classes_of(connection, project)


def upload_plan(plan: ImportPlan, project: str, progress: Callable[[int, int], None] | None = None) -> Imported:
    """Upload the images of a plan to the inbox of `project`.

    Raises:
        BadFolder: the plan is not understood.
        SettingsError: the project file is invalid.
        StorageError: S3 is unavailable.
    """
    rules = load_project(project)
    plan.check()
    storage = Storage(rules.bucket)
    storage.ensure_bucket()
    name = f"import-{_content_name(plan)}"
    prefix = inbox_prefix(project)
    indexes, notes = _indexes(plan, name, rules)
    # Upload each index before its images: a concurrent ingest would otherwise assign their sides without it.
    for below, text in indexes.items():
        storage.put(f"{prefix}{below}/{INDEX}", text.encode(), "text/csv; charset=utf-8")
    # What belongs to an image goes before it, so that an ingest in between takes them together.
    uploads: list[tuple[PlannedImage, bool]] = [(image, False) for image in plan.images if image.masks or image.regions]
    uploads += [(image, True) for image in plan.images]

    def upload(what: tuple[PlannedImage, bool]) -> None:
        image, itself = what
        stem = f"{prefix}{image.folder}/{name}/{image.name.rpartition('.')[0]}"
        if itself:
            storage.upload(image.file, f"{prefix}{image.folder}/{name}/{image.name}")
            return
        if image.regions:
            storage.put(f"{stem}{REGIONS_ENDING}", dumps(image.regions), "application/json")
        if len(image.masks) == 1:
            storage.upload(image.masks[0], f"{stem}_mask{image.masks[0].suffix.lower()}")
        elif image.masks:
            storage.put(f"{stem}_mask.png", merged_mask(image), "image/png")

    with ThreadPoolExecutor(THREADS, thread_name_prefix="import") as threads:
        for done, _ in enumerate(threads.map(upload, uploads), start=1):
            if progress:
                progress(done, len(uploads))
    regions = sum(bool(image.regions) for image in plan.images)
    return Imported(plan.counts, plan.masks, regions, len(uploads), tuple(notes))


def merged_mask(image: PlannedImage) -> bytes:
    """Return the union of an image's masks as a PNG, 255 where one of them marks.

    Raises:
        BadImage: a mask cannot be read, or differs in size from the image.
    """
    size = size_of(image.file)
    upright = (size.width, size.height)
    # Masks of one size for both, stored and upright, are turned by ingest.
    orientation = 1 if size.stored == upright else size.orientation
    masks = [placed(mask.read_bytes(), upright, orientation).marked for mask in image.masks]
    return mask_file(np.logical_or.reduce(masks))


def _content_name(plan: ImportPlan) -> str:
    """Return a short hash of the files' names and sizes."""
    digest = hashlib.sha256()
    for image in plan.images:
        line = f"{image.file.relative_to(plan.root)} {image.file.stat().st_size}\n"
        digest.update(line.encode("utf-8", "replace"))
    return digest.hexdigest()[:8]


def _indexes(plan: ImportPlan, name: str, project: Project) -> tuple[dict[str, str], list[str]]:
    """Return the content of index.csv by inbox folder, for the folders that have metadata, and notes."""
    rows: dict[str, list[dict[str, str]]] = {}
    unread: list[str] = []
    for image in plan.images:
        row, without_time = acquired(image.metadata, project.timezone)
        row = {column: value for column, value in row.items() if column not in ("label", "type")}
        if without_time:
            unread.append(f"{image.file.relative_to(plan.root).as_posix()} ({without_time})")
        if image.by_index:
            row["label"] = str(image.label)
        if image.split and "split" not in row and "subset" not in row:
            row = {**row, "split": image.split}
        if image.group:
            row = {"group": image.group} | row
        if row:
            rows.setdefault(f"{image.folder}/{name}", []).append({"file": image.name} | row)
    notes = [f"{len(unread)} times cannot be read and are left out: {some(unread)}"] if unread else []
    return {below: _csv(of_folder) for below, of_folder in rows.items()}, notes


def _csv(rows: Sequence[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def confirm(plan: ImportPlan, yes: bool) -> bool:
    """Return whether to import: `yes`, or no terminal to ask on, or the answer given there."""
    if yes or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    return input(f"Import these {len(plan.images)} images? [y/N] ").strip().lower() in ("y", "yes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Import a folder from a shell, with a progress line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.ingest.import_folder", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "folder", type=Path, help="train/ and test/, good/ and anomaly/, a folder for each class, or images alone"
    )
    parser.add_argument("project")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FOLDER=MEANING",
        help="what a folder is: good, anomaly/TYPE, a class, …",
    )
    parser.add_argument("--yes", action="store_true", default=os.environ.get("YES") == "1", help="do not ask")
    parser.add_argument("--plan", action="store_true", help="print the plan and stop")
    asked = parser.parse_args(arguments)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} files", end="\n" if done == total else "", file=sys.stderr, flush=True)

    try:
        task = load_project(asked.project).task
        known = known_classes(asked.project) if task == "classification" else ()
        plan = plan_import(asked.folder, read_maps(asked.map), task=task, known=known)
        print("\n".join(plan.lines()))
        plan.check()
        if asked.plan:
            return 0
        if not confirm(plan, asked.yes):
            print("nothing was imported")
            return 1
        imported = upload_plan(plan, asked.project, progress)
    except InspectlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(imported.lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
