"""List the inbox and divide its objects into batches, one mapped task each.

A batch's list of objects is stored in S3, so that any worker can process it and XCom carries no long list.
"""

import json
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.database import chunks
from pipelines.catalogue.samples import classes_of
from pipelines.catalogue.schema import annotations, now, samples
from pipelines.catalogue.splits import Expected
from pipelines.config.project import Project, load_project
from pipelines.errors import NotFound
from pipelines.ingest.at_rest import Looks
from pipelines.ingest.commit import side_counts
from pipelines.ingest.file_names import left_alone, reserved
from pipelines.ingest.inbox_classes import refuse_other_spellings, with_class
from pipelines.ingest.inbox_keys import INDEX, InboxPath, comparable, inbox_prefix, ingest_prefix, mask_stem, read_path
from pipelines.ingest.index_csv import BadIndex, Index, describe, read_index
from pipelines.ingest.index_matching import compare
from pipelines.ingest.items import InboxItem, ItemKind
from pipelines.ingest.name_lists import some
from pipelines.storage.s3 import Storage, StoredObject

# Airflow expands at most 1,024 mapped tasks; the remaining objects wait for the next run, five minutes later.
MOST_BATCHES = 500
# A mask whose image does not arrive is rejected after this time.
MASK_WAITS = timedelta(hours=24)
GROWING = "still being written"
UNFINISHED = "unfinished copies by their names"
_EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp")


@dataclass
class Listing:
    """The content of the inbox.

    Attributes:
        items: objects to process.
        indexes: index files in use.
        waiting: number of objects left for later, by reason.
        named: paths of some of them, by reason.
        notes: messages for the sender.
        present: comparable paths of all files in the inbox, whether or not they are at rest.
        growing: paths of files that are still being written.
    """

    items: list[InboxItem] = field(default_factory=list)
    indexes: list[dict[str, Any]] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    named: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    growing: list[str] = field(default_factory=list)

    def wait(self, why: str, *paths: str, count: int | None = None) -> None:
        """Add the objects at `paths`, or `count`, that stay in the inbox for the reason `why`; without either, one."""
        if count is None:
            count = len(paths) if paths or why in (GROWING, UNFINISHED) else 1
        if count:
            self.waiting[why] = self.waiting.get(why, 0) + count
            self.named.setdefault(why, []).extend(paths)


def list_inbox(project: str, run_id: str, batch_size: int = 100, patience: float = 0) -> dict[str, Any]:
    """List the inbox and write it to S3 as batches of at most `batch_size` (default 100) objects.

    A repeated call lists the inbox anew. Files that are still being written stay where they are
    (`pipelines.ingest.at_rest`); with `patience` (default 0), up to so many seconds pass until they are at rest.

    Returns:
        {"batches": [{"project", "run", "index", "uri", "label", "count"}, …], "waiting": number of objects left}.

    Raises:
        SettingsError: the project file is invalid.
        StorageError: S3 is unavailable.
        CatalogueError: the catalogue is unavailable.
    """
    rules = load_project(project)
    storage = Storage(rules.bucket)
    listing = _list(rules, storage, patience)
    expected = _expected(project, listing.items)
    cut = [listing.items[start : start + batch_size] for start in range(0, len(listing.items), batch_size)]
    for chunk in cut[MOST_BATCHES:]:
        listing.wait(f"beyond the first {MOST_BATCHES} batches", count=len(chunk))
    prefix = ingest_prefix(project, run_id)
    batches = []
    for index, items in enumerate(cut[:MOST_BATCHES], start=1):
        content = {"project": project, "run": run_id, "index": index, "expected": expected}
        content["items"] = [item.to_json() for item in items]
        uri = storage.put(f"{prefix}/batch-{index:04}.json", json.dumps(content).encode(), "application/json")
        label = f"batch {index} · {len(items)} {'image' if len(items) == 1 else 'images'} · {_common_folder(items)}…"
        batches.append(
            {"project": project, "run": run_id, "index": index, "uri": uri, "label": label, "count": len(items)}
        )
    summary = {"indexes": listing.indexes, "waiting": listing.waiting, "named": listing.named, "notes": listing.notes}
    storage.put(f"{prefix}/listing.json", json.dumps(summary).encode(), "application/json")
    return {"batches": batches, "waiting": sum(listing.waiting.values())}


def _list(project: Project, storage: Storage, patience: float) -> Listing:
    """List the inbox, read its index files, and pair images with their masks."""
    prefix = inbox_prefix(project.name)
    listing = Listing()
    looks = Looks.load(storage, project.name)
    stored = _at_rest(storage, prefix, looks, patience, listing)
    entries: dict[str, tuple[InboxPath, StoredObject]] = {
        path: (read_path(path, project.task), item) for path, item in stored.items()
    }
    indexes = {path: entries.pop(path)[1] for path in list(entries) if _is_index(path)}
    if not entries and not indexes and not listing.present:
        return listing
    growing_index = [path.rpartition("/")[0] for path in listing.growing if _is_index(path)]
    unread: list[str] = []
    read = list(_read_indexes(storage, indexes, listing, unread, prefix, looks))
    masks, regions = _take_masks(entries, project.task), _take_regions(entries)
    growing = {comparable(stem) for path in listing.growing for stem in _stems(read_path(path))}
    images: list[str] = []
    for path, (parsed, item) in entries.items():
        place = parsed
        metadata = describe(path, (index for index in read if comparable(path) in index.rows), project)
        if project.task == "classification" and not _concerned(path, [*unread, *growing_index]):
            place = with_class(parsed, metadata)
        elif project.task == "classification" and not place.folder:  # an index.csv to come may give its class
            place = replace(place, fault=None)
        if place.fault:
            listing.items.append(_item("refused", item, reason=place.fault))
            continue
        images.append(path)
        stem = comparable(place.stem)
        if _concerned(path, unread):
            listing.wait("their index.csv cannot be read")
            continue
        if _concerned(path, growing_index):
            listing.wait("their index.csv is still being written")
            continue
        if stem in growing:  # its mask or its regions are not whole yet
            listing.wait(GROWING, path)
            continue
        mask = masks.pop(stem, None)
        marked = regions.pop(stem, None)
        listing.items.append(
            _item(
                "image",
                item,
                label=place.label,
                type=place.type,
                known=metadata,
                mask=_item("mask", mask[1]) if mask else None,
                regions=_item("regions", marked[1]) if marked else None,
                serves_folder=looks.seconds > 0,
            )
        )
    unread += growing_index
    late_kinds: tuple[tuple[Literal["mask", "regions"], dict[str, tuple[InboxPath, StoredObject]]], ...]
    late_kinds = (("mask", masks), ("regions", regions))
    for kind, companions in late_kinds:
        for stem in [stem for stem in companions if stem in growing]:  # its image is not whole yet
            listing.wait(GROWING, companions.pop(stem)[0].path)
        late = {stem: companion for stem, companion in companions.items() if not _concerned(stem, unread)}
        _late_companions(project.name, kind, late, listing, prefix, looks)
    listing.notes += _shared_stems(images)
    listing.notes += compare(project, read, listing.present, images)
    if project.task == "classification":
        with connect() as connection:
            classes = classes_of(connection, project.name)
        listing.items = refuse_other_spellings(listing.items, classes)
    listing.items.sort(key=lambda item: item.key)
    return listing


def _at_rest(storage: Storage, prefix: str, looks: Looks, patience: float, listing: Listing) -> dict[str, StoredObject]:
    """Return the objects that can be taken, by path below the inbox, and list the others as waiting.

    Waits for at most `patience` seconds until those that are still being written are at rest.
    """
    for attempt in (1, 2):
        every = {item.key.removeprefix(prefix): item for item in storage.list(prefix)}
        # Consoles mark folders by empty objects.
        every = {path: item for path, item in every.items() if path and not (path.endswith("/") and item.size == 0)}
        kinds = {path: left_alone(path) for path in every}
        waits = {path: looks.wait(item) for path, item in every.items() if kinds[path] is None}
        longest = max(waits.values(), default=0.0)
        if attempt == 1 and longest > 0 and patience > 0:
            time.sleep(min(longest, patience))
            continue
        break
    looks.store(item.key for item in every.values())
    unfinished = {path for path, kind in kinds.items() if kind == "unfinished"} | reserved(every)
    listing.present = {comparable(path) for path in every if kinds[path] is None}
    listing.growing = sorted(path for path, wait in waits.items() if wait and path not in unfinished)
    listing.wait(UNFINISHED, *sorted(unfinished))
    listing.wait(GROWING, *listing.growing)
    return {path: every[path] for path, wait in waits.items() if not wait and path not in unfinished}


def _is_index(path: str) -> bool:
    return path.rpartition("/")[2].lower() == INDEX


def _concerned(path: str, folders: Sequence[str]) -> bool:
    return any(not folder or path.startswith(f"{folder}/") for folder in folders)


def _item(kind: ItemKind, stored: StoredObject, **more: Any) -> InboxItem:
    return InboxItem(kind, stored.key, stored.size, stored.etag, stored.modified, **more)


def _read_indexes(
    storage: Storage,
    stored: dict[str, StoredObject],
    listing: Listing,
    unread: list[str],
    prefix: str,
    looks: Looks,
) -> Iterator[Index]:
    """Yield the readable index files, outermost first; append the folders of the others to `unread`."""
    for path in sorted(stored, key=lambda path: (path.count("/"), path)):
        folder = path.rpartition("/")[0]
        item = stored[path]
        try:
            index = read_index(storage.get(item.key), folder)
        except NotFound:  # deleted meanwhile
            continue
        except BadIndex as error:
            unread.append(folder)
            listing.notes.append(f"{path} {error}; the images beside and below it wait")
            continue
        listing.notes += [f"{path} {warning}" for warning in index.warnings]
        files = [comparable(prefix) + file for file in index.rows]
        since = looks.first_seen(item).isoformat()
        listing.indexes.append({"key": item.key, "etag": item.etag, "since": since, "files": files})
        yield index


def _take_masks(
    entries: dict[str, tuple[InboxPath, StoredObject]], task: str
) -> dict[str, tuple[InboxPath, StoredObject]]:
    """Remove the masks from `entries` and return them by the comparable stem of their image.

    Among anomalies a mask is identified by its name alone, elsewhere only if its image lies beside it.
    """
    stems = {comparable(place.stem) for place, _ in entries.values() if place.mask_of is None}
    masks = {}
    for path, (place, item) in list(entries.items()):
        named = place.mask_of or mask_stem(place)
        stem = comparable(named) if named else None
        if place.fault or stem is None or (place.mask_of is None and stem not in stems):
            continue
        if task == "classification":
            fault = "a mask beside an image: masks are not used by classes, so leave it out"
        elif place.mask_of is None:
            fault = "a mask beside an image that is not labelled as an anomaly: put both into anomaly/"
        elif stem in masks:
            fault = "a second mask for the same image: draw both into one"
        else:
            masks[stem] = entries.pop(path)
            continue
        entries[path] = (replace(place, fault=fault), item)
    return masks


def _take_regions(entries: dict[str, tuple[InboxPath, StoredObject]]) -> dict[str, tuple[InboxPath, StoredObject]]:
    """Remove the files of regions from `entries` and return them by the comparable stem of their image."""
    paths = {comparable(place.regions_of): path for path, (place, _) in entries.items() if place.regions_of}
    return {stem: entries.pop(path) for stem, path in paths.items()}


def _stems(place: InboxPath) -> Iterator[str]:
    """Yield the stem of the image that a file is or belongs to, in each sense that its name may have."""
    yield place.stem
    yield from filter(None, (mask_stem(place), place.regions_of))


def _shared_stems(paths: Sequence[str]) -> list[str]:
    """Return a line on images of one folder whose names differ only in their endings."""
    stems: dict[str, list[str]] = {}
    for path in paths:
        stems.setdefault(comparable(read_path(path).stem), []).append(path)
    shared = [same for same in stems.values() if len(same) > 1]
    if not shared:
        return []
    return [
        f"{len(shared)} names stand for several images, of which a mask of that name goes to the first alone: "
        f"{some([' and '.join(same) for same in shared])}; rename them"
    ]


def _late_companions(
    project: str,
    kind: Literal["mask", "regions"],
    companions: dict[str, tuple[InboxPath, StoredObject]],
    listing: Listing,
    prefix: str,
    looks: Looks,
) -> None:
    """List the masks or regions of images ingested earlier; those whose image has not arrived yet wait."""
    images = _earlier_images(project, [prefix + stem for stem in companions])
    for stem, (place, item) in companions.items():
        if image := images.get(prefix + stem):
            listing.items.append(_item(kind, item, type=place.type, **image))
        elif now() - looks.first_seen(item) > MASK_WAITS:
            hours = int(MASK_WAITS.total_seconds() // 3600)
            reason = f"the image {stem}.* of these {kind} did not come within {hours} hours: send both"
            listing.items.append(_item("refused", item, reason=reason.replace("these mask", "this mask")))
        else:
            listing.wait(f"{'masks' if kind == 'mask' else kind} whose image is not there yet")


def _earlier_images(project: str, stems: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return sha256 and source key of images ingested earlier under these comparable keys (without extension)."""
    names = {f"{stem}.{form}": stem for stem in stems for ending in _EXTENSIONS for form in (ending, ending.upper())}
    # Before names were stored in NFC, those of macOS were stored as they came.
    names |= {unicodedata.normalize("NFD", name): stem for name, stem in names.items()}
    images: dict[str, dict[str, str]] = {}
    with connect() as connection:
        for chunk in chunks(names):
            for table in (samples, annotations):
                rows = connection.execute(
                    select(table.c.source_key, table.c.sha256)
                    .where(table.c.project == project, table.c.source_key.in_(chunk))
                    .order_by(table.c.id)
                )
                images |= {names[row.source_key]: {"sha256": row.sha256, "image_key": row.source_key} for row in rows}
    return images


def _expected(project: str, items: list[InboxItem]) -> dict[str, int]:
    """Count the good and unlabelled images expected after this run, for the balance of subsets."""
    splits = [item.known.split for item in items if item.kind == "image" and item.label != "anomaly"]
    with connect() as connection:
        good, _ = side_counts(connection, project)
    train = good.get("training", 0) + good.get("validation", 0) + splits.count("train")
    return asdict(Expected(unsplit=sum(good.values()) + len(splits), train=train))


def _common_folder(items: list[InboxItem]) -> str:
    """Return the folder shared by all items, at most label and type, with a trailing slash, or an empty string."""
    folders = [item.key.split("/")[2:-1][:2] for item in items]
    shared = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared) + "/" if shared else ""
