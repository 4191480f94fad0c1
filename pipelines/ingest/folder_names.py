"""The names of folders and files that say what images are: good, an anomaly, a mask, unlabelled, a split.

Names compare without regard to case, Unicode form and separators: `Defect-Free` is `defect_free`. Words such as
`images` and `dir`, and numbers beside other words, say nothing: `normal_dir` is `normal`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.catalogue.splits import SPLITS

Kind = Literal["good", "anomaly", "mask", "unlabelled", "split", "neutral", "unknown"]

GOOD = frozenset(
    [
        "good",
        "ok",
        "okay",
        "normal",
        "pass",
        "passed",
        "io",
        "i_o",
        "healthy",
        "flawless",
        "intact",
        "undamaged",
        "accepted",
        "gut",
        "fault_free",
        "defect_free",
        "defectfree",
        "no_defect",
        "no_defects",
        "without_defect",
        "without_defects",
        "non_defective",
        "no_damage",
        "no_anomaly",
        "no_anomalies",
    ]
)
ANOMALY = frozenset(
    [
        "anomaly",
        "anomalies",
        "anomalous",
        "abnormal",
        "bad",
        "ng",
        "nok",
        "not_ok",
        "not_good",
        "no_good",
        "nio",
        "n_i_o",
        "fail",
        "failed",
        "failure",
        "failures",
        "defect",
        "defects",
        "defective",
        "def",
        "faulty",
        "damaged",
        "reject",
        "rejected",
        "rejects",
        "scrap",
    ]
)
_MASK_WORDS = frozenset(["mask", "masks", "gt", "groundtruth", "ground_truth", "groundtruths"])
# Mask folders by their whole name only, since these words also stand for other things.
_MASK_NAMES = frozenset(
    [
        "label",
        "labels",
        "annotation",
        "annotations",
        "seg",
        "segmentation",
        "segmentations",
        "segmentationclass",
        "segmentationobject",
    ]
)
_UNLABELLED = frozenset(
    [
        "unlabelled",
        "unlabeled",
        "unknown",
        "unsorted",
        "unclassified",
        "to_label",
        "todo",
        "test_private",
        "private_test",
        "private",
    ]
)
_NEUTRAL = frozenset(
    [
        "images",
        "image",
        "img",
        "imgs",
        "jpegimages",
        "data",
        "dataset",
        "pictures",
        "picture",
        "pics",
        "photos",
        "photo",
        "rgb",
        "raw",
        "dir",
        "folder",
        "files",
        "set",
        "split",
        "public",
    ]
)
_VIEWS = frozenset(
    [
        "front",
        "back",
        "rear",
        "top",
        "bottom",
        "side",
        "left",
        "right",
        "inner",
        "outer",
        "upper",
        "lower",
        "cam",
        "camera",
        "view",
    ]
)
_MASK_SUFFIX = re.compile(r"(?P<stem>.+)[_\-. ](?P<word>mask|gt|label|seg|groundtruth)[_\-. ]?\d*", re.IGNORECASE)
_STEM_WORDS = frozenset(["mask", "masks", "gt", "groundtruth", "label", "seg", "image", "img", "images"])


@dataclass(frozen=True)
class Meaning:
    """What the name of a folder says.

    Attributes:
        kind: what its images are; `split` names a part of the data set, `neutral` says nothing, `unknown` is not
            understood.
        rest: words of the name beyond those that decided, joined by underscores. Default empty.
        split: train, validation or test of a split. Default None.
    """

    kind: Kind
    rest: str = ""
    split: str | None = None

    @property
    def view(self) -> bool:
        """Return whether the rest only names a view or a number: `ok_front`, `good_2`."""
        return all(word in _VIEWS or word.isdigit() for word in self.rest.split("_"))


def normalised(name: str) -> str:
    """Return a name in lower case and Unicode form C, its separators as single underscores.

    >>> normalised("n.i.O. ")
    'n_i_o'
    """
    name = unicodedata.normalize("NFC", name).casefold()
    return re.sub(r"[\s_\-.]+", "_", name).strip("_")


def meaning_of(name: str) -> Meaning:
    """Return what the name of a folder says by itself.

    >>> meaning_of("normal_dir").kind, meaning_of("def_front"), meaning_of("0").kind
    ('good', Meaning(kind='anomaly', rest='front', split=None), 'unknown')
    """
    whole = normalised(name)
    if exact := _exact(whole):
        return exact
    words = whole.split("_")
    telling = [word for word in words if word not in _NEUTRAL and not word.isdigit()]
    if not telling:
        return Meaning("neutral" if any(word in _NEUTRAL for word in words) else "unknown")
    if exact := _exact("_".join(telling)):
        return exact
    if telling[:2] == ["test", "private"]:
        return Meaning("unlabelled")
    if (rest := _without_masks(telling)) is not None:
        return Meaning("mask", rest)
    for length in (3, 2, 1):
        head, rest = "_".join(telling[:length]), "_".join(telling[length:])
        if head in ANOMALY:
            return Meaning("anomaly", rest)
        if head in GOOD:  # `ok_front`; other words than ok only before a view, since `normal_map` is something else
            found = Meaning("good", rest)
            return found if head == "ok" or found.view else Meaning("unknown")
    return Meaning("unknown")


def good_counterparts(names: Iterable[str]) -> frozenset[str]:
    """Return what stands behind a word for good in these names: `front` for `ok_front`."""
    rests: set[str] = set()
    for name in names:
        words = normalised(name).split("_")
        rests.update("_".join(words[length:]) for length in (1, 2) if "_".join(words[:length]) in GOOD)
    return frozenset(rests - {""})


def anomaly_counterparts(names: Iterable[str]) -> frozenset[str]:
    """Return what stands behind a word for an anomaly in these names: `parts` for `bad_parts`."""
    rests: set[str] = set()
    for name in names:
        words = normalised(name).split("_")
        rests.update("_".join(words[length:]) for length in (1, 2, 3) if "_".join(words[:length]) in ANOMALY)
    return frozenset(rests - {""})


def mask_base(stem: str) -> tuple[str, str] | None:
    """Return the image's stem and the mask's word of a name such as `7_mask`, `7_GT` or `7_mask_2`; None of others."""
    match = _MASK_SUFFIX.fullmatch(stem)
    return (match["stem"], match["word"].lower()) if match else None


def stem_key(stem: str) -> str:
    """Return a stem for pairing an image with a mask of another folder: without words for image and mask.

    >>> stem_key("image3") == stem_key("mask3") == stem_key("3_mask")
    True
    """
    words = re.findall(r"[^\W\d_]+|\d+|[^\w\s.\-]+", unicodedata.normalize("NFC", stem).casefold())
    kept = [word for word in words if word not in _STEM_WORDS]
    return "_".join(kept) if kept else stem.casefold()


def _exact(name: str) -> Meaning | None:
    if split := SPLITS.get(name):
        return Meaning("split", split=split)
    if name in GOOD:
        return Meaning("good")
    if name in ANOMALY:
        return Meaning("anomaly")
    if name in _MASK_WORDS or name in _MASK_NAMES:
        return Meaning("mask")
    if name in _UNLABELLED:
        return Meaning("unlabelled")
    return Meaning("neutral") if name in _NEUTRAL else None


def _without_masks(words: Sequence[str]) -> str | None:
    """Return the words other than those for a mask, joined; None if there is none of those."""
    joined = "_".join(words).replace("ground_truth", "groundtruth").split("_")
    rest = [word for word in joined if word not in _MASK_WORDS and word != "label"]
    return "_".join(rest) if any(word in _MASK_WORDS for word in joined) else None
