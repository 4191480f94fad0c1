"""The local journal: predictions are kept in it before they are answered, whatever becomes of the process.

SQLite in WAL mode; what queues up while a batch is being written forms the next batch (`serving.models.batching`).
Several processes may share one journal. A killed process loses nothing that the operating system has taken; a machine
that loses power may lose the answers of its last seconds that had not reached the database, unless every batch is
`synced` to disk.
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
_ROOM = 1 << 16  # more than ever wait: each is a request under way
_WAIT_SECONDS = 15.0  # for others that write; the disk itself may hold up the one that writes for longer
_LOCKED_SECONDS = 5.0  # for another process
_PAGE = 4096
_READ_BYTES = 16 << 20  # of images, in memory at a time
_TABLE = """
CREATE TABLE IF NOT EXISTS waiting (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  project TEXT NOT NULL,
  bucket TEXT NOT NULL,
  content_type TEXT NOT NULL,
  problem TEXT,                -- why the catalogue does not take this one
  prediction TEXT NOT NULL,    -- the catalogue's columns but embedding, as JSON
  embedding BLOB NOT NULL,     -- float32, little-endian
  image BLOB NOT NULL          -- last: what comes after a long value is slow to read
)
"""


class JournalError(InspectlineError):
    """The journal cannot take a prediction: the disk is full or fails."""

    passing = True


@dataclass(frozen=True)
class Entry:
    """One prediction on its way to the catalogue, with its image on its way to S3 as `prediction["image_key"]`."""

    project: str
    prediction: dict[str, Any]
    embedding: bytes
    bucket: str
    content_type: str
    image: bytes
    id: int = 0


class Journal:
    """The journal in `folder`, of at most `max_bytes`; `start` it in the process that writes, after any fork.

    `synced`: an entry is kept once the disk has it, and not once the operating system has.
    """

    def __init__(self, folder: Path, max_bytes: int, synced: bool = False):
        self.path = folder / "predictions.db"
        self._max_pages = max(16, max_bytes // _PAGE)
        self._synchronous = "FULL" if synced else "NORMAL"
        self._batches: Batches[Entry | None, Exception | None] = Batches(self._write, most=_BATCH, room=_ROOM)
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        """Make the folder and the file if need be; a disk that is full now may have room later."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be opened ({error}); check INSPECTLINE_JOURNAL") from error
        with suppress(sqlite3.Error):
            self._opened().close()

    def stop(self) -> None:
        """Write what has been handed in, and close the file."""
        with suppress(Late):
            self._batches.result(None, _WAIT_SECONDS)

    def append(self, entry: Entry) -> None:
        """Return once the entry is kept.

        Raises:
            JournalError: it is not, and will not be.
        """
        try:
            problem = self._batches.result(entry, _WAIT_SECONDS)
        except Late as error:
            # It may yet be written: then it is kept though nobody was told, which harms nothing.
            raise self._refused(f"no answer from the disk within {_WAIT_SECONDS:g} s") from error
        if isinstance(problem, sqlite3.Error):
            raise self._refused(str(problem)) from problem
        if problem is not None:
            raise problem

    def read(self, limit: int, skipping: set[str]) -> list[Entry]:
        """Return the oldest entries, but none of the projects in `skipping` nor any that was set aside."""
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
        """Forget entries that are where they belong."""
        self._change("DELETE FROM waiting WHERE id = ?", [(entry.id,) for entry in entries])

    def set_aside(self, entry: Entry, problem: str) -> None:
        """Keep an entry that can never be entered, so that it holds up no other."""
        self._change("UPDATE waiting SET problem = ? WHERE id = ?", [(problem, entry.id)])

    def holds(self, project: str, name: str, value: str) -> bool:
        """Tell whether a prediction of `project` whose `name` is `value` waits here."""
        query = "SELECT 1 FROM waiting WHERE project = ? AND json_extract(prediction, ?) = ? LIMIT 1"
        with closing(self._connect()) as connection:
            return connection.execute(query, (project, f"$.{name}", value)).fetchone() is not None

    def counts(self) -> dict[str, int]:
        """Return how many entries wait, and how many were set aside."""
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
        """Commit one batch, and return for each entry why it is not kept; all share one fate. None closes the file.

        Of those that call this, each in its own thread, one at a time writes.
        """
        entries = [entry for entry in handed if entry is not None]
        problem = None
        try:
            if entries:
                self._connection = self._connection or self._opened()
                self._commit(self._connection, entries)
        except Exception as error:  # every one that waits must be told
            problem = error
        if len(entries) < len(handed) and self._connection is not None:
            self._connection.close()
            self._connection = None
        return [problem] * len(handed)

    def _opened(self) -> sqlite3.Connection:
        """Return a connection to a file that has its table."""
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
                    (one.project, json.dumps(one.prediction), one.embedding, one.bucket, one.content_type, one.image)
                    for one in entries
                ],
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
