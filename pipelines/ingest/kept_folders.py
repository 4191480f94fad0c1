"""Keep the folders that people made in an inbox when their last file is taken in.

A server of a folder deletes a folder with its last object. Where the folder is on this machine
(INSPECTLINE_BUCKET_FOLDER), an empty one beside the objects prevents that while they are deleted; elsewhere, an empty
object `.keep` stays in each folder. S3 itself has no folders.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.config.settings import settings
from pipelines.ingest.inbox_keys import inbox_prefix
from pipelines.storage.s3 import Storage

MARKER = ".keep"
_HOLD = ".localbucket-hold-"
# Folders that an import or serving made; a name of digits alone may be somebody's date.
_OURS = re.compile(r"import-(?=[0-9]*[a-f])[0-9a-f]{8}|posted")


@contextmanager
def kept_folders(storage: Storage, project: str, keys: Iterable[str]) -> Iterator[None]:
    """Keep the inbox folders of these objects within the block, in which they are deleted.

    Raises:
        StorageError: S3 is unavailable.
    """
    folders = sorted({folder for key in keys if (folder := _folder(key, inbox_prefix(project))) is not None})
    local = settings().bucket_folder
    root = local / storage.bucket if local else None
    if not folders or (root is None and not storage.serves_folder()):
        yield
        return
    if root is None:
        for folder in folders:
            storage.put(f"{folder}/{MARKER}", b"")
        yield
        return
    held = [hold for folder in folders if (hold := _hold(root / folder)) is not None]
    try:
        yield
    finally:
        for hold in held:
            with suppress(OSError):
                hold.rmdir()


def _folder(key: str, prefix: str) -> str | None:
    """Return the innermost folder of an object that people may have made, or None outside the inbox."""
    if not key.startswith(prefix):
        return None
    parts = key.removeprefix(prefix).split("/")[:-1]
    ours = next((place for place, part in enumerate(parts) if _OURS.fullmatch(part)), len(parts))
    return (prefix + "/".join(parts[:ours])).rstrip("/")


def _hold(folder: Path) -> Path | None:
    hold = folder / f"{_HOLD}{uuid.uuid4().hex[:12]}"  # each batch its own
    try:
        hold.mkdir()
    except OSError:  # the folder is gone, or this process may not write there
        return None
    return hold
