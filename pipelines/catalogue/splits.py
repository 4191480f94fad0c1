"""Assign each group of samples permanently to a side: training, validation or test.

The side is taken from an imported split if there is one, else from the sender's request, else chosen by a hash weighted
by each side's deficit against its target. Targets are shares of the good images (`subsets` in the project file). An
imported `train` is divided between training and validation; an imported `test` stays test. Where there are enough
images, validation receives the 99 required to guarantee a false-positive rate of 1 % (split conformal prediction,
n >= 1/rate - 1).

The first 30 anomalies go to `anomaly/threshold` (10) and `anomaly/test` (20), as many as the metrics of the threshold
and of the gate need. From then on a share of them goes to training, for the supervised heads.

Of classifiers, each class is divided by itself, and these numbers do not apply: `assign_by_class`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from pipelines.config.project import SubsetTargets

Side = Literal["training", "validation", "test"]
Origin = Literal["imported", "asked", "hashed"]
SIDES: tuple[Side, ...] = ("training", "validation", "test")
SUBSETS = (*SIDES, "anomaly/training", "anomaly/threshold", "anomaly/test")
PROMISE_1_PERCENT = 99  # validation images
_WANTED = 104  # with a margin for duplicates and unreadable images
ANOMALIES_TO_TRAIN = 30
_EVEN = 25  # images of a class; up to here chance does not decide
# Accepted names of an imported split.
SPLITS: dict[str, Literal["train", "validation", "test"]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "calibration": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class NewGroup:
    """A group that has no side yet.

    Attributes:
        key: the group's key, unique within the project.
        size: number of samples that arrive together. Default 1.
        anomalous: whether all of them are anomalies. Default False.
        split: imported split (train, validation, test). Default None.
        asked: side requested by the sender. Default None.
        label: class of most of its samples; None (default): unlabelled. Of classifiers alone.
    """

    key: str
    size: int = 1
    anomalous: bool = False
    split: str | None = None
    asked: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Expected:
    """The expected numbers of good and unlabelled images in the catalogue after this ingest.

    Attributes:
        unsplit: all images, the total to which targets apply without an imported split. Default 0.
        train: images on the sides of an imported split `train` (training, validation). Default 0.
    """

    unsplit: int = 0
    train: int = 0


Counts = Mapping[str, int]


def assign(
    project: str,
    groups: Iterable[NewGroup],
    *,
    targets: SubsetTargets,
    good: Counts,
    anomalies: Counts,
    expected: Expected | None = None,
) -> dict[str, tuple[Side, Origin]]:
    """Return side and origin of each new group by its key; deterministic and independent of the order of `groups`.

    Args:
        project: name of the project, part of the hash.
        groups: the groups to assign.
        targets: target shares of the good images.
        good: current number of good and unlabelled samples by side.
        anomalies: current number of anomalies by side.
        expected: numbers after this ingest; None (default) counts what the other arguments hold.
    """
    groups = list(groups)
    expected = expected or _expected_of(groups, good)
    counts: dict[bool, dict[str, int]] = {
        False: {side: good.get(side, 0) for side in SIDES},
        True: {side: anomalies.get(side, 0) for side in SIDES},
    }
    given: dict[str, tuple[Side, Origin]] = {}
    # Large groups first, since small ones can still balance the sides; ties in pseudo-random order.
    for group in sorted(groups, key=lambda group: (-group.size, _hash(f"{project}/order", group.key))):
        of_kind = counts[group.anomalous]
        side, origin = _fixed(group)
        if side is None:
            shares = anomaly_shares(sum(of_kind.values())) if group.anomalous else None
            if shares is None:
                shares = good_shares(targets, _total(of_kind, group, expected), train_only=group.split == "train")
            elif group.split == "train":
                shares = {"training": shares["training"], "validation": 1 - shares["training"]}
            side = _lot(shares, of_kind, group, _hash(project, group.key))
        of_kind[side] += group.size
        given[group.key] = (side, origin)
    return given


def assign_by_class(
    project: str, groups: Iterable[NewGroup], *, targets: SubsetTargets, counts: Mapping[str | None, Counts]
) -> dict[str, tuple[Side, Origin]]:
    """Return side and origin of each new group of a classifier by its key, so that each class meets the targets.

    Deterministic and independent of the order of `groups`. A group goes to the side that lacks most of its class; from
    `_EVEN` images of the class on, by lot as in `assign`, so that sides follow no period of a camera.

    Args:
        project: name of the project, part of the hash.
        groups: the groups to assign.
        targets: target shares of each class.
        counts: current number of samples by class (None: unlabelled) and side.
    """
    of_class: dict[str | None, dict[str, int]] = {
        label: {side: sides.get(side, 0) for side in SIDES} for label, sides in counts.items()
    }
    given: dict[str, tuple[Side, Origin]] = {}
    for group in sorted(groups, key=lambda group: (-group.size, _hash(f"{project}/order", group.key))):
        current = of_class.setdefault(group.label, dict.fromkeys(SIDES, 0))
        side, origin = _fixed(group)
        if side is None:
            shares = _class_shares(targets, train_only=group.split == "train")
            total = sum(current[name] for name in shares) + group.size
            if total > _EVEN:
                side = _lot(shares, current, group, _hash(project, group.key))
            else:
                side = _furthest_behind(shares, current, total)
        current[side] += group.size
        given[group.key] = (side, origin)
    return given


def _furthest_behind(shares: Mapping[Side, float], counts: Counts, total: int) -> Side:
    return max(shares, key=lambda side: shares[side] * total - counts[side])


def _class_shares(targets: SubsetTargets, *, train_only: bool) -> dict[Side, float]:
    """Return the share of each side of a class; with `train_only`, of an imported `train`."""
    if not train_only:
        return {"training": targets.training, "validation": targets.validation, "test": targets.test}
    trained = targets.training + targets.validation
    return {"training": targets.training / trained, "validation": targets.validation / trained}


def good_shares(targets: SubsetTargets, total: int, *, train_only: bool = False) -> dict[Side, float]:
    """Return the share of each side for `total` good images; with `train_only` (default False), of an imported
    `train`.
    """
    if train_only:
        validation = targets.validation / (targets.training + targets.validation)
        if total >= 2 * PROMISE_1_PERCENT:
            validation = max(validation, min(_WANTED / total, 0.5))
        return {"training": 1 - validation, "validation": validation}
    validation = targets.validation
    if total >= 3 * PROMISE_1_PERCENT:
        validation = max(validation, min(_WANTED / total, 1 / 3))
    rest = (1 - validation) / (targets.training + targets.test)
    return {"training": targets.training * rest, "validation": validation, "test": targets.test * rest}


def anomaly_shares(total: int) -> dict[Side, float]:
    """Return the share of each side for a project with `total` anomalies so far."""
    if total < ANOMALIES_TO_TRAIN:
        return {"training": 0.0, "validation": 1 / 3, "test": 2 / 3}
    return {"training": 0.3, "validation": 0.2, "test": 0.5}


def _fixed(group: NewGroup) -> tuple[Side | None, Origin]:
    """Return the predetermined side, None if it is to be chosen, and the origin of the side."""
    if group.split is not None:
        return (None if group.split == "train" else cast(Side, group.split)), "imported"
    if group.asked is not None:
        return cast(Side, group.asked), "asked"
    return None, "hashed"


def _expected_of(groups: Iterable[NewGroup], good: Counts) -> Expected:
    """Return the numbers after `groups` are entered: the targets must not change while their sides are chosen."""
    new = [group for group in groups if not group.anomalous]
    train = sum(group.size for group in new if group.split == "train")
    trained_sides = good.get("training", 0) + good.get("validation", 0)
    return Expected(unsplit=sum(good.values()) + sum(group.size for group in new), train=trained_sides + train)


def _total(counts: Counts, group: NewGroup, expected: Expected) -> int:
    if group.split == "train":
        return max(counts["training"] + counts["validation"] + group.size, expected.train)
    return max(sum(counts.values()) + group.size, expected.unsplit)


def _lot(shares: Mapping[Side, float], counts: Counts, group: NewGroup, number: float) -> Side:
    """Choose a side by `number` in [0, 1), with probability proportional to its squared deficit against its share."""
    total = sum(counts[side] for side in shares) + group.size
    behind = {side: max(0.0, share * total - counts[side]) ** 2 for side, share in shares.items()}
    point = number * sum(behind.values())
    for side, weight in behind.items():
        point -= weight
        if point < 0:
            return side
    return max(behind, key=lambda side: behind[side])


def _hash(project: str, key: str) -> float:
    """Return a uniformly distributed number in [0, 1), constant for a group of a project."""
    digest = hashlib.sha256(f"{project}/{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
