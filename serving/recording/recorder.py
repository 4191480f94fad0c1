"""Moves predictions from the journal to storage: the image to S3, then the row to the catalogue.

Both steps are idempotent (the key is the image's hash, the row's `request_id` is unique), so a kill at any moment
neither loses nor duplicates a prediction. While S3 or the database is away, the journal grows.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pipelines.config.project import load_project
from pipelines.errors import CatalogueError, SettingsError, StorageError
from pipelines.storage.s3 import Storage
from serving import catalogue
from serving.models.leader_lock import LeaderLock
from serving.recording.journal import Entry, Journal

_log = logging.getLogger(__name__)
_BATCH = 50
_IDLE_SECONDS = 1.0
_GATHER_SECONDS = 0.5  # one transaction for a batch costs a tenth of one transaction for each prediction
_LONGEST_PAUSE = 30.0
_REMEMBERED = 4096  # images uploaded lately, which need no second upload


class Recorder:
    """The thread that drains `journal`; processes with one journal elect a leader that does it."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._leader_lock = LeaderLock(journal.path.with_name("recorder.lock"))
        self._pauses: dict[str, tuple[int, float]] = {}  # by project: failures in a row, when to try again
        self._stored: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.problem: str | None = None

    def start(self) -> None:
        """Start draining the journal, including entries of an earlier process."""
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Stop after a last round, within `seconds`; remaining entries wait for the next start."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(seconds)
        self._leader_lock.release()

    def nudge(self) -> None:
        """Wake the thread: the journal has a new entry."""
        self._wake.set()

    def _run(self) -> None:
        last_round = False
        while True:
            moved = 0
            try:
                if self._leader_lock.acquire():
                    moved = self.round()
            except Exception as error:  # no error may end the thread
                _log.exception("moving predictions failed")
                self.problem = _reason(error)
            if last_round:
                return
            last_round = self._stop.is_set()
            if not moved and not last_round:
                self._wake.wait(_IDLE_SECONDS)
                self._wake.clear()
            if not last_round:
                self._stop.wait(_GATHER_SECONDS if moved < _BATCH else 0)

    def round(self) -> int:
        """Move one batch and return how many entries were moved."""
        paused = {project for project, (_, until) in self._pauses.items() if time.monotonic() < until}
        by_project: dict[str, list[Entry]] = {}
        for entry in self._journal.read(_BATCH, paused):
            by_project.setdefault(entry.project, []).append(entry)
        return sum(self._move(project, entries) for project, entries in by_project.items())

    def _move(self, project: str, entries: list[Entry]) -> int:
        moved: list[Entry] = []
        try:
            for entry in entries:
                self._store(entry)
            entered = self._enter(entries)
            self._propose(project, entered)
            moved = entered
            self._pauses.pop(project, None)
            self.problem = None
        except Exception as error:  # S3 or the database is unavailable or not set up: only this project waits
            failures = self._pauses.get(project, (0, 0.0))[0] + 1
            self._pauses[project] = (failures, time.monotonic() + min(_LONGEST_PAUSE, 0.5 * 2 ** min(failures, 10)))
            if failures == 1:
                _log.warning("predictions wait in the journal", extra={"project": project, "why": str(error)})
            self.problem = _reason(error)
        self._journal.remove(moved)
        return len(moved)

    def _store(self, entry: Entry) -> None:
        place = (entry.bucket, entry.prediction["image_key"])
        if place not in self._stored:
            Storage(entry.bucket).put_small(entry.prediction["image_key"], entry.image, entry.content_type)
            self._stored[place] = None
            while len(self._stored) > _REMEMBERED:
                self._stored.popitem(last=False)

    def _enter(self, entries: list[Entry]) -> list[Entry]:
        """Insert the rows, and return the entries that can be removed from the journal."""
        try:
            catalogue.enter([row(entry) for entry in entries])
            return entries
        except (catalogue.DataError, catalogue.IntegrityError) as error:
            # The database rejects a row, which must not block the others.
            if len(entries) == 1:
                _log.exception("the catalogue refuses a prediction", extra={"project": entries[0].project})
                self._journal.set_aside(entries[0], f"{type(error).__name__}: {error}"[:1000])
                return []
            return [done for entry in entries for done in self._enter([entry])]

    def _propose(self, project: str, entries: list[Entry]) -> None:
        """Enter proposed annotations; entries stay in the journal until that is done, and are entered once."""
        rows = [(row(entry), entry.image) for entry in entries if entry.prediction.get("answer")]
        if not rows:
            return
        try:
            rules = load_project(project)
            catalogue.propose(rules, rows)
        except SettingsError:  # said by /status; predictions are recorded all the same
            return
        except (StorageError, CatalogueError):
            raise
        except Exception:  # a proposal is worth less than the journal's progress
            _log.exception("no annotation is proposed", extra={"project": project})


def _reason(error: Exception) -> str:
    """Return a public description of an error, without the names of hosts and users."""
    if isinstance(error, StorageError):
        return "S3 takes no images; the log tells more"
    if isinstance(error, CatalogueError):
        return "the catalogue takes no predictions; the log tells more"
    return f"{type(error).__name__}; the log tells more"


def row(entry: Entry) -> dict[str, Any]:
    """Return the entry as a row of the catalogue's predictions."""
    instants: dict[str, Callable[[str], datetime]] = dict.fromkeys(("created_at", "expires_at"), datetime.fromisoformat)
    prediction = {key: instants.get(key, lambda value: value)(value) for key, value in entry.prediction.items()}
    return prediction | {"project": entry.project, "embedding": entry.embedding}
