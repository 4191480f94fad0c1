"""The local journal: predictions are kept in it before they are answered, whatever becomes of the process.

SQLite in WAL mode; what has queued while the last batch was written forms the next one. Several processes may use one
journal. A process that is killed loses nothing that the operating system has taken; a machine that loses its power may
lose what was answered in its last seconds and had not reached the database, unless every batch is `synced` to the disk.
"""

import json
import queue
import sqlite3
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import InspectlineError

_BATCH = 64
_WAIT_SECONDS = 15.0
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
        self._queue: queue.SimpleQueue[tuple[Entry, Future[None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the folder if need be, and begin to write; a disk that is full now may have room later."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be opened ({error}); check INSPECTLINE_JOURNAL") from error
        with suppress(sqlite3.Error):
            self._opened().close()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what has been handed in, and end."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_WAIT_SECONDS)
            self._thread = None

    def append(self, entry: Entry) -> None:
        """Return once the entry is kept.

        Raises:
            JournalError: it is not, and will not be.
        """
        done: Future[None] = Future()
        self._queue.put((entry, done))
        try:
            done.result(_WAIT_SECONDS)
        except (sqlite3.Error, FutureTimeout) as error:
            # One that timed out may yet be written: then it is kept though nobody was told, which harms nothing.
            reason = str(error) or f"no answer from the disk within {_WAIT_SECONDS:g} s"
            raise JournalError(
                f"the journal {self.path} takes no prediction: {reason}; make room on its disk"
            ) from error

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
        connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
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

    def _write(self) -> None:
        connection: sqlite3.Connection | None = None
        ended = False
        while not ended:
            batch = [self._queue.get()]
            while len(batch) < _BATCH and not self._queue.empty():
                batch.append(self._queue.get())
            ended = None in batch
            handed = [item for item in batch if item is not None]
            try:
                if handed:
                    connection = connection or self._opened()
                    self._commit(connection, [entry for entry, _ in handed])
            except Exception as error:  # every one that waits must be told
                for _, done in handed:
                    done.set_exception(error)
            else:
                for _, done in handed:
                    done.set_result(None)
        if connection is not None:
            connection.close()

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
