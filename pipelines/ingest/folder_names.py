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
from pipelines.ingest.folder_words import (
    ANOMALY,
    DERIVED,
    GOOD,
    MADE_FROM_IMAGES,
    MASK_NAMES,
    MASK_WORDS,
    NEUTRAL,
    UNLABELLED,
    VIEWS,
)

Kind = Literal["good", "anomaly", "mask", "unlabelled", "split", "neutral", "unknown"]

_SPLIT_OF_YEAR = re.compile(r"(train|val|valid|test)_?((?:19|20)\d\d)")
_DATE = re.compile(
    r"(?:19|20)\d\d(?:_?(?:0[1-9]|1[0-2])(?:_?(?:0[1-9]|[12]\d|3[01]))?)?(?:_?t?_?\d{2}(?:_?\d{2}){1,2})?"
)
_MASK_SUFFIX = re.compile(r"(?P<stem>.+)[_\-. ](?P<word>mask|gt|label|seg|ground_?truth)[_\-. ]?\d*", re.IGNORECASE)
_MASK_PREFIX = re.compile(r"(?:mask|gt|label|seg|groundtruth)[_\-. ]+(?P<stem>.+)", re.IGNORECASE)
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
        return all(word in VIEWS or word.isdigit() for word in self.rest.split("_"))


def folded(name: str) -> str:
    """Return a name as names of files compare: in Unicode form C and without regard to case."""
    return unicodedata.normalize("NFC", name).casefold()


def normalised(name: str) -> str:
    """Return a name in lower case and Unicode form C, its separators as single underscores.

    >>> normalised("n.i.O. ")
    'n_i_o'
    """
    return re.sub(r"[\s_\-.]+", "_", folded(name)).strip("_")


def meaning_of(name: str) -> Meaning:
    """Return what the name of a folder says by itself.

    >>> meaning_of("normal_dir").kind, meaning_of("def_front"), meaning_of("0").kind
    ('good', Meaning(kind='anomaly', rest='front', split=None), 'unknown')
    """
    whole = normalised(name)
    if exact := _exact(whole):
        return exact
    words = whole.split("_")
    telling = [word for word in words if word not in NEUTRAL and not word.isdigit()]
    if not telling:
        return Meaning("neutral" if any(word in NEUTRAL for word in words) else "unknown")
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


def is_derived(name: str) -> bool:
    """Return whether a folder holds something made from images, or another kind of picture: heat maps, depth.

    >>> is_derived("heatmaps"), is_derived("depth_map"), is_derived("scratch")
    (True, True, False)
    """
    words = normalised(name).split("_")
    return "_".join(words) in DERIVED or "_".join(words[-2:]) in DERIVED or words[-1] in MADE_FROM_IMAGES


def is_place_or_time(name: str) -> bool:
    """Return whether a name only says where or when images were taken: `cam2`, `front`, `2026-05-01`.

    >>> is_place_or_time("Camera 2"), is_place_or_time("2026-05-01"), is_place_or_time("3"), is_place_or_time("dent")
    (True, True, False, False)
    """
    whole = normalised(name)
    if _DATE.fullmatch(whole):
        return True
    words = [word for word in re.findall(r"[^\W\d_]+|\d+", whole) if not word.isdigit()]
    return bool(words) and all(word in VIEWS for word in words)


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
    """Return the image's stem and the mask's word of a name such as `7_mask`, `7_GT` or `7_mask_2`; None of others.

    The word is `before` for names such as `mask_7`, which are those of masks only beside a `7`.
    """
    if match := _MASK_SUFFIX.fullmatch(stem):
        return match["stem"], match["word"].lower()
    match = _MASK_PREFIX.fullmatch(stem)
    return (match["stem"], "before") if match else None


def stem_key(stem: str) -> str:
    """Return a stem for pairing an image with a mask of another folder: without words for image and mask.

    >>> stem_key("image3") == stem_key("mask3") == stem_key("3_mask")
    True
    """
    words = re.findall(r"[^\W\d_]+|\d+|[^\w\s.\-]+", folded(stem))
    kept = [word for word in words if word not in _STEM_WORDS]
    return "_".join(kept) if kept else stem.casefold()


def _exact(name: str) -> Meaning | None:
    of_year = _SPLIT_OF_YEAR.fullmatch(name)  # `train2017` of COCO
    if split := SPLITS.get(of_year[1] if of_year else name):
        return Meaning("split", split=split)
    if name in GOOD:
        return Meaning("good")
    if name in ANOMALY:
        return Meaning("anomaly")
    if name in MASK_WORDS or name in MASK_NAMES:
        return Meaning("mask")
    if name in UNLABELLED:
        return Meaning("unlabelled")
    return Meaning("neutral") if name in NEUTRAL else None


def _without_masks(words: Sequence[str]) -> str | None:
    """Return the words other than those for a mask, joined; None if there is none of those."""
    joined = "_".join(words).replace("ground_truth", "groundtruth").split("_")
    rest = [word for word in joined if word not in MASK_WORDS and word != "label"]
    return "_".join(rest) if any(word in MASK_WORDS for word in joined) else None
