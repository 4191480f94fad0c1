"""The model that answers, for each project: an immutable snapshot, so that a version and its threshold never part.

A request takes the snapshot once and does everything with it; the polling thread replaces the whole.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadPackage
from pipelines.package import Package
from pipelines.project import Project
from pipelines.registry_client import RegisteredVersion
from pipelines.score import Scored, score

_REFUSALS = 20
_PROBE_TOLERANCE = 1e-3  # besides the package's own: another processor rounds differently


@dataclass(frozen=True)
class Serving:
    """One loaded version: what was registered, and the package with its threshold and its session."""

    registered: RegisteredVersion
    package: Package
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def version(self) -> str:
        """The registered version's number."""
        return self.registered.version

    @property
    def threshold(self) -> float:
        """An image is called anomalous when its score is above this."""
        return self.package.card.threshold

    def judge(self, pixels: NDArray[np.uint8]) -> tuple[Scored, bool]:
        """Score one image, uint8 [H, W, 3] RGB, and tell whether it is anomalous."""
        scored = score(self.package, [pixels])[0]
        return scored, scored.score > self.threshold


@dataclass(frozen=True)
class RefusedVersion:
    """A version that was not taken, and why."""

    registered: RegisteredVersion
    why: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class ProjectState:
    """What serving knows of one project; written by the polling thread alone, each field replaced as a whole."""

    name: str
    project: Project | None = None
    serving: Serving | None = None
    polled_at: datetime | None = None
    problem: str | None = None
    refused: RefusedVersion | None = None
    refusals: tuple[RefusedVersion, ...] = ()  # all of this process's life, each version once, the newest last
    confirmed: bool = False  # by the registry, in this process's life; not only remembered by the cache

    def refuse(self, version: RefusedVersion) -> None:
        """Note a version that is not taken."""
        others = (one for one in self.refusals if one.registered != version.registered)
        self.refused, self.refusals = version, (*others, version)[-_REFUSALS:]

    def report(self) -> dict[str, Any]:
        """Return the state as `/status` shows it."""
        serving, refused = self.serving, self.refused
        return {
            "project": self.name,
            "status": "serving" if serving else "waiting",
            "model": self.name,
            "version": serving.version if serving else None,
            "threshold": serving.threshold if serving else None,
            "threshold_policy": serving.package.card.threshold_policy if serving else None,
            "dataset_version": serving.package.card.version_id if serving else None,
            "serving_since": _text(serving.since) if serving else None,
            "last_poll": {"at": _text(self.polled_at), "problem": self.problem},
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
        """Return one project's state, made new if there is none."""
        with self._lock:
            return self._states.setdefault(name, ProjectState(name))

    def drop(self, name: str) -> None:
        """Forget a project whose file is gone."""
        with self._lock:
            self._states.pop(name, None)


def load(registered: RegisteredVersion, folder: Path, threads: int) -> Serving:
    """Open the package in `folder`, run it on its stored examples, and return it ready to answer.

    Raises:
        BadPackage: incomplete, altered, another project's, or it does not compute what was stored.
    """
    package = Package.open(folder, threads=threads)
    if registered.digest and package.digest != registered.digest:
        raise BadPackage(f"{folder}: digest {package.digest[:12]}… is not that registered; fetch the package again")
    if package.card.project != registered.project:
        raise BadPackage(f"{folder}: made for project {package.card.project}; register it there")
    _check_on_examples(package)
    return Serving(registered, package)


def _check_on_examples(package: Package) -> None:
    """Score the package's stored examples, or else a probe of our own, so that no request is the first to try it."""
    examples = package.examples
    if not examples:
        side = package.card.input_size
        ramp = np.linspace(0, 255, side).astype(np.uint8)
        score(package, [np.dstack([np.broadcast_to(ramp, (side, side))] * 3)])
        return
    tolerance = package.card.onnx_tolerance + _PROBE_TOLERANCE * package.card.threshold
    for stored, scored in zip(package.reference["score"], score(package, examples), strict=False):
        if abs(float(stored) - scored.score) > tolerance:
            raise BadPackage(
                f"{package.folder}: scores a stored example {scored.score:.6g} instead of {float(stored):.6g}; "
                "export the model again"
            )


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
