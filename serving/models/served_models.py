"""The served model of each project: an immutable snapshot of a version with its threshold, session and queue.

A request reads the snapshot once and uses it throughout; the polling thread replaces it as a whole. Requests that
arrive while the network runs share its next run; each version has its own queue.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
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
from serving.limits.prediction_cache import PredictionCache
from serving.metrics import batch_observer
from serving.models.batching import Batches

_REFUSALS = 20
# Images in one run: larger batches are no faster per image, and delay the first image. A batch of four would take 30 MB
# less memory, and a tenth more time.
MOST_AT_ONCE = 8
REMEMBERED = 1024  # cached predictions for each version
_PROBE_TOLERANCE = 1e-3  # added to the package's own: other processors round differently


@dataclass(frozen=True)
class Judgement:
    """The interpretation of a score by a version.

    Attributes:
        is_anomaly: whether the score exceeds the threshold.
        p_value: the conformal p-value of the score under good images, 0 to 1.
        verdict: `good`, `review` or `anomaly`.
    """

    is_anomaly: bool
    p_value: float
    verdict: str


@dataclass(frozen=True)
class Serving:
    """One loaded version.

    Attributes:
        registered: the version's entry in the registry.
        package: the model package, with its threshold and its ONNX Runtime session.
        validation: float64 [n], the sorted scores of the good validation images.
        batches: the queue of images to score.
        map_limit: the value in an error map that corresponds to the threshold.
        review_threshold: the project's second, lower threshold; None if it has none.
        cache: the predictions of the images judged most recently.
        since: when the version was loaded, in UTC.
    """

    registered: RegisteredVersion
    package: AnomalyPackage
    validation: NDArray[np.float64]
    batches: Batches[PreparedImage, Prediction]
    map_limit: float
    review_threshold: float | None = None
    cache: PredictionCache = field(default_factory=lambda: PredictionCache(REMEMBERED))
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def version(self) -> str:
        """The number of the registered version."""
        return self.registered.version

    @property
    def threshold(self) -> float:
        """The score above which an image is an anomaly."""
        return self.package.card.threshold

    def score(self, image: PreparedImage) -> Prediction:
        """Score one prepared image, in a batch with others that are queued.

        Raises:
            Full: the queue is full.
        """
        return self.batches.result(image)

    def judge(self, score: float) -> Judgement:
        """Return the verdict and the p-value of a score.

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
        """Return this version with the review threshold that a proportion `rate` of good images exceeds."""
        value = None
        if rate is not None and len(self.validation):
            value = min(self.threshold, conformal(self.validation, rate).value)
        return self if value == self.review_threshold else replace(self, review_threshold=value)


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
            "threshold": serving.threshold if serving else None,
            "review_threshold": serving.review_threshold if serving else None,
            "threshold_policy": serving.package.card.threshold_policy if serving else None,
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
        BadPackage: the package is incomplete, altered or another project's, or does not reproduce its stored scores.
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
        observe=batch_observer(registered.project),
    )
    validation = np.sort(package.reference["score"].astype(np.float64))
    return Serving(registered, package, validation, batches, _map_limit(package, scored))


def _check_on_examples(package: AnomalyPackage) -> list[Prediction]:
    """Score the package's stored examples, or without any a synthetic image, so that no request is the first run."""
    examples = package.examples
    if not examples:
        side = package.card.input_size
        ramp = np.linspace(0, 255, side).astype(np.uint8)
        return predict(package, [np.dstack([np.broadcast_to(ramp, (side, side))] * 3)])
    tolerance = package.card.onnx_tolerance + _PROBE_TOLERANCE * package.card.threshold
    predictions = predict(package, examples)
    for stored, scored in zip(package.reference["score"], predictions, strict=False):
        if abs(float(stored) - scored.score) > tolerance:
            raise BadPackage(
                f"{package.folder}: scores a stored example {scored.score:.6g} instead of {float(stored):.6g}; "
                "export the model again"
            )
    return predictions


def _map_limit(package: AnomalyPackage, scored: list[Prediction]) -> float:
    """Return the peak value of an error map whose score equals the threshold.

    Estimated as the threshold times the median ratio of map peak to score; where the score is the map's maximum, this
    is the threshold itself.
    """
    ratios = [float(result.error_map.max()) / result.score for result in scored if result.score > 0]
    ratio = float(np.median(ratios)) if ratios else 1.0
    return max(package.card.threshold * ratio, 1e-6)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
