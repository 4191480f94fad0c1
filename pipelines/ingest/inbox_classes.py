"""The classes of images in an inbox: by folder or index.csv, each in one spelling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from pipelines.config.class_names import spelling, spelt_otherwise
from pipelines.ingest.inbox_keys import InboxPath
from pipelines.ingest.index_csv import FileMetadata
from pipelines.ingest.items import InboxItem


def with_class(place: InboxPath, known: FileMetadata) -> InboxPath:
    """Return a parsed key with the class that an index.csv gives, or with a fault where the two disagree."""
    if known.label is None or (place.fault and place.folder):
        return place
    if place.label not in (None, known.label):
        fault = (
            f"its index.csv says that it is {known.label}, and its folder says {place.label}: put it into "
            f"{known.label}/ or unlabelled/, or correct the index.csv"
        )
        return replace(place, fault=fault)
    return replace(place, label=known.label, fault=None)


def refuse_other_spellings(items: Sequence[InboxItem], classes: Collection[str]) -> list[InboxItem]:
    """Refuse images whose class differs only in spelling from one of `classes`, or from a more frequent one of `items`.

    Two spellings would become two classes of one kind, which no classifier tells apart; which one is meant is not ours
    to decide.
    """
    counts = Counter(item.label for item in items if item.kind == "image" and item.label)
    chosen = {spelling(name): name for name in classes}
    for label, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        chosen.setdefault(spelling(label), label)
    return [_checked(item, {*classes, *chosen.values()}) for item in items]


def _checked(item: InboxItem, classes: Collection[str]) -> InboxItem:
    other = spelt_otherwise(item.label, classes) if item.kind == "image" and item.label else None
    if other is None:
        return item
    return replace(item, kind="refused", reason=spelling_fault(str(item.label), other))


def spelling_fault(label: str, other: str) -> str:
    """Return why an image of the class `label` is refused where there is a class `other`, and what to do."""
    return (
        f"the class {label!r} differs from {other!r} only in case, spaces, underscores or hyphens: send it as "
        f"{other!r}, or under a name of its own"
    )
