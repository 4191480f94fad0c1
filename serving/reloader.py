"""Follows the registry: a thread that polls each project's alias and puts a new version in the old one's place.

A new version is fetched, checked and loaded beside the old one; only then does it take its place, in one assignment.
Whatever fails, the old one stays. What serves is noted in the cache, so that a restart needs no registry.
"""

import json
import logging
import threading
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.errors import InspectlineError
from pipelines.project import Project, load_projects
from pipelines.registry_client import RegisteredVersion, fetch, prune
from pipelines.registry_hold import to_serve
from pipelines.settings import settings
from serving.predictor import Predictor, ProjectState, RefusedVersion, load

_log = logging.getLogger(__name__)
_LONGEST_PAUSE = 300.0  # seconds between two tries of a version that was refused


class Reloader:
    """Keeps `predictor` at what the registry names; `start` it in the process that serves, after any fork."""

    def __init__(self, predictor: Predictor, poll_seconds: float, onnx_threads: int):
        self._predictor = predictor
        self._poll_seconds = poll_seconds
        self._threads = onnx_threads
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._tries: dict[str, tuple[RegisteredVersion, int, float]] = {}

    def start(self) -> None:
        """Load what the cache remembers, at once, and begin to poll."""
        self._read_projects()
        for state in self._predictor.states():
            self._recall(state)
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Poll no more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.poll()
            except Exception:  # nothing may end the polling
                _log.exception("a poll failed")
            self._stop.wait(max(0.02, self._poll_seconds - (time.monotonic() - began)))

    def poll(self) -> None:
        """Ask the registry once about every project."""
        mistakes = self._read_projects()
        for state in self._predictor.states():
            problem = None
            try:
                if state.project is not None:
                    problem = self._follow(state, state.project)
            except InspectlineError as error:
                problem = str(error)
            except Exception as error:  # a bug in one project's package must not keep the others waiting
                problem = f"{type(error).__name__}: {error}"
            problem = mistakes.get(state.name) or problem
            if problem and state.problem != problem:
                _log.warning("cannot follow the registry", extra={"project": state.name, "why": problem})
            state.problem, state.polled_at = problem, datetime.now(UTC)

    def _read_projects(self) -> dict[str, str]:
        """Follow the project files: a second line is one more file, and a wrong one, returned, stops no other.

        A project whose file has become wrong goes on by its last good one.
        """
        found = load_projects()
        mistakes: dict[str, str] = {}
        for name, project in found.items():
            state = self._predictor.add(name)
            if isinstance(project, Project):
                state.project = project
            else:
                mistakes[name] = str(project)
        for state in self._predictor.states():
            if state.name not in found:
                self._predictor.drop(state.name)
        return mistakes

    def _follow(self, state: ProjectState, project: Project) -> str | None:
        """Bring one project to what the registry names; return what keeps it from being followed, or None."""
        registered = to_serve(state.name, project.serve)
        if registered is None:
            if state.serving and not state.confirmed:
                # Known from the cache alone: that was another registry's, or an earlier life of this one.
                state.serving = None
            missing = "champion" if project.serve == "champion" else "version"
            if state.serving:
                return (
                    f"the registry names no {missing} of {state.name} any more; version {state.serving.version} stays"
                )
            return f"there is no {missing} yet; train and promote a model"
        if state.serving and _same(registered, state.serving.registered):
            state.confirmed, state.refused = True, None
        elif self._due(registered):
            self._take(state, registered)
        return None

    def _take(self, state: ProjectState, registered: RegisteredVersion) -> None:
        began = time.monotonic()
        try:
            folder = fetch(registered)
            serving = load(registered, folder, self._threads)
        except Exception as error:  # whatever is wrong with the new version, the old one stays
            why = str(error) if isinstance(error, InspectlineError) else f"{type(error).__name__}: {error}"
            tries = self._tries.get(state.name, (registered, 0, 0.0))[1] + 1
            pause = min(_LONGEST_PAUSE, self._poll_seconds * 2 ** min(tries, 12))
            self._tries[state.name] = (registered, tries, time.monotonic() + pause)
            state.refuse(RefusedVersion(registered, why))
            _log.warning("version refused", extra={"project": state.name, "version": registered.version, "why": why})
            return
        before = state.serving
        state.serving = serving
        state.confirmed, state.refused = True, None
        self._tries.pop(state.name, None)
        self._remember(state.name, registered, folder)
        prune(folder)
        _log.info(
            "version taken",
            extra={
                "project": state.name,
                "version": registered.version,
                "before": before.version if before else None,
                "threshold": serving.threshold,
                "ms": round((time.monotonic() - began) * 1000),
            },
        )

    def _due(self, registered: RegisteredVersion) -> bool:
        """Tell whether to try this version now: one that was refused is tried again after growing pauses."""
        tried = self._tries.get(registered.project)
        if tried is None:
            return True
        if not _same(tried[0], registered):
            del self._tries[registered.project]
            return True
        return time.monotonic() >= tried[2]

    def _remember(self, name: str, registered: RegisteredVersion, folder: Path) -> None:
        note = {"tracking_uri": settings().tracking_uri, "folder": str(folder), "registered": asdict(registered)}
        path = _pointer(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(note), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            _log.warning("the cache cannot note what serves", extra={"project": name, "why": str(error)})

    def _recall(self, state: ProjectState) -> None:
        """Serve what served last, until the registry says otherwise."""
        try:
            note: dict[str, Any] = json.loads(_pointer(state.name).read_text(encoding="utf-8"))
            if note["tracking_uri"] != settings().tracking_uri:
                return
            registered = RegisteredVersion(**note["registered"])
            state.serving = load(registered, Path(note["folder"]), self._threads)
            _log.info("version recalled", extra={"project": state.name, "version": registered.version})
        except FileNotFoundError:
            return
        except Exception as error:  # a damaged cache is only a slower start
            _log.warning("the cache is of no use", extra={"project": state.name, "why": str(error)})


def _same(one: RegisteredVersion, other: RegisteredVersion) -> bool:
    return (one.project, one.version, one.digest) == (other.project, other.version, other.digest)


def _pointer(name: str) -> Path:
    return settings().cache / "serving" / f"{name}.json"
