"""The plan of an import: what each folder was taken for, shown before anything is uploaded."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import InspectlineError
from pipelines.images.regions import Region, types_of

_MOST_ROWS = 60


class BadFolder(InspectlineError):
    """A folder cannot be imported."""


@dataclass(frozen=True)
class PlannedImage:
    """One image to import.

    Attributes:
        file: the image file.
        name: its path below the import's folder in the inbox, unique in the plan.
        label: good, anomaly, a class, or None: unlabelled.
        type: type of the anomaly. Default None.
        split: imported split: train, validation or test. Default None.
        masks: its mask files, which are merged into one.
        regions: what was marked in it.
        group: group that it shares with other files. Default None.
        metadata: its values in the folder's index.csv, by column.
        by_index: whether its class goes into an index.csv, since no folder of the inbox can have its name. Default
            False.
    """

    file: Path
    name: str
    label: str | None
    type: str | None = None
    split: str | None = None
    masks: tuple[Path, ...] = ()
    regions: tuple[Region, ...] = ()
    group: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    by_index: bool = False

    @property
    def folder(self) -> str:
        """Return the folder of the inbox for its label and type."""
        if self.by_index:
            return "unlabelled"
        if self.label != "anomaly":
            return self.label or "unlabelled"
        # anomaly/anomaly/ is equivalent to anomaly/: objects below it have no type.
        return f"anomaly/{self.type or 'anomaly'}"


@dataclass(frozen=True)
class PlanRow:
    """A line of the plan.

    Attributes:
        folder: the folder, relative to the imported one.
        meaning: what it was taken for.
        images: number of images.
        masks: number of masks.
        subset: the split it names. Default empty.
    """

    folder: str
    meaning: str
    images: int
    masks: int
    subset: str = ""


@dataclass(frozen=True)
class ImportPlan:
    """What an import will do.

    Attributes:
        root: the imported folder.
        images: the images in order of their paths.
        rows: a line for each folder.
        problems: what is not understood and what to do; nothing is imported while there are any.
        notes: what was decided or left aside.
        expected: which folder to give, for a message.
    """

    root: Path
    images: tuple[PlannedImage, ...]
    rows: tuple[PlanRow, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    expected: str = "give one with good/ and anomaly/, with train/ and test/, or with images alone"

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of images by folder of the inbox, or by class."""
        return dict(
            sorted(Counter(str(image.label) if image.by_index else image.folder for image in self.images).items())
        )

    @property
    def masks(self) -> int:
        """Return the number of mask files in use."""
        return sum(len(image.masks) for image in self.images)

    def check(self) -> None:
        """Refuse a plan that is not understood.

        Raises:
            BadFolder: it has problems, or no images.
        """
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise BadFolder(printable(f"{self.root}: {self.problems[0]}{more}"))
        if not self.images:
            raise BadFolder(f"{self.root} holds no images (JPEG, PNG, BMP, TIFF, WebP): {self.expected}")

    def lines(self) -> list[str]:
        """Return the plan as text for people: the table, the totals, the notes, then what is not understood."""
        lines = _table(self.rows)
        counts = ", ".join(f"{count} {folder}" for folder, count in self.counts.items()) or "nothing"
        regions = sum(len(image.regions) for image in self.images)
        marked = f", {regions} regions" if regions else ""
        lines.append(f"{len(self.images)} images, {self.masks} masks{marked}: {counts}")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"not understood: {problem}" for problem in self.problems]
        return [printable(line) for line in lines]


def printable(text: str) -> str:
    """Return a text with control characters, line ends and undecodable bytes of names as escapes such as `\\n`."""
    odd = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Cf", "Zl", "Zp")}
    return text.translate({ord(letter): letter.encode("unicode_escape").decode() for letter in odd}) if odd else text


def type_name(regions: Sequence[Region]) -> str | None:
    """Return the type of an anomaly by its regions, shortened where many types meet."""
    kind = types_of(regions)
    return kind if not kind or len(kind) <= 80 else "several"


def _table(rows: Sequence[PlanRow]) -> list[str]:
    header = ("folder", "taken for", "images", "masks", "subset")
    shown = [
        (row.folder, row.meaning, str(row.images or "-"), str(row.masks or "-"), row.subset or "-")
        for row in rows[:_MOST_ROWS]
    ]
    widths = [max(len(line[column]) for line in [header, *shown]) for column in range(len(header))]
    lines = []
    for line in [header, *shown]:
        cells = [
            text.rjust(width) if column in (2, 3) else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if len(rows) > _MOST_ROWS:
        lines.append(f"… and {len(rows) - _MOST_ROWS} more folders")
    return lines
