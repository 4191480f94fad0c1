"""The served model of each project: an immutable snapshot of a version with its model and queue.

A request reads the snapshot once and uses it throughout; the polling thread replaces it as a whole. Requests that
arrive while the network runs share its next run; each version has its own queue.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.config.project import Project
from pipelines.errors import BadPackage
from pipelines.images.preprocess import PreparedImage
from pipelines.registry.client import RegisteredVersion
from pipelines.registry.package import Package
from serving.limits.prediction_cache import PredictionCache
from serving.metrics import batch_observer
from serving.models.batching import Batches
from serving.tasks import MOST_AT_ONCE, NOTHING_SERVED, ServedModel, open_model

_REFUSALS = 20
REMEMBERED = 1024  # cached predictions for each version


@dataclass(frozen=True)
class Serving:
    """One loaded version.

    Attributes:
        registered: the version's entry in the registry.
        model: the version's model, behind the interface of its task.
        batches: the queue of images for the network.
        cache: the predictions of the images judged most recently.
        since: when the version was loaded, in UTC.
    """

    registered: RegisteredVersion
    model: ServedModel
    batches: Batches[PreparedImage, Any]
    cache: PredictionCache = field(default_factory=lambda: PredictionCache(REMEMBERED))
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def version(self) -> str:
        """The number of the registered version."""
        return self.registered.version

    @property
    def package(self) -> Package:
        """The model package, with its ONNX Runtime session."""
        return self.model.package

    def predict(self, image: PreparedImage) -> Any:
        """Return the network's output for one prepared image, in a batch with others that are queued.

        Raises:
            Full: the queue is full.
        """
        return self.batches.result(image)

    def following(self, project: Project) -> Serving:
        """Return this version with the settings of the project file that serving alone applies."""
        model = self.model.following(project)
        return self if model is self.model else replace(self, model=model)


@dataclass(frozen=True)
class RefusedVersion:
    """A version that was refused.

    Attributes:
        registered: the version's entry in the registry.
        why: the reason, in one line.
        at: when it was refused, in UTC.
    """

    registered: RegisteredVersion
    why: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class ProjectState:
    """The state of one project; only the polling thread writes it, and it replaces each field as a whole.

    Attributes:
        name: the project's name.
        project: the content of the project file; None until it has been read.
        serving: the version that answers; None if there is none.
        polled_at: when the registry was last polled, in UTC.
        problem: why the registry cannot be followed; None if it can.
        refused: the version that is refused now; None if the registry's version serves.
        refusals: the versions refused since the process started, each once, the newest last.
        confirmed: whether the registry has named the served version since the process started; False for a version
            recalled from the cache.
    """

    name: str
    project: Project | None = None
    serving: Serving | None = None
    polled_at: datetime | None = None
    problem: str | None = None
    refused: RefusedVersion | None = None
    refusals: tuple[RefusedVersion, ...] = ()
    confirmed: bool = False

    def refuse(self, version: RefusedVersion) -> None:
        """Record a version that is refused."""
        others = (refusal for refusal in self.refusals if refusal.registered != version.registered)
        self.refused, self.refusals = version, (*others, version)[-_REFUSALS:]

    def report(self, overdue: timedelta, started_at: datetime) -> dict[str, Any]:
        """Return the state as `/status` shows it.

        A poll that has not returned for longer than `overdue` is a problem of its own; `started_at` stands for the last
        poll until there is one.
        """
        serving, refused, polled_at = self.serving, self.refused, self.polled_at
        problem = self.problem
        if datetime.now(UTC) - (since := polled_at or started_at) > overdue:
            problem = f"no poll has returned since {_text(since)}: MLflow or S3 is slow, or does not answer"
        return {
            "project": self.name,
            "status": "serving" if serving else "waiting",
            "model": self.name,
            "version": serving.version if serving else None,
            "task": serving.model.task if serving else self.project.task if self.project else None,
            **(serving.model.report() if serving else NOTHING_SERVED),
            "dataset_version": serving.package.card.version_id if serving else None,
            "serving_since": _text(serving.since) if serving else None,
            "last_poll": {"at": _text(polled_at), "problem": problem},
            "refused": refused and {"version": refused.registered.version, "why": refused.why, "at": _text(refused.at)},
        }


class Predictor:
    """The states of all projects, by name."""

    def __init__(self) -> None:
        self._states: dict[str, ProjectState] = {}
        self._lock = threading.Lock()

    def states(self) -> list[ProjectState]:
        """Return the states of all projects, in order of name."""
        with self._lock:
            return [self._states[name] for name in sorted(self._states)]

    def state(self, name: str) -> ProjectState | None:
        """Return one project's state, or None if there is no such project."""
        with self._lock:
            return self._states.get(name)

    def add(self, name: str) -> ProjectState:
        """Return one project's state, created if there is none."""
        with self._lock:
            return self._states.setdefault(name, ProjectState(name))

    def drop(self, name: str) -> None:
        """Remove a project whose file is gone."""
        with self._lock:
            self._states.pop(name, None)


def load(registered: RegisteredVersion, folder: Path, threads: int, room: int = 64) -> Serving:
    """Open the package in `folder`, verify it on its stored examples, and return it ready to answer.

    A run of the network uses `threads` threads; at most `room` images are queued.

    Raises:
        BadPackage: the package is incomplete, altered or another project's, or does not reproduce what is stored.
    """
    opened = Package.open(folder)
    if registered.digest and opened.digest != registered.digest:
        raise BadPackage(f"{folder}: digest {opened.digest[:12]}… is not that registered; fetch the package again")
    if opened.card.project != registered.project:
        raise BadPackage(f"{folder}: made for project {opened.card.project}; register it there")
    model = open_model(folder, threads)
    batches: Batches[PreparedImage, Any] = Batches(
        model.run, most=MOST_AT_ONCE, room=room, observe=batch_observer(registered.project)
    )
    return Serving(registered, model, batches)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
