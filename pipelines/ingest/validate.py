"""Validate one inbox object and store its content in S3, before it is committed to the catalogue.

Idempotent: keys are content addresses, so that a repetition writes the same objects.
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
from pipelines.images.bit_depth import check_range
from pipelines.images.capture_time import capture_time
from pipelines.images.decode import CONTENT_TYPES, OpenedImage, open_image, read_orientation
from pipelines.images.descriptors import describe
from pipelines.images.mask_placement import placed
from pipelines.images.perceptual_hash import perceptual_hash
from pipelines.ingest.inbox_keys import comparable, inbox_prefix, rejected_key
from pipelines.ingest.index_csv import FileMetadata
from pipelines.ingest.items import InboxItem
from pipelines.ingest.store_regions import put_mask, store_regions
from pipelines.storage import keys
from pipelines.storage.s3 import Storage

# An S3 endpoint that serves a folder lists files while they are still being copied. An invalid file younger than this
# is checked again after that time, and left for the next run if it has changed.
SETTLE_SECONDS = 2.0
# Upper bounds on the size of an uncompressed pixel in any accepted format, and of a file's metadata.
_BYTES_PER_PIXEL = 8
_METADATA_BYTES = 16 << 20


@dataclass(frozen=True)
class Sample:
    """An image stored in S3.

    Attributes:
        item: the inbox item, which includes its annotation.
        row: its row in the catalogue's table `samples`.
        mask_key: key of its mask. Default None.
        notes: messages on its mask for the sender.
        content: its regions as JSON. Default None.
        image_hash: its perceptual hash, of classifiers. Default None.
    """

    item: InboxItem
    row: dict[str, Any]
    mask_key: str | None = None
    notes: list[str] = field(default_factory=list)
    content: dict[str, Any] | None = None
    image_hash: int | None = None


@dataclass(frozen=True)
class Mask:
    """A mask stored in S3, or regions, of an image ingested earlier.

    Attributes:
        item: the inbox item.
        mask_key: key of the mask; None of regions of which one is a box.
        notes: messages for the sender.
        content: the regions as JSON. Default None.
    """

    item: InboxItem
    mask_key: str | None
    notes: list[str] = field(default_factory=list)
    content: dict[str, Any] | None = None


@dataclass(frozen=True)
class StoredMask:
    """A mask among the samples in S3.

    Attributes:
        key: its key.
        notes: messages for the sender.
    """

    key: str
    notes: list[str]


@dataclass(frozen=True)
class MaskedImage:
    """What has to be known of an image to take a mask of it.

    Attributes:
        width: width of the upright image in pixels.
        height: height of the upright image in pixels.
        key: its key in S3.
    """

    width: int
    height: int
    key: str


@dataclass(frozen=True)
class Rejection:
    """An object copied to rejected/ beside a file with the reason.

    Attributes:
        item: the inbox item.
        reason: why it was rejected and what to do.
        rejected_key: key of the copy.
    """

    item: InboxItem
    reason: str
    rejected_key: str


@dataclass
class Checked:
    """The validation result of one item of a batch.

    Attributes:
        sample: the accepted image. Default None.
        mask: the accepted late mask. Default None.
        rejections: rejected objects.
        done: objects to delete after the commit, in this order: a mask before its image, so that no mask is orphaned.
        missing: keys of objects that no longer exist.
        unsettled: whether the object is still being written. Default False.
    """

    sample: Sample | None = None
    mask: Mask | None = None
    rejections: list[Rejection] = field(default_factory=list)
    done: list[InboxItem] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unsettled: bool = False


def check(item: InboxItem, project: Project, run: str, masked: dict[str, MaskedImage]) -> Checked:
    """Validate one item of a batch.

    Args:
        item: the item as listed by `list_inbox`.
        project: the project.
        run: id of the ingest run.
        masked: the samples of late masks, by SHA-256.

    Raises:
        StorageError: S3 failed; the object stays in the inbox.
    """
    storage = Storage(project.bucket)
    try:
        if item.kind == "refused":
            return _reject(item, str(item.reason), project, storage)
        if item.kind == "regions":
            return _check_regions(item, project, storage, masked[str(item.sha256)])
        if item.kind == "mask":
            return _check_mask(item, project, storage, masked[str(item.sha256)])
        return _check_image(item, project, run, storage)
    except NotFound:  # removed by another worker or by its sender
        return Checked(missing=[item.key])


def _check_image(item: InboxItem, project: Project, run: str, storage: Storage) -> Checked:
    rules = project.image
    try:
        if item.size > rules.max_pixels * _BYTES_PER_PIXEL + _METADATA_BYTES:
            raise BadImage(f"the file has {item.size:,} bytes, more than any image allowed here: send a smaller image")
        data = storage.get(item.key)
        if item.serves_folder and is_changed(item, storage):  # it may have been read half-written
            return Checked(unsettled=True)
        image = open_sample(data, project)
    except BadImage as error:
        if _still_landing(item, storage):
            return Checked(unsettled=True)
        refused = _reject(item, str(error), project, storage)
        for kind, companion in (("mask", item.mask), ("regions", item.regions)):
            if companion:
                reason = (
                    f"the image of {'this mask' if kind == 'mask' else 'these regions'} was refused: send both again"
                )
                _put_first(refused, _refuse_companion(companion, reason, project, storage))
        return refused
    sample = make_safe(data, image, item, project, run)
    checked = Checked(done=[item])
    if mask := item.mask:
        try:
            stored = store_mask(storage.get(mask.key), (image.width, image.height), project, image.orientation)
            sample = replace(sample, mask_key=stored.key, notes=stored.notes)
            checked.done.insert(0, mask)
        except NotFound:
            checked.missing.append(mask.key)
        except BadImage as error:
            _put_first(checked, _refuse_companion(mask, str(error), project, storage))
    if regions := item.regions:
        sample = _with_regions(sample, regions, (image.width, image.height), project, storage, checked)
    checked.sample = sample
    return checked


def _with_regions(
    sample: Sample, item: InboxItem, size: tuple[int, int], project: Project, storage: Storage, checked: Checked
) -> Sample:
    """Return a sample with its regions; a mask file goes before the mask that they amount to."""
    try:
        stored = store_regions(storage.get(item.key), size, project)
    except NotFound:
        checked.missing.append(item.key)
        return sample
    except BadImage as error:
        _put_first(checked, _refuse_companion(item, str(error), project, storage))
        return sample
    checked.done.insert(0, item)
    typed = replace(sample.item, type=sample.item.type or stored.type)
    return replace(sample, item=typed, mask_key=sample.mask_key or stored.mask_key, content=stored.content)


def open_sample(data: bytes, project: Project) -> OpenedImage:
    """Decode an image that is to become a sample, at the project's bit depth.

    Raises:
        BadImage: it cannot be a sample of this project.
    """
    rules = project.image
    bits = None if rules.bits == "auto" else rules.bits
    image = open_image(data, max_pixels=rules.max_pixels, min_side=rules.min_side, bits=bits)
    check_range(image.depth)
    return image


def make_safe(data: bytes, image: OpenedImage, item: InboxItem, project: Project, run: str) -> Sample:
    """Store a decoded image among the samples in S3 and return its entry for the catalogue."""
    known = with_capture_time(item.known, data, project)
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
        "source_key": comparable(item.key),
        "group_key": known.group or sha256,
        "acquired_at": _moment(known.acquired_at),
        "ingest_run": run,
        "descriptors": describe(image.pixels),
        "sample_bits": image.depth.bits,
        "sample_peak": image.depth.high if image.depth.bits > 8 else None,
        "described_bits": None if project.image.bits == "auto" else project.image.bits,
    }
    image_hash = perceptual_hash(image.pixels) if project.task == "classification" else None
    return Sample(replace(item, known=known), row, image_hash=image_hash)


def with_capture_time(known: FileMetadata, data: bytes, project: Project) -> FileMetadata:
    """Return the metadata of an image with the time of its EXIF data, if the sender named none that can be read."""
    if known.acquired_at:
        return known
    moment, notes = capture_time(data, project.timezone)
    return replace(known, acquired_at=moment.isoformat() if moment else None, notes=(*known.notes, *notes))


def _check_mask(item: InboxItem, project: Project, storage: Storage, image: MaskedImage) -> Checked:
    try:
        orientation = read_orientation(storage.get(image.key))
        stored = store_mask(storage.get(item.key), (image.width, image.height), project, orientation)
    except BadImage as error:
        if _still_landing(item, storage):
            return Checked(unsettled=True)
        return _reject(item, str(error), project, storage)
    return Checked(mask=Mask(item, stored.key, stored.notes), done=[item])


def _check_regions(item: InboxItem, project: Project, storage: Storage, image: MaskedImage) -> Checked:
    try:
        stored = store_regions(storage.get(item.key), (image.width, image.height), project)
    except BadImage as error:
        if _still_landing(item, storage):
            return Checked(unsettled=True)
        return _reject(item, str(error), project, storage)
    typed = replace(item, type=item.type or stored.type)
    return Checked(mask=Mask(typed, stored.mask_key, content=stored.content), done=[item])


def store_mask(data: bytes, size: tuple[int, int], project: Project, orientation: int = 1) -> StoredMask:
    """Store the mask of an image among the samples in S3.

    Args:
        data: the mask's file.
        size: width and height of the upright image in pixels.
        project: the project.
        orientation: EXIF orientation of the image. A mask drawn on its stored pixels is turned with it.

    Raises:
        BadImage: it is not a readable image, or differs in size.
        StorageError: S3 failed.
    """
    mask = placed(data, size, orientation)
    return StoredMask(put_mask(mask.data, project), mask.notes)


def _refuse_companion(item: InboxItem, reason: str, project: Project, storage: Storage) -> Checked:
    """Reject a mask or regions listed with their image; while still being written, they are listed again as late."""
    try:
        if _still_landing(item, storage):
            return Checked()
        return _reject(item, reason, project, storage)
    except NotFound:
        return Checked(missing=[item.key])


def _reject(item: InboxItem, reason: str, project: Project, storage: Storage) -> Checked:
    """Copy an object to rejected/ and write the reason beside it."""
    key = rejected_key(project.name, item.key.removeprefix(inbox_prefix(project.name)))
    storage.copy(item.key, key)
    storage.put(f"{key}.reason.txt", f"{reason}\n".encode(), "text/plain; charset=utf-8")
    return Checked(rejections=[Rejection(item, reason, key)], done=[item])


def _put_first(of_image: Checked, of_mask: Checked) -> None:
    """Merge the result of a mask into that of its image."""
    of_image.rejections += of_mask.rejections
    of_image.missing += of_mask.missing
    of_image.done[:0] = of_mask.done


def _still_landing(item: InboxItem, storage: Storage) -> bool:
    """Return whether an object has changed since it was listed, after waiting until it is `SETTLE_SECONDS` old."""
    age = (now() - item.modified).total_seconds() if item.modified else SETTLE_SECONDS
    if age < SETTLE_SECONDS:
        time.sleep(SETTLE_SECONDS - max(age, 0))
    return is_changed(item, storage)


def is_changed(item: InboxItem, storage: Storage) -> bool:
    """Return whether the object differs from the one that was listed.

    Raises:
        NotFound: it no longer exists.
    """
    present = storage.stat(item.key)
    return (present.etag, present.size) != (item.etag, item.size)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
