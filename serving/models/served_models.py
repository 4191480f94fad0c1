"""The model that answers, for each project: an immutable snapshot, so that a version and its threshold never part.

A request takes the snapshot once and does everything with it; the polling thread replaces the whole. Requests that
come while the graph runs share its next run; each version has a queue of its own.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.project import Project
from pipelines.errors import BadPackage
from pipelines.registry.client import RegisteredVersion
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import Prediction, PreparedImage, predict, predict_prepared
from pipelines.tasks.anomaly.threshold import conformal
from serving.limits.prediction_cache import Recent
from serving.metrics import batches_told
from serving.models.batching import Batches

_REFUSALS = 20
# Images in one run: more take no less time each, and let the first of them wait for the last. Four would take 30 MB
# less, and a tenth more time.
MOST_AT_ONCE = 8
REMEMBERED = 1024  # images whose answers are kept, for each version
_PROBE_TOLERANCE = 1e-3  # besides the package's own: another processor rounds differently


@dataclass(frozen=True)
class Judgement:
    """What a version says of a score."""

    is_anomaly: bool
    p_value: float
    verdict: str  # good | review | anomaly


@dataclass(frozen=True)
class Serving:
    """One loaded version: what was registered, and the package with its threshold, its session and its queue.

    `validation` holds the sorted scores of the good validation images; `review_threshold` is the project's second,
    lower threshold, if it asks for one; `map_limit` is the error in a map at which a score comes to its threshold.
    """

    registered: RegisteredVersion
    package: AnomalyPackage
    validation: NDArray[np.float64]
    batches: Batches[PreparedImage, Prediction]
    map_limit: float
    review_threshold: float | None = None
    recent: Recent = field(default_factory=lambda: Recent(REMEMBERED))
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def version(self) -> str:
        """The registered version's number."""
        return self.registered.version

    @property
    def threshold(self) -> float:
        """An image is called anomalous when its score is above this."""
        return self.package.card.threshold

    def score(self, image: PreparedImage) -> Prediction:
        """Score one prepared image, together with others that wait for the same.

        Raises:
            Full: too many wait already.
        """
        return self.batches.result(image)

    def judge(self, score: float) -> Judgement:
        """Tell what a score means.

        The p-value is conformal: (1 + validation scores at least as high) / (n + 1), which for a good image is at most
        p with probability p (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005, section 2.2).
        """
        n = len(self.validation)
        as_high = n - int(np.searchsorted(self.validation, score, side="left"))
        is_anomaly = score > self.threshold
        review = self.review_threshold is not None and score > self.review_threshold
        verdict = "anomaly" if is_anomaly else "review" if review else "good"
        return Judgement(is_anomaly, (1 + as_high) / (n + 1), verdict)

    def reviewing(self, rate: float | None) -> Serving:
        """Return this version with the review threshold that a share `rate` of good images lies above."""
        value = None
        if rate is not None and len(self.validation):
            value = min(self.threshold, conformal(self.validation, rate).value)
        return self if value == self.review_threshold else replace(self, review_threshold=value)


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
            "review_threshold": serving.review_threshold if serving else None,
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


def load(registered: RegisteredVersion, folder: Path, threads: int, room: int = 64) -> Serving:
    """Open the package in `folder`, run it on its stored examples, and return it ready to answer.

    `threads` may work on one run, and `room` images may wait for theirs.

    Raises:
        BadPackage: incomplete, altered, another project's, or it does not compute what was stored.
    """
    package = AnomalyPackage.open(folder, threads=threads)
    if registered.digest and package.digest != registered.digest:
        raise BadPackage(f"{folder}: digest {package.digest[:12]}… is not that registered; fetch the package again")
    if package.card.project != registered.project:
        raise BadPackage(f"{folder}: made for project {package.card.project}; register it there")
    scored = _check_on_examples(package)
    batches: Batches[PreparedImage, Prediction] = Batches(
        lambda images: predict_prepared(package, images, MOST_AT_ONCE),
        most=MOST_AT_ONCE,
        room=room,
        told=batches_told(registered.project),
    )
    validation = np.sort(package.reference["score"].astype(np.float64))
    return Serving(registered, package, validation, batches, _map_limit(package, scored))


def _check_on_examples(package: AnomalyPackage) -> list[Prediction]:
    """Score the package's stored examples, or else a probe of our own, so that no request is the first to try it."""
    examples = package.examples
    if not examples:
        side = package.card.input_size
        ramp = np.linspace(0, 255, side).astype(np.uint8)
        return predict(package, [np.dstack([np.broadcast_to(ramp, (side, side))] * 3)])
    tolerance = package.card.onnx_tolerance + _PROBE_TOLERANCE * package.card.threshold
    found = predict(package, examples)
    for stored, scored in zip(package.reference["score"], found, strict=False):
        if abs(float(stored) - scored.score) > tolerance:
            raise BadPackage(
                f"{package.folder}: scores a stored example {scored.score:.6g} instead of {float(stored):.6g}; "
                "export the model again"
            )
    return found


def _map_limit(package: AnomalyPackage, scored: list[Prediction]) -> float:
    """Return the error at which a map peaks when the score comes to the threshold: at this version's proportions.

    Where the score is the map's largest value, that is the threshold itself.
    """
    shares = [float(one.error_map.max()) / one.score for one in scored if one.score > 0]
    share = float(np.median(shares)) if shares else 1.0
    return max(package.card.threshold * share, 1e-6)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
