"""One inbox object at a time: read it once, check it, make what it holds safe in S3, before the catalogue hears of it.

Nothing here depends on what was done before: keys name their content, so that doing it again changes nothing.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pipelines.catalogue.schema import now
from pipelines.config.project import Project
from pipelines.errors import BadImage, NotFound
from pipelines.images.decode import CONTENT_TYPES, OpenedImage, open_image, open_mask
from pipelines.images.descriptors import describe
from pipelines.ingest.inbox_keys import inbox_prefix, rejected_key
from pipelines.storage import keys
from pipelines.storage.s3 import Storage

# Where the endpoint serves a folder, a file that is being copied in shows before it is whole. A file that cannot be
# used and is younger than this is looked at again after the time: if it has changed, it is left for the next run.
SETTLE_SECONDS = 2.0
# No accepted pixel format takes more bytes a pixel uncompressed, and metadata does not take more than the rest.
_BYTES_PER_PIXEL = 8
_METADATA_BYTES = 16 << 20


@dataclass(frozen=True)
class Sample:
    """An image that is safe in S3: its row in the catalogue, and the annotation that goes with it."""

    item: dict[str, Any]
    row: dict[str, Any]
    mask_key: str | None = None


@dataclass(frozen=True)
class Mask:
    """A mask that is safe in S3, of an image that came earlier."""

    item: dict[str, Any]
    mask_key: str


@dataclass(frozen=True)
class Rejection:
    """An object whose copy is safe under rejected/, beside it the reason."""

    item: dict[str, Any]
    reason: str
    rejected_key: str


@dataclass
class Checked:
    """What became of one item of a batch.

    `done` lists the objects that may go once the catalogue knows, in the order in which they are to go: a mask before
    its image, so that a mask is never left alone. `missing` lists the keys of those that are gone already.
    """

    sample: Sample | None = None
    mask: Mask | None = None
    rejections: list[Rejection] = field(default_factory=list)
    done: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unsettled: bool = False


def check(item: dict[str, Any], project: Project, run: str, sizes: dict[str, tuple[int, int]]) -> Checked:
    """Check one item of a batch; `sizes` gives width and height of the samples that late masks belong to.

    Raises:
        StorageError: S3 did not do what was asked; nothing is lost, the object stays in the inbox.
    """
    storage = Storage(project.bucket)
    try:
        if item["kind"] == "refused":
            return _reject(item, item["reason"], project, storage)
        if item["kind"] == "mask":
            return _check_mask(item, project, storage, sizes)
        return _check_image(item, project, run, storage)
    except NotFound:  # taken by another worker, or by whoever put it there
        return Checked(missing=[item["key"]])


def _check_image(item: dict[str, Any], project: Project, run: str, storage: Storage) -> Checked:
    rules = project.image
    try:
        if item["size"] > rules.max_pixels * _BYTES_PER_PIXEL + _METADATA_BYTES:
            raise BadImage(
                f"the file has {item['size']:,} bytes, more than any image allowed here: send a smaller image"
            )
        data = storage.get(item["key"])
        image = open_image(data, max_pixels=rules.max_pixels, min_side=rules.min_side)
    except BadImage as error:
        if _still_landing(item, storage):
            return Checked(unsettled=True)
        refused = _reject(item, str(error), project, storage)
        if item.get("mask"):
            reason = "the image of this mask was refused: send both again"
            _put_first(refused, _refuse_mask(item["mask"], reason, project, storage))
        return refused
    sample = make_safe(data, image, item, project, run)
    checked = Checked(done=[item])
    mask_key = None
    if mask := item.get("mask"):
        try:
            mask_key = _store_mask(mask, (image.width, image.height), project, storage)
            checked.done.insert(0, mask)
        except NotFound:
            checked.missing.append(mask["key"])
        except BadImage as error:
            _put_first(checked, _refuse_mask(mask, str(error), project, storage))
    checked.sample = replace(sample, mask_key=mask_key)
    return checked


def make_safe(data: bytes, image: OpenedImage, item: dict[str, Any], project: Project, run: str) -> Sample:
    """Write an image that was opened to where samples are kept, and return what the catalogue is to hear of it."""
    sha256 = hashlib.sha256(data).hexdigest()
    key = keys.sample(project.name, sha256, image.extension)
    Storage(project.bucket).put(key, data, CONTENT_TYPES[image.format])
    row = {
        "project": project.name,
        "sha256": sha256,
        "key": key,
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "size_bytes": len(data),
        "source_key": item["key"],
        "group_key": item["known"]["group"] or sha256,
        "acquired_at": _moment(item["known"]["acquired_at"]),
        "ingest_run": run,
        "descriptors": describe(image.pixels),
    }
    return Sample(item, row)


def _check_mask(item: dict[str, Any], project: Project, storage: Storage, sizes: dict[str, tuple[int, int]]) -> Checked:
    try:
        mask_key = _store_mask(item, sizes[item["sha256"]], project, storage)
    except BadImage as error:
        if _still_landing(item, storage):
            return Checked(unsettled=True)
        return _reject(item, str(error), project, storage)
    return Checked(mask=Mask(item, mask_key), done=[item])


def _store_mask(item: dict[str, Any], size: tuple[int, int], project: Project, storage: Storage) -> str:
    """Check a mask against the size of its image and return its key in S3."""
    return store_mask(storage.get(item["key"]), size, project)


def store_mask(data: bytes, size: tuple[int, int], project: Project) -> str:
    """Write the mask of an image of `size` (width, height) to where samples are kept, and return its key.

    Raises:
        BadImage: it is no image, or of another size.
        StorageError: S3 did not take it.
    """
    open_mask(data, size)
    sha256 = hashlib.sha256(data).hexdigest()
    key = keys.mask(project.name, sha256)
    Storage(project.bucket).put(key, data, "image/png")
    return key


def _refuse_mask(item: dict[str, Any], reason: str, project: Project, storage: Storage) -> Checked:
    """Refuse a mask that lies beside its image; one that is still landing comes again as a late mask."""
    try:
        if _still_landing(item, storage):
            return Checked()
        return _reject(item, reason, project, storage)
    except NotFound:
        return Checked(missing=[item["key"]])


def _reject(item: dict[str, Any], reason: str, project: Project, storage: Storage) -> Checked:
    """Copy an object to rejected/ and write the reason beside it."""
    key = rejected_key(project.name, item["key"].removeprefix(inbox_prefix(project.name)))
    storage.copy(item["key"], key)
    storage.put(f"{key}.reason.txt", f"{reason}\n".encode(), "text/plain; charset=utf-8")
    return Checked(rejections=[Rejection(item, reason, key)], done=[item])


def _put_first(of_image: Checked, of_mask: Checked) -> None:
    """Add what became of a mask to what became of its image."""
    of_image.rejections += of_mask.rejections
    of_image.missing += of_mask.missing
    of_image.done[:0] = of_mask.done


def _still_landing(item: dict[str, Any], storage: Storage) -> bool:
    """Tell whether an object has changed since it was listed, after giving a young one time to."""
    age = (now() - datetime.fromisoformat(item["modified"])).total_seconds()
    if age < SETTLE_SECONDS:
        time.sleep(SETTLE_SECONDS - max(age, 0))
    return is_changed(item, storage)


def is_changed(item: dict[str, Any], storage: Storage) -> bool:
    """Tell whether the object is another than the one that was listed.

    Raises:
        NotFound: it is gone.
    """
    present = storage.stat(item["key"])
    return (present.etag, present.size) != (item["etag"], item["size"])


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
