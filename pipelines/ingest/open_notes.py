"""Keep what ingest has to say to the senders of images until the next mail about a training says it.

Ingest runs every few minutes and sends no mail of its own; its reports are read by few.
"""

import json
import re
from collections.abc import Iterable, Sequence

from pipelines.errors import NotFound
from pipelines.storage import keys
from pipelines.storage.s3 import Storage

_MOST = 100


def remember(storage: Storage, project: str, lines: Sequence[str], read: Iterable[str] = ()) -> None:
    """Add `lines` to the notes; of lines that differ in their counts only, the latest stays.

    Args:
        storage: the project's bucket.
        project: name of the project.
        lines: one-line messages, of which the first hundred of all that are open are kept.
        read: paths of the index files that were read anew: what was noted of them before does not hold any more.

    Raises:
        StorageError: S3 is unavailable.
    """
    before = open_notes(storage, project)
    again = tuple(f"{path} " for path in read)
    kept = [line for line in before if not line.startswith(again)] if again else before
    notes = {_kind(line): line for line in [*kept, *lines]}
    after = list(notes.values())[:_MOST]
    if after != before:
        storage.put(_key(project), json.dumps(after).encode(), "application/json")


def open_notes(storage: Storage, project: str) -> list[str]:
    """Return the notes that no mail has said yet.

    Raises:
        StorageError: S3 is unavailable.
    """
    try:
        notes = json.loads(storage.get(_key(project)))
    except (NotFound, ValueError):
        return []
    return [str(note) for note in notes] if isinstance(notes, list) else []


def forget(storage: Storage, project: str, lines: Iterable[str]) -> None:
    """Drop `lines`, which have been said.

    Raises:
        StorageError: S3 is unavailable.
    """
    before, said = open_notes(storage, project), set(lines)
    if after := [line for line in before if line not in said]:
        storage.put(_key(project), json.dumps(after).encode(), "application/json")
    elif before:
        storage.delete(_key(project))


def _key(project: str) -> str:
    return keys.ingest_state(project, "notes")


def _kind(line: str) -> str:
    return re.sub(r"\d+", "#", line.partition(": ")[0])
