"""Trains a classifier on a set once and judges it: `python -m benchmarks.classification_measure <job> <result>`.

`benchmarks.classification` starts a process for each training.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.model_settings import ClassificationSettings
from pipelines.errors import InspectlineError
from pipelines.evaluation import classification_metrics as metrics
from pipelines.images.decode import open_image
from pipelines.images.preprocess import prepare
from pipelines.tasks.classification.fitting.data import LabelledImages
from pipelines.tasks.classification.predict import softmax
from pipelines.tasks.classification.temperature import fit_temperature, set_threshold
from pipelines.training.step_process import main

OURS = "Inspectline"
HELD_BACK = 0.15
MAX_PIXELS = 50_000_000
THUMBNAIL = 16  # pixels a side, of the nearest neighbour in pixels

Probabilities = NDArray[np.float32]
Training = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [n, S, S, 3] and labels [n]


class BadSet(InspectlineError):
    """A folder cannot be measured on."""


@dataclass(frozen=True)
class ClassSet:
    """A set of images with classes.

    Attributes:
        name: name of its folder.
        classes: names of the classes of the training images, sorted.
        files: files by side (`train`, `test`), each with the place of its class.
    """

    name: str
    classes: tuple[str, ...]
    files: dict[str, list[tuple[Path, int]]]

    def digest(self) -> str:
        """Return the SHA-256 of all names and bytes."""
        digest = hashlib.sha256()
        for side, files in sorted(self.files.items()):
            for file, place in files:
                digest.update(f"{side} {place} {file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Classified:
    """What a method says of the test images.

    Attributes:
        probabilities: float32 [n, classes].
        set_threshold: least probability of a class in the conformal set; None without one.
        milliseconds: time of one image; None if it was not measured.
        facts: what else is worth knowing.
    """

    probabilities: Probabilities
    set_threshold: float | None = None
    milliseconds: float | None = None
    facts: dict[str, Any] | None = None


def read_set(folder: Path) -> ClassSet:
    """Return the set in a folder with `train/<class>/` and `test/<class>/`.

    Raises:
        BadSet: a side is missing, or a class of the test images has no training images.
    """
    files: dict[str, list[tuple[Path, int]]] = {}
    for side in ("train", "test"):
        if not (folder / side).is_dir():
            raise BadSet(f"{folder} has no folder {side}: give a set with train/<class>/ and test/<class>/")
    classes = tuple(sorted(path.name for path in (folder / "train").iterdir() if path.is_dir()))
    for side in ("train", "test"):
        found = sorted(path.name for path in (folder / side).iterdir() if path.is_dir())
        if unknown := set(found) - set(classes):
            raise BadSet(f"{folder / side} has classes without training images: {', '.join(sorted(unknown))}")
        files[side] = [
            (file, classes.index(name))
            for name in found
            for file in sorted((folder / side / name).iterdir())
            if file.is_file() and not file.name.startswith(".")
        ]
    if len(classes) < 2 or not files["test"]:
        raise BadSet(f"{folder} has {len(classes)} classes and {len(files['test'])} test images: it takes 2 and 1")
    return ClassSet(folder.name, classes, files)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train `method` on a set with a seed and judge it on the test images.

    `job` has `folder`, `method`, `seed`, `minutes`, `backbone`, `open_layers` and `input_size`. Returns metrics with
    intervals as plain JSON. Raises BadSet, BadImage.
    """
    images = read_set(Path(job["folder"]))
    began = time.monotonic()
    training, test = (_prepared(images, side, job["input_size"]) for side in ("train", "test"))
    classified = METHODS[job["method"]](images, training, test[0], job)
    seconds = time.monotonic() - began
    labels, groups = test[1], [str(number) for number in range(len(test[1]))]
    found = {
        "accuracy": metrics.top_accuracy(classified.probabilities, labels),
        "macro_f1": metrics.macro_f1(classified.probabilities, labels, groups),
        "calibration_error": metrics.calibration_error(classified.probabilities, labels, groups),
    }
    if len(images.classes) > 3:
        found["top_3_accuracy"] = metrics.top_accuracy(classified.probabilities, labels, 3)
    if classified.set_threshold is not None:
        sets = classified.probabilities >= classified.set_threshold
        sets[np.arange(len(sets)), classified.probabilities.argmax(axis=1)] = True
        found |= {"coverage": metrics.coverage(sets, labels), "set_size": metrics.set_size(sets, groups)}
    return {
        "metrics": {name: estimate.to_json() for name, estimate in found.items()},
        "by_class": metrics.recall_by_class(classified.probabilities, labels, images.classes),
        "seconds": round(seconds, 1),
        "milliseconds": classified.milliseconds,
        **(classified.facts or {}),
    }


def _prepared(images: ClassSet, side: str, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    resize = ClassificationSettings().resize
    pixels = [
        prepare(open_image(file.read_bytes(), max_pixels=MAX_PIXELS, min_side=1).pixels, size, resize)[0]
        for file, _ in images.files[side]
    ]
    return np.stack(pixels), np.array([place for _, place in images.files[side]], dtype=np.int64)


def _ours(images: ClassSet, training: Training, test: NDArray[np.uint8], job: dict[str, Any]) -> Classified:
    """Train as a run does, export, and classify with the exported graph."""
    from pipelines.backbones import load_backbone
    from pipelines.images.preprocess import PreparedImage
    from pipelines.registry.onnx_session import open_session
    from pipelines.tasks.classification.export import write_graph
    from pipelines.tasks.classification.fitting.fit import FitSettings, fit
    from pipelines.tasks.classification.predict import run_graph

    pixels, labels = training
    held_back = _held_back(labels, job["seed"])
    sides = [_side(pixels, labels, rows) for rows in (np.flatnonzero(~held_back), np.flatnonzero(held_back))]
    settings = FitSettings(open_layers=job["open_layers"], seconds=60 * job["minutes"], seed=job["seed"])
    fitted = fit(
        load_backbone(job["backbone"], job["input_size"]),
        sides[0],
        sides[1],
        len(images.classes),
        settings,
        say=_say,
        on_progress=lambda progress: _say(str(progress)) if progress.ended else None,
    )
    classes = len(images.classes)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        path = write_graph(fitted.network, Path(folder) / "model.onnx")
        session = open_session(path, threads=2)

        def logits(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
            singles = [PreparedImage(row[None], *row.shape[:2]) for row in rows]
            return np.concatenate([run_graph(session, path, [image], classes)[0] for image in singles])

        validation = logits(pixels[held_back])
        judged, labels_of = validation, labels[held_back]
        if fitted.out_of_fold is not None:
            judged = np.concatenate([fitted.out_of_fold, validation])
            labels_of = np.concatenate([sides[0].labels, labels_of])
        temperature = fit_temperature(judged, labels_of)
        began = time.monotonic()
        tested = logits(test)
        milliseconds = 1000 * (time.monotonic() - began) / len(test)
        size = path.stat().st_size
    facts = {
        "fine_tuned": fitted.fine_tuned,
        "epochs": fitted.epochs,
        "images_per_second": round(fitted.images_per_second, 1),
        "temperature": temperature,
        "notes": fitted.notes,
        "megabytes": round(size / 1e6, 1),
    }
    threshold = set_threshold(validation, labels[held_back], temperature)
    return Classified(softmax(tested / temperature), threshold, milliseconds, facts)


def _held_back(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Return which training images are held back: 15 % of each class, at least one."""
    rng, held_back = np.random.default_rng((seed, 7)), np.zeros(len(labels), dtype=bool)
    for place in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == place))
        held_back[rows[: max(1, round(HELD_BACK * len(rows)))]] = True
    return held_back


def _side(pixels: NDArray[np.uint8], labels: NDArray[np.int64], rows: NDArray[np.int64]) -> LabelledImages:
    return LabelledImages(pixels, rows, labels[rows], rows.astype(str), np.ones(len(rows), np.float32))


def _majority(images: ClassSet, training: Training, test: NDArray[np.uint8], job: dict[str, Any]) -> Classified:
    """Say the shares of the classes among the training images of every image."""
    shares = np.bincount(training[1], minlength=len(images.classes)) / len(training[1])
    return Classified(np.tile(shares.astype(np.float32), (len(test), 1)))


def _nearest(images: ClassSet, training: Training, test: NDArray[np.uint8], job: dict[str, Any]) -> Classified:
    """Say the class of the training image whose thumbnail is nearest in pixels."""

    def thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([prepare(row, THUMBNAIL, "stretch").reshape(-1).astype(np.float32) for row in pixels])

    known, asked = thumbnails(training[0]), thumbnails(test)
    distances = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)
    return Classified(np.eye(len(images.classes), dtype=np.float32)[training[1][distances.argmin(axis=1)]])


def _logistic(images: ClassSet, training: Training, test: NDArray[np.uint8], job: dict[str, Any]) -> Classified:
    """Say what scikit-learn's logistic regression with its defaults says of the embeddings of the same backbone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from pipelines.backbones import load_backbone
    from pipelines.tasks.classification.fitting.network import embed

    network = load_backbone(job["backbone"], job["input_size"]).network
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(embed(network, training[0]), training[1])
    return Classified(model.predict_proba(embed(network, test)).astype(np.float32))


Method = Callable[[ClassSet, Training, NDArray[np.uint8], dict[str, Any]], Classified]
METHODS: dict[str, Method] = {
    OURS: _ours,
    "most frequent class": _majority,
    "nearest neighbour in pixels": _nearest,
    "logistic regression": _logistic,
}
# Methods whose results do not depend on the seed.
TIMELESS = ("most frequent class", "nearest neighbour in pixels", "logistic regression")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(measure)
