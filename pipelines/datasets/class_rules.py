"""What a dataset version of a classifier takes and needs: the newest images of each class, and enough of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pipelines.catalogue.samples import ANOMALY_SUBSETS
from pipelines.config.class_names import RESERVED
from pipelines.errors import NotEnoughImages
from pipelines.ingest.name_lists import some

LEAST_IMAGES, LEAST_TRAINING, LEAST_VALIDATION = 8, 4, 1  # of each class
_FEW = 20  # images of a class from which on its recall says something
Row = TypeVar("Row", bound=Mapping[Any, Any])


def of_classes(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """Return the rows whose label is a class, and the number of the others, which are of another task."""
    kept = [row for row in rows if row["label"] not in RESERVED and row["subset"] not in ANOMALY_SUBSETS.values()]
    return kept, len(rows) - len(kept)


def take_newest(rows: Sequence[Row], newest: int | None) -> tuple[list[Row], int]:
    """Return the `newest` training and validation rows, balanced by class, with all test rows; and how many are out.

    A class with fewer images than its share leaves the rest of it to the others. Each class keeps its proportion of
    training to validation. Newest by `acquired_at`, else `ingested_at`.
    """
    trained = [row for row in rows if row["subset"] != "test"]
    if newest is None or len(trained) <= newest:
        return list(rows), 0
    quotas = _quotas(Counter(row["label"] for row in trained), newest)
    sizes = Counter((row["label"], row["subset"]) for row in trained)
    left = {}
    for label, quota in quotas.items():
        validation = sizes[label, "validation"]
        share = round(quota * validation / (validation + sizes[label, "training"]))
        share = min(max(share, 1), validation, quota)
        left[label, "validation"], left[label, "training"] = share, quota - share
    chosen: set[str] = set()
    for row in sorted(trained, key=lambda row: (row["acquired_at"] or row["ingested_at"], row["sha256"]), reverse=True):
        place = row["label"], row["subset"]
        if left[place]:
            left[place] -= 1
            chosen.add(row["sha256"])
    return [row for row in rows if row["subset"] == "test" or row["sha256"] in chosen], len(trained) - len(chosen)


def _quotas(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Divide `total` evenly among classes of these sizes, none of which gets more than it has."""
    quotas: dict[str, int] = {}
    waiting = sorted(sizes, key=lambda label: (sizes[label], label))
    while waiting:
        label = waiting.pop(0)
        quotas[label] = min(sizes[label], total // (len(waiting) + 1))
        total -= quotas[label]
    return quotas


def check_classes(project: str, rows: Sequence[Mapping[Any, Any]], left_out: Mapping[str, int]) -> None:
    """Refuse too few classes, or too few images of one.

    Raises:
        NotEnoughImages: says which class has how many, and what to do.
    """
    by_class: dict[str, Counter[str]] = {}
    for row in rows:
        by_class.setdefault(row["label"], Counter())[row["subset"]] += 1
    if len(by_class) < 2:
        have = f"one class only, {next(iter(by_class))!r}" if by_class else "no labelled images"
        waiting = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise NotEnoughImages(
            f"{project} has {have}{f' ({waiting})' if waiting else ''}, and a classifier takes at least 2: put about "
            f"20 images of each class into {project}/inbox/<class>/"
        )
    untrained = [label for label, sides in by_class.items() if not sides["training"] + sides["validation"]]
    if untrained:
        names = some([f"{label!r} ({by_class[label]['test']} test images)" for label in sorted(untrained)])
        raise NotEnoughImages(
            f"{project} has test images of a class that training never had: {names}; put images of it into "
            f"{project}/inbox/<class>/, or withdraw these: python -m pipelines.datasets withdraw"
        )
    small = {label: sides.total() for label, sides in by_class.items() if sides.total() < LEAST_IMAGES}
    if small:
        names = some([f"{label!r} ({count})" for label, count in sorted(small.items())], 10)
        raise NotEnoughImages(
            f"{project} has fewer than {LEAST_IMAGES} images of the class {names}: put more into "
            f"{project}/inbox/{min(small)}/, or withdraw those there are: python -m pipelines.datasets withdraw"
        )
    short = {
        label: f"{label!r} ({sides['training']} training, {sides['validation']} validation, {sides['test']} test)"
        for label, sides in by_class.items()
        if sides["training"] < LEAST_TRAINING or sides["validation"] < LEAST_VALIDATION
    }
    if short:
        raise NotEnoughImages(
            f"each class takes {LEAST_TRAINING} training images and {LEAST_VALIDATION} validation image, and {project} "
            f"has of {some([short[label] for label in sorted(short)], 10)}: put more into "
            f"{project}/inbox/{min(short)}/; images of one group always share a subset"
        )


def class_notes(rows: Sequence[Mapping[Any, Any]], newest: int | None, older: int, foreign: int) -> list[str]:
    """Say in plain words what this version can and cannot give."""
    sizes = Counter(row["label"] for row in rows)
    least = min(sizes, key=lambda label: (sizes[label], label))
    notes = [f"{len(sizes)} classes; the smallest is {least!r} with {sizes[least]} images"]
    few = sorted(label for label, count in sizes.items() if count < _FEW)
    if few:
        notes.append(f"{len(few)} classes have fewer than {_FEW} images, and are learnt poorly: {some(few)}")
    if older:
        notes.append(f"The newest {newest} training and validation images, balanced by class: {older} are left out")
    if foreign:
        notes.append(f"{foreign} samples are left out whose label is none of a class: {', '.join(RESERVED)}")
    tested = {row["label"] for row in rows if row["subset"] == "test"}
    if not tested:
        notes.append("No test images: no accuracy on images that nothing was set with")
    elif untested := sorted(set(sizes) - tested):
        notes.append(f"{len(untested)} classes have no test images: {some(untested)}")
    return notes
