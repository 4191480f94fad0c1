"""Follows the registry: a thread polls each project's alias and swaps in a new version.

A new version is fetched, verified and loaded beside the current one, and then replaces it in one assignment. On any
failure the current version stays. The served version is recorded in the cache, so that a restart needs no registry.

Processes with one journal (the server's workers) elect a leader: it polls, and writes the result to a file beside the
journal; the others follow this file and load from the cache. When the leader exits, another process takes over.
"""

import json
import logging
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.config.project import Project, load_projects
from pipelines.config.settings import settings
from pipelines.errors import InspectlineError, RegistryAway
from pipelines.registry.client import RegisteredVersion, fetch, prune
from pipelines.registry.pinning import to_serve
from pipelines.storage.files import write_atomically
from serving.metrics import REFUSED, version_gone, version_taken
from serving.models.leader_lock import LeaderLock
from serving.models.served_models import Predictor, ProjectState, RefusedVersion, Serving, load
from serving.settings import ServingSettings

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 300.0  # seconds between two attempts to load a refused version
_GLANCE_SECONDS = 1.0  # at most, between two reads of the leader's file


class Reloader:
    """Keeps `predictor` at the versions that the registry names; `start` it in the serving process, after any fork."""

    def __init__(self, predictor: Predictor, config: ServingSettings):
        self._predictor = predictor
        self._poll_seconds = config.poll_seconds
        self._threads, self._room = config.onnx_threads, config.queue
        self._note_path = config.journal / "found.json"
        self._leader_lock = LeaderLock(config.journal / "poll.lock")
        self._began = datetime.now(UTC)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._away_since: datetime | None = None
        self._tries: dict[str, tuple[RegisteredVersion, int, float]] = {}

    def start(self) -> None:
        """Load the versions recorded in the cache, and start polling."""
        self._began = datetime.now(UTC)
        self._read_projects()
        for state in self._predictor.states():
            self._recall(state)
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            pause = self._poll_seconds
            try:
                if self._leader_lock.acquire():
                    self.poll()
                    self._write_note()
                else:
                    self.follow()
                    pause = min(pause, _GLANCE_SECONDS)
            except Exception:  # nothing may end the polling
                _log.exception("a poll failed")
            self._stop.wait(max(0.02, pause - (time.monotonic() - began)))
        self._leader_lock.release()

    def _write_note(self) -> None:
        """Write the result of a poll for the other processes."""
        note = {
            state.name: {
                "registered": asdict(state.serving.registered) if state.serving else None,
                "confirmed": state.confirmed,
                "refused": state.refused and asdict(state.refused) | {"at": state.refused.at.isoformat()},
                "problem": state.problem,
                "polled_at": state.polled_at.isoformat() if state.polled_at else None,
            }
            for state in self._predictor.states()
        }
        _write(self._note_path, note)

    def follow(self) -> None:
        """Bring every project to the state that the leader has written."""
        try:
            note: dict[str, Any] = json.loads(self._note_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        self._read_projects()
        for state in self._predictor.states():
            noted = note.get(state.name, {})
            polled_at = noted.get("polled_at") and datetime.fromisoformat(noted["polled_at"])
            if not polled_at or polled_at < self._began:  # written before this process started
                continue
            registered = noted["registered"] and RegisteredVersion(**noted["registered"])
            if registered is None and state.serving is not None:
                version_gone(state.name, state.serving.version)
                state.serving = None
            elif registered and not self._has(state, registered) and self._due(registered):
                self._take(state, registered)
            refused = noted["refused"]
            if refused:
                at = datetime.fromisoformat(refused["at"])
                state.refuse(RefusedVersion(RegisteredVersion(**refused["registered"]), refused["why"], at))
            elif registered and self._has(state, registered):
                state.refused = None
            state.confirmed, state.problem = noted["confirmed"], noted["problem"]
            state.polled_at = polled_at
            self._review(state)

    def poll(self) -> None:
        """Poll the registry once for every project; once it does not answer, no other project waits for it again."""
        mistakes = self._read_projects()
        began, away = datetime.now(UTC), None
        for state in self._predictor.states():
            problem = away
            try:
                if state.project is not None and away is None:
                    problem = self._follow(state, state.project)
            except RegistryAway as error:
                self._away_since = self._away_since or began
                problem = away = f"{error}, since {self._away_since.isoformat(timespec='seconds')}"
            except InspectlineError as error:
                problem = str(error)
            except Exception as error:  # a bug in one project's package must not keep the others waiting
                problem = f"{type(error).__name__}: {error}"
            problem = mistakes.get(state.name) or problem
            if problem and state.problem != problem:
                _log.warning("cannot follow the registry", extra={"project": state.name, "why": problem})
            state.problem, state.polled_at = problem, datetime.now(UTC)
            self._review(state)
        if away is None:
            self._away_since = None

    def _review(self, state: ProjectState) -> None:
        """Follow the settings of the project file that serving alone applies."""
        if state.serving and state.project:
            state.serving = state.serving.following(state.project)

    def _read_projects(self) -> dict[str, str]:
        """Read the project files, add and remove projects, and return the error of each invalid file by project.

        A project whose file has become invalid keeps its last valid configuration.
        """
        files = load_projects()
        mistakes: dict[str, str] = {}
        for name, project in files.items():
            state = self._predictor.add(name)
            if isinstance(project, Project):
                state.project = project
            else:
                mistakes[name] = str(project)
        for state in self._predictor.states():
            if state.name not in files:
                self._predictor.drop(state.name)
        return mistakes

    def _follow(self, state: ProjectState, project: Project) -> str | None:
        """Bring one project to the version that the registry names; return why that is not possible, or None."""
        registered = to_serve(state.name, project.serve)
        if registered is None:
            if state.serving and not state.confirmed:
                # Recalled from the cache, and not confirmed: from another registry, or from before it was emptied.
                version_gone(state.name, state.serving.version)
                state.serving = None
            missing = "champion" if project.serve == "champion" else "version"
            if state.serving:
                return (
                    f"the registry names no {missing} of {state.name} any more; version {state.serving.version} stays"
                )
            return f"there is no {missing} yet; train and promote a model"
        if self._has(state, registered):
            state.confirmed, state.refused = True, None
        elif self._due(registered):
            self._take(state, registered)
        return None

    def _take(self, state: ProjectState, registered: RegisteredVersion) -> None:
        began = time.monotonic()
        try:
            folder = fetch(registered)
            serving = self._load(state, registered, folder)
        except Exception as error:  # whatever is wrong with the new version, the old one stays
            why = str(error) if isinstance(error, InspectlineError) else f"{type(error).__name__}: {error}"
            tries = self._tries.get(state.name, (registered, 0, 0.0))[1] + 1
            pause = min(_LONGEST_PAUSE, self._poll_seconds * 2 ** min(tries, 12))
            self._tries[state.name] = (registered, tries, time.monotonic() + pause)
            state.refuse(RefusedVersion(registered, why))
            REFUSED.labels(state.name).inc()
            _log.warning("version refused", extra={"project": state.name, "version": registered.version, "why": why})
            return
        before = state.serving
        state.serving = serving
        state.confirmed, state.refused = True, None
        self._tries.pop(state.name, None)
        self._remember(state.name, registered, folder)
        prune(folder)
        version_taken(state.name, registered.version, before.version if before else None)
        _log.info(
            "version taken",
            extra={
                "project": state.name,
                "version": registered.version,
                "before": before.version if before else None,
                "task": serving.model.task,
                "threshold": serving.model.report()["threshold"],
                "ms": round((time.monotonic() - began) * 1000),
            },
        )

    def _load(self, state: ProjectState, registered: RegisteredVersion, folder: Path) -> Serving:
        serving = load(registered, folder, self._threads, self._room)
        return serving.following(state.project) if state.project else serving

    @staticmethod
    def _has(state: ProjectState, registered: RegisteredVersion) -> bool:
        """Return whether exactly this version serves."""
        return state.serving is not None and _same(registered, state.serving.registered)

    def _due(self, registered: RegisteredVersion) -> bool:
        """Return whether to try this version now; a refused version is retried with exponential backoff."""
        tried = self._tries.get(registered.project)
        if tried is None:
            return True
        if not _same(tried[0], registered):
            del self._tries[registered.project]
            return True
        return time.monotonic() >= tried[2]

    def _remember(self, name: str, registered: RegisteredVersion, folder: Path) -> None:
        note = {"tracking_uri": settings().tracking_uri, "folder": str(folder), "registered": asdict(registered)}
        try:
            _write(_pointer(name), note)
        except OSError as error:
            _log.warning("the cache cannot note what serves", extra={"project": name, "why": str(error)})

    def _recall(self, state: ProjectState) -> None:
        """Serve the version recorded in the cache, until the registry names another."""
        try:
            note: dict[str, Any] = json.loads(_pointer(state.name).read_text(encoding="utf-8"))
            if note["tracking_uri"] != settings().tracking_uri:
                return
            registered = RegisteredVersion(**note["registered"])
            state.serving = self._load(state, registered, Path(note["folder"]))
            version_taken(state.name, registered.version, None)
            _log.info("version recalled", extra={"project": state.name, "version": registered.version})
        except FileNotFoundError:
            return
        except Exception as error:  # a damaged cache is only a slower start
            _log.warning("the cache is of no use", extra={"project": state.name, "why": str(error)})


def _write(path: Path, note: dict[str, Any]) -> None:
    """Write JSON atomically; several processes may write the same path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(note))


def _same(version: RegisteredVersion, other: RegisteredVersion) -> bool:
    return (version.project, version.version, version.digest) == (other.project, other.version, other.digest)


def _pointer(name: str) -> Path:
    return settings().cache / "serving" / f"{name}.json"
