"""List the inbox and cut what is new into batches, one mapped task each.

A batch's list of objects lies in S3, so that any worker can take it up and no long list travels through Airflow.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.database import chunks
from pipelines.catalogue.schema import annotations, now, samples
from pipelines.catalogue.splits import Expected
from pipelines.config.project import Project, load_project
from pipelines.errors import NotFound
from pipelines.ingest.commit import side_counts
from pipelines.ingest.inbox_keys import INDEX, InboxPath, inbox_prefix, ingest_prefix, mask_stem, read_path
from pipelines.ingest.index_csv import BadIndex, Index, describe, read_index
from pipelines.storage.s3 import Storage, StoredObject

# Airflow expands at most 1,024 mapped tasks; what is beyond waits for the next run, five minutes later.
MOST_BATCHES = 500
# A mask whose image never comes is refused after this time.
MASK_WAITS = timedelta(hours=24)
_EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp")


@dataclass
class Listing:
    """What a run found in the inbox: the items to work on, the index files in use, and what waits with the reason."""

    items: list[dict[str, Any]] = field(default_factory=list)
    indexes: list[dict[str, Any]] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def wait(self, why: str, count: int = 1) -> None:
        """Count objects that stay in the inbox for now."""
        self.waiting[why] = self.waiting.get(why, 0) + count


def list_inbox(project: str, run_id: str, batch_size: int = 100) -> dict[str, Any]:
    """List what lies in the inbox and write it to S3 as batches of at most `batch_size` images.

    Returns {"batches": [{"project", "run", "index", "uri", "label", "count"}, …], "waiting": objects left for later}.
    Run again, it lists anew what is there then.

    Raises:
        SettingsError, StorageError, CatalogueError: the project's file, S3 or the catalogue cannot be used.
    """
    rules = load_project(project)
    storage = Storage(rules.bucket)
    listing = _list(rules, storage)
    expected = _expected(project, listing.items)
    chunks = [listing.items[start : start + batch_size] for start in range(0, len(listing.items), batch_size)]
    for chunk in chunks[MOST_BATCHES:]:
        listing.wait(f"beyond the first {MOST_BATCHES} batches", len(chunk))
    prefix = ingest_prefix(project, run_id)
    batches = []
    for index, items in enumerate(chunks[:MOST_BATCHES], start=1):
        content = {"project": project, "run": run_id, "index": index, "expected": expected, "items": items}
        uri = storage.put(f"{prefix}/batch-{index:04}.json", json.dumps(content).encode(), "application/json")
        label = f"batch {index} · {len(items)} {'image' if len(items) == 1 else 'images'} · {_common_folder(items)}…"
        batches.append(
            {"project": project, "run": run_id, "index": index, "uri": uri, "label": label, "count": len(items)}
        )
    said = {"indexes": listing.indexes, "waiting": listing.waiting, "notes": listing.notes}
    storage.put(f"{prefix}/listing.json", json.dumps(said).encode(), "application/json")
    return {"batches": batches, "waiting": sum(listing.waiting.values())}


def _list(project: Project, storage: Storage) -> Listing:
    """Read the inbox's listing and its index files, and pair images with their masks."""
    prefix = inbox_prefix(project.name)
    found: dict[str, tuple[InboxPath, StoredObject]] = {}
    for item in storage.list(prefix):
        path = item.key.removeprefix(prefix)
        if not path or (path.endswith("/") and item.size == 0):  # a folder that a console made
            continue
        found[path] = (read_path(path), item)
    listing = Listing()
    indexes = {path: found.pop(path)[1] for path in list(found) if path.rpartition("/")[2].lower() == INDEX}
    if not found and not indexes:
        return listing
    unread: list[str] = []
    read = list(_read_indexes(storage, indexes, listing, unread, prefix))
    masks = _take_masks(found)
    for path, (place, item) in found.items():
        if place.fault:
            listing.items.append(_item("refused", item, reason=place.fault))
            continue
        if _concerned(path, unread):
            listing.wait("their index.csv cannot be read")
            continue
        known = describe(path, (index for index in read if path in index.rows), project)
        mask = masks.pop(place.stem, None)
        more: dict[str, Any] = {"label": place.label, "type": place.type, "known": asdict(known)}
        if mask:
            more["mask"] = _item("mask", mask[1])
        listing.items.append(_item("image", item, **more))
    late = {stem: mask for stem, mask in masks.items() if not _concerned(stem, unread)}
    _late_masks(project.name, late, listing, prefix)
    listing.items.sort(key=lambda item: item["key"])
    return listing


def _concerned(path: str, folders: Sequence[str]) -> bool:
    return any(not folder or path.startswith(f"{folder}/") for folder in folders)


def _item(kind: str, stored: StoredObject, **more: Any) -> dict[str, Any]:
    modified = stored.modified.isoformat()
    return {"kind": kind, "key": stored.key, "size": stored.size, "etag": stored.etag, "modified": modified} | more


def _read_indexes(
    storage: Storage, stored: dict[str, StoredObject], listing: Listing, unread: list[str], prefix: str
) -> Iterator[Index]:
    """Yield the readable index files, the outermost first; enter the folders of the others in `unread`."""
    for path in sorted(stored, key=lambda path: (path.count("/"), path)):
        folder = path.rpartition("/")[0]
        item = stored[path]
        try:
            index = read_index(storage.get(item.key), folder)
        except NotFound:  # taken away meanwhile
            continue
        except BadIndex as error:
            unread.append(folder)
            listing.notes.append(f"{path} {error}; the images beside and below it wait")
            continue
        listing.indexes.append({"key": item.key, "etag": item.etag, "files": [prefix + file for file in index.rows]})
        yield index


def _take_masks(found: dict[str, tuple[InboxPath, StoredObject]]) -> dict[str, tuple[InboxPath, StoredObject]]:
    """Take the masks out of `found` and return them by the stem of their image.

    Among anomalies the name says it; elsewhere, what is named like a mask is one only if its image lies beside it.
    """
    stems = {place.stem for place, _ in found.values() if place.mask_of is None}
    masks = {}
    for path, (place, item) in list(found.items()):
        stem = place.mask_of or mask_stem(place)
        if place.fault or stem is None or (place.mask_of is None and stem not in stems):
            continue
        if place.mask_of is None:
            fault = "a mask beside an image that is not labelled as an anomaly: put both into anomaly/"
        elif stem in masks:
            fault = "a second mask for the same image: draw both into one"
        else:
            masks[stem] = found.pop(path)
            continue
        found[path] = (replace(place, fault=fault), item)
    return masks


def _late_masks(project: str, masks: dict[str, tuple[InboxPath, StoredObject]], listing: Listing, prefix: str) -> None:
    """Enter the masks whose image was taken in before; those whose image is still to come wait."""
    images = _earlier_images(project, [prefix + stem for stem in masks])
    for stem, (place, item) in masks.items():
        if image := images.get(prefix + stem):
            listing.items.append(_item("mask", item, type=place.type, **image))
        elif now() - item.modified > MASK_WAITS:
            hours = int(MASK_WAITS.total_seconds() // 3600)
            reason = f"the mask's image {stem}.* did not come within {hours} hours: send both"
            listing.items.append(_item("refused", item, reason=reason))
        else:
            listing.wait("masks whose image is not there yet")


def _earlier_images(project: str, stems: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return sha256 and source key of the images that came earlier under these keys (without extension)."""
    names = {f"{stem}.{form}": stem for stem in stems for ending in _EXTENSIONS for form in (ending, ending.upper())}
    found: dict[str, dict[str, str]] = {}
    with connect() as connection:
        for chunk in chunks(names):
            for table in (samples, annotations):
                rows = connection.execute(
                    select(table.c.source_key, table.c.sha256)
                    .where(table.c.project == project, table.c.source_key.in_(chunk))
                    .order_by(table.c.id)
                )
                found |= {names[row.source_key]: {"sha256": row.sha256, "image_key": row.source_key} for row in rows}
    return found


def _expected(project: str, items: list[dict[str, Any]]) -> dict[str, int]:
    """Count the good and unlabelled images that there will be after this run, for the balance of subsets."""
    splits = [item["known"]["split"] for item in items if item["kind"] == "image" and item["label"] != "anomaly"]
    with connect() as connection:
        good, _ = side_counts(connection, project)
    train = good.get("training", 0) + good.get("validation", 0) + splits.count("train")
    return asdict(Expected(unsplit=sum(good.values()) + len(splits), train=train))


def _common_folder(items: list[dict[str, Any]]) -> str:
    """Return the folder that all items share, label and type at most, with a slash, or nothing."""
    folders = [item["key"].split("/")[2:-1][:2] for item in items]
    shared = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared) + "/" if shared else ""
