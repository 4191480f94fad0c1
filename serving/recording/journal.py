"""The local journal (a write-ahead log): each prediction is written to it before it is answered.

SQLite in WAL mode; entries that queue while a batch is written form the next batch (`serving.models.batching`). Several
processes may share one journal. A killed process loses nothing that was handed to the operating system; after a power
failure the predictions of the last seconds may be missing, unless every batch is `synced` to disk.
"""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import InspectlineError
from serving.models.batching import Batches, Late

_BATCH = 64
_ROOM = 1 << 16  # more than can queue: each entry belongs to a request in progress
_WAIT_SECONDS = 15.0  # for batches that other threads write; the writing thread itself has no timeout
_LOCKED_SECONDS = 5.0  # for another process's transaction
_PAGE = 4096
_READ_BYTES = 16 << 20  # of images, in memory at a time
_TABLE = """
CREATE TABLE IF NOT EXISTS waiting (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  project TEXT NOT NULL,
  bucket TEXT NOT NULL,
  content_type TEXT NOT NULL,
  problem TEXT,                -- why the catalogue rejects this prediction
  prediction TEXT NOT NULL,    -- the catalogue's columns except embedding, as JSON
  embedding BLOB NOT NULL,     -- float32, little-endian
  image BLOB NOT NULL          -- last: columns after a long value are slow to read
)
"""


class JournalError(InspectlineError):
    """The journal cannot store a prediction: the disk is full or fails."""

    passing = True


@dataclass(frozen=True)
class Entry:
    """One prediction that is not in the catalogue yet.

    Attributes:
        project: the project's name.
        prediction: the catalogue's columns except `project` and `embedding`, as JSON values.
        embedding: float32, little-endian.
        bucket: the bucket for the image, which is stored there as `prediction["image_key"]`.
        content_type: of the image.
        image: the image's bytes as they were received.
        id: the entry's number in the journal; 0 before it is written.
    """

    project: str
    prediction: dict[str, Any]
    embedding: bytes
    bucket: str
    content_type: str
    image: bytes
    id: int = 0


class Journal:
    """The journal in `folder`, of at most `max_bytes`; `start` it in the process that writes, after any fork.

    With `synced`, each batch is flushed to disk before its predictions are answered.
    """

    def __init__(self, folder: Path, max_bytes: int, synced: bool = False):
        self.path = folder / "predictions.db"
        self._max_pages = max(16, max_bytes // _PAGE)
        self._synchronous = "FULL" if synced else "NORMAL"
        self._batches: Batches[Entry | None, Exception | None] = Batches(self._write, most=_BATCH, room=_ROOM)
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        """Create the folder and the file if they are missing; a full disk is no error yet."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be opened ({error}); check INSPECTLINE_JOURNAL") from error
        with suppress(sqlite3.Error):
            self._opened().close()

    def stop(self) -> None:
        """Write the queued entries, and close the file."""
        with suppress(Late):
            self._batches.result(None, _WAIT_SECONDS)

    def append(self, entry: Entry) -> None:
        """Write an entry, and return once it is stored.

        Raises:
            JournalError: it is not stored.
        """
        try:
            problem = self._batches.result(entry, _WAIT_SECONDS)
        except Late as error:
            # It may still be written later: a stored prediction without an answer does no harm.
            raise self._refused(f"no answer from the disk within {_WAIT_SECONDS:g} s") from error
        if isinstance(problem, sqlite3.Error):
            raise self._refused(str(problem)) from problem
        if problem is not None:
            raise problem

    def read(self, limit: int, skipping: set[str]) -> list[Entry]:
        """Return the oldest entries, without the projects in `skipping` and without entries set aside."""
        marks = ",".join("?" * len(skipping))
        query = (
            "SELECT project, prediction, embedding, bucket, content_type, image, id FROM waiting "  # noqa: S608
            f"WHERE problem IS NULL AND project NOT IN ({marks}) ORDER BY id LIMIT ?"
        )
        entries: list[Entry] = []
        size = 0
        with closing(self._connect()) as connection:
            for project, prediction, embedding, bucket, content_type, image, number in connection.execute(
                query, (*skipping, limit)
            ):
                entries.append(Entry(project, json.loads(prediction), embedding, bucket, content_type, image, number))
                size += len(image)
                if size > _READ_BYTES:
                    break
        return entries

    def remove(self, entries: list[Entry]) -> None:
        """Remove entries that have been stored elsewhere."""
        self._change("DELETE FROM waiting WHERE id = ?", [(entry.id,) for entry in entries])

    def set_aside(self, entry: Entry, problem: str) -> None:
        """Mark an entry that the catalogue rejects, so that it does not block others."""
        self._change("UPDATE waiting SET problem = ? WHERE id = ?", [(problem, entry.id)])

    def holds(self, project: str, name: str, value: str) -> bool:
        """Return whether a prediction of `project` whose field `name` equals `value` is in the journal."""
        query = "SELECT 1 FROM waiting WHERE project = ? AND json_extract(prediction, ?) = ? LIMIT 1"
        with closing(self._connect()) as connection:
            return connection.execute(query, (project, f"$.{name}", value)).fetchone() is not None

    def counts(self) -> dict[str, int]:
        """Return the number of entries that wait, and of those set aside."""
        try:
            with closing(self._connect()) as connection:
                waiting, aside = connection.execute(
                    "SELECT count(*) - count(problem), count(problem) FROM waiting"
                ).fetchone()
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}: cannot be read ({error}); check its disk") from error
        return {"waiting": int(waiting), "set_aside": int(aside)}

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_LOCKED_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _change(self, statement: str, parameters: list[tuple[Any, ...]]) -> None:
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, parameters)
            connection.execute("COMMIT")

    def _refused(self, reason: str) -> JournalError:
        return JournalError(f"the journal {self.path} takes no prediction: {reason}; make room on its disk")

    def _write(self, handed: Sequence[Entry | None]) -> list[Exception | None]:
        """Commit one batch, and return for each entry the error or None; a batch succeeds or fails as a whole.

        None among the entries closes the file. `Batches` calls this in one thread at a time.
        """
        entries = [entry for entry in handed if entry is not None]
        problem = None
        try:
            if entries:
                self._connection = self._connection or self._opened()
                self._commit(self._connection, entries)
        except Exception as error:  # passed on to every caller of the batch
            problem = error
        if len(entries) < len(handed) and self._connection is not None:
            self._connection.close()
            self._connection = None
        return [problem] * len(handed)

    def _opened(self) -> sqlite3.Connection:
        """Return a connection to the file, with its table created."""
        connection = self._connect()
        try:
            connection.execute(_TABLE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _commit(self, connection: sqlite3.Connection, entries: list[Entry]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT INTO waiting (project, prediction, embedding, bucket, content_type, image) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        entry.project,
                        json.dumps(entry.prediction),
                        entry.embedding,
                        entry.bucket,
                        entry.content_type,
                        entry.image,
                    )
                    for entry in entries
                ],
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
