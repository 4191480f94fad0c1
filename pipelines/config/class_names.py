"""Names of classes, which are the labels of projects with `task: classification`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from pipelines.errors import InspectlineError

RESERVED = ("good", "anomaly", "unlabelled", "damage")  # labels of other tasks, and a folder of the inbox
LONGEST = 100  # characters
_UNLABELLED = ("unlabelled", "unlabeled")


class BadClass(InspectlineError):
    """A label is no name of a class, or one that differs from another only in spelling."""


def class_name(text: str) -> str:
    """Return a label as the name of a class: stripped, in Unicode's form NFC.

    Raises:
        BadClass: it cannot be one; says why.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if name.casefold() in (*RESERVED, *_UNLABELLED):
        raise BadClass(f"{name} is no name of a class: {', '.join(RESERVED)} have another meaning; choose another name")
    odd = any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") for letter in name)
    if not name or len(name) > LONGEST or odd or "/" in name or "\\" in name or name in (".", "..") or "\ufffd" in name:
        raise BadClass(
            f"{name[:LONGEST]!r} is no name of a class: write 1 to {LONGEST} characters without slashes and control "
            "characters"
        )
    return name


def is_unlabelled(text: str) -> bool:
    """Return whether a label or the name of a folder says that there is no label yet.

    >>> is_unlabelled("Unlabeled"), is_unlabelled("amanita muscaria")
    (True, False)
    """
    return text.strip().casefold() in _UNLABELLED


def spelling(name: str) -> str:
    """Return what names of classes have in common that differ only in case, spaces, underscores or hyphens.

    >>> spelling("Amanita  muscaria") == spelling("amanita_muscaria")
    True
    """
    return re.sub(r"[\s_\-\u2010-\u2015]+", "", unicodedata.normalize("NFKC", name).casefold())


def spelt_otherwise(name: str, classes: Iterable[str]) -> str | None:
    """Return the class that differs from `name` only in spelling, if there is one and none is called `name`."""
    classes = list(classes)
    if name in classes:
        return None
    return next((other for other in classes if spelling(other) == spelling(name)), None)
