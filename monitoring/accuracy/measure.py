"""Measures a classifier on test images: its accuracy, and the classes that it finds worst."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from pipelines.datasets.original_images import original_images
from pipelines.evaluation.intervals import clopper_pearson
from pipelines.registry.package import Package
from pipelines.steps import Estimate, Record
from pipelines.tasks import find_task

if TYPE_CHECKING:
    import pandas as pd

BATCH = 16
WORST = 3  # classes
CONFUSIONS = 3  # of a class
EXAMPLES = 2  # images of a confusion


@dataclass(frozen=True)
class Confusion(Record):
    """Images of one class that the model takes for another.

    Attributes:
        predicted: the class that it names.
        n: number of images.
        examples: SHA-256 of those that it is most certain of.
    """

    predicted: str
    n: int
    examples: list[str]


@dataclass(frozen=True)
class WorstClass(Record):
    """A class with a low recall.

    Attributes:
        name: the class.
        n: number of its test images.
        found: number of those that were found.
        recall: found / n, with its exact 95 % interval.
        confusions: what the others were taken for, most frequent first.
    """

    name: str
    n: int
    found: int
    recall: Estimate
    confusions: list[Confusion]


@dataclass(frozen=True)
class Measured(Record):
    """The accuracy of a version on the test images of a dataset version.

    Attributes:
        images: number of test images.
        accuracy: share of them whose class is right, with its exact 95 % interval.
        worst: the classes with the lowest recall, lowest first.
    """

    images: int
    accuracy: Estimate
    worst: list[WorstClass]


def measure(project: str, task: str, package: Package, rows: pd.DataFrame) -> Measured:
    """Classify the images of `rows`, at least one, of a manifest, as they were sent.

    An image whose class the version does not know counts as wrong, as it does for the gate.

    Raises:
        BadDataset: a sample is gone or cannot be read.
        BadPackage: the graph cannot be run.
    """
    classes: Sequence[str] = package.card.classes  # type: ignore[attr-defined]
    predicted, certainty = [], []
    images = original_images(project, rows, getattr(package.card, "bits", None))
    while batch := list(islice(images, BATCH)):
        for prediction in find_task(task).predict(package, batch):
            predicted.append(classes[int(np.argmax(prediction.probabilities))])
            certainty.append(float(prediction.probabilities.max()))
    return summarise(list(rows["label"]), predicted, certainty, list(rows["sha256"]))


def summarise(
    labels: Sequence[str], predicted: Sequence[str], certainty: Sequence[float], hashes: Sequence[str]
) -> Measured:
    """Return what predictions of n images, of these labels and digests, say of accuracy and classes."""
    sizes, found = Counter(labels), Counter[str]()
    wrong: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for label, named, sure, sha256 in zip(labels, predicted, certainty, hashes, strict=True):
        if label == named:
            found[label] += 1
        else:
            wrong[label, named].append((sure, sha256))
    worst = sorted(
        (name for name in sizes if found[name] < sizes[name]), key=lambda name: (found[name] / sizes[name], name)
    )
    return Measured(
        images=len(labels),
        accuracy=clopper_pearson(found.total(), len(labels)),
        worst=[
            WorstClass(
                name, sizes[name], found[name], clopper_pearson(found[name], sizes[name]), _confusions(name, wrong)
            )
            for name in worst[:WORST]
        ],
    )


def _confusions(name: str, wrong: dict[tuple[str, str], list[tuple[float, str]]]) -> list[Confusion]:
    taken_for = {named: images for (label, named), images in wrong.items() if label == name}
    most = sorted(taken_for, key=lambda named: (-len(taken_for[named]), named))[:CONFUSIONS]
    return [
        Confusion(
            named, len(taken_for[named]), [sha256 for _, sha256 in sorted(taken_for[named], reverse=True)[:EXAMPLES]]
        )
        for named in most
    ]
