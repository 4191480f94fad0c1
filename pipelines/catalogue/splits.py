"""Which side a group of samples takes, once and for all: training, validation or test.

A group's side is an imported split if there is one, else what the sender asked for, else a hash weighed by how far
each side is behind its target. The targets are shares of the good images (`subsets` in the project file). An imported
`train` is spread over training and validation; an imported `test` stays test. Where there are enough images, validation
gets the 99 that a promised false-positive rate of 1 % takes (split conformal prediction, n >= 1/rate - 1).

Anomalies train nothing at first: the first 30 go to `anomaly/threshold` (10) and `anomaly/test` (20), as many as the
threshold's and the gate's figures need; from then on some go to training, for the supervised heads.
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
_WANTED = 104  # a few more, for those that turn out to be copies or unreadable
ANOMALIES_TO_TRAIN = 30
# What an imported split may be called.
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
    """A group that has no side yet: how many samples of it arrive together, and what is asked for it.

    `anomalous` is true if all of them are anomalies; `split` is an imported split (train, validation, test), `asked`
    the side that the sender asked for.
    """

    key: str
    size: int = 1
    anomalous: bool = False
    split: str | None = None
    asked: str | None = None


@dataclass(frozen=True)
class Expected:
    """How many good images (unlabelled ones count) the catalogue will hold after this ingest, as far as is known.

    `unsplit` come without an imported split, `train` with the split `train`.
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
    """Return side and origin of each new group, by its key.

    `good` and `anomalies` count the project's samples by side as they are now. The result depends on nothing but the
    arguments; the order of `groups` does not matter.
    """
    expected = expected or Expected()
    counts: dict[bool, dict[str, int]] = {
        False: {side: good.get(side, 0) for side in SIDES},
        True: {side: anomalies.get(side, 0) for side in SIDES},
    }
    given: dict[str, tuple[Side, Origin]] = {}
    # Large groups first, since small ones can still even things out; else in an order that tells nothing of them.
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


def good_shares(targets: SubsetTargets, total: int, *, train_only: bool = False) -> dict[Side, float]:
    """Return the share of each side for `total` good images; with `train_only`, of an imported `train`."""
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
    """Return the share of each side for a project that has `total` anomalies so far."""
    if total < ANOMALIES_TO_TRAIN:
        return {"training": 0.0, "validation": 1 / 3, "test": 2 / 3}
    return {"training": 0.3, "validation": 0.2, "test": 0.5}


def _fixed(group: NewGroup) -> tuple[Side | None, Origin]:
    """Return the side that is not for the lot to choose, if there is one, and where the side comes from."""
    if group.split is not None:
        return (None if group.split == "train" else cast(Side, group.split)), "imported"
    if group.asked is not None:
        return cast(Side, group.asked), "asked"
    return None, "hashed"


def _total(counts: Counts, group: NewGroup, expected: Expected) -> int:
    if group.split == "train":
        return max(counts["training"] + counts["validation"] + group.size, expected.train)
    return max(sum(counts.values()) + group.size, expected.unsplit)


def _lot(shares: Mapping[Side, float], counts: Counts, group: NewGroup, number: float) -> Side:
    """Choose among the sides that are behind their share, by `number` in [0, 1), the more likely the further behind."""
    total = sum(counts[side] for side in shares) + group.size
    behind = {side: max(0.0, share * total - counts[side]) ** 2 for side, share in shares.items()}
    point = number * sum(behind.values())
    for side, weight in behind.items():
        point -= weight
        if point < 0:
            return side
    return max(behind, key=lambda side: behind[side])


def _hash(project: str, key: str) -> float:
    """Return an evenly spread number in [0, 1) that stays the same for a project's group."""
    digest = hashlib.sha256(f"{project}/{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
