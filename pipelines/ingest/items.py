"""What a listing of the inbox hands to the batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pipelines.ingest.index_csv import FileMetadata
from pipelines.steps import Record

ItemKind = Literal["image", "mask", "regions", "refused"]


@dataclass(frozen=True)
class InboxItem(Record):
    """One object to process: an image with what belongs to it, a late mask or late regions, or a refused object.

    Attributes:
        kind: what it is.
        key: its key in the bucket.
        size: its size in bytes when it was listed.
        etag: its entity tag when it was listed.
        modified: its time of modification; None of an image that was posted to serving.
        reason: why it is refused. Default None.
        label: good, anomaly or a class; None (default): unlabelled.
        type: type of the anomaly. Default None.
        known: the sender's metadata of an image.
        mask: the mask that was listed with an image. Default None.
        regions: the regions that were listed with an image. Default None.
        serves_folder: whether the bucket is a folder, in which files grow. Default False.
        sha256: SHA-256 of the image of a late mask or late regions. Default None.
        image_key: inbox key of that image. Default None.
        author: account that posted the image. Default None.
        deliberate: whether the caller annotates the image itself. Default False.
    """

    kind: ItemKind
    key: str
    size: int = 0
    etag: str = ""
    modified: datetime | None = None
    reason: str | None = None
    label: str | None = None
    type: str | None = None
    known: FileMetadata = field(default_factory=FileMetadata)
    mask: InboxItem | None = None
    regions: InboxItem | None = None
    serves_folder: bool = False
    sha256: str | None = None
    image_key: str | None = None
    author: str | None = None
    deliberate: bool = False
