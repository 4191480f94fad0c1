"""Find out what the folders of a data set mean: good, anomalies by type, masks, splits, unlabelled.

A folder's name is understood (`pipelines.ingest.folder_names`), or the plan says that it is not, and nothing is
imported: a defect mistaken for a good image would be learnt as normal. A name that is not understood is a type of
anomaly only below a folder of anomalies, or below a split beside a folder of good images, as in MVTec AD. Images in no
named folder are good, or unlabelled in a test split; where each of them has a mask, those with an empty mask are good
and the others anomalies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pipelines.ingest.folder_maps import MAP_FORM, FolderMaps
from pipelines.ingest.folder_names import (
    Meaning,
    anomaly_counterparts,
    good_counterparts,
    is_derived,
    is_place_or_time,
    meaning_of,
    normalised,
)

Kind = Literal["good", "anomaly", "unlabelled", "mask", "ignore", "open", "unknown"]
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """What a folder was taken for.

    Attributes:
        kind: `open` if no name says what its images are; `unknown` if a name is not understood.
        type: type of anomaly. Default None.
        split: train, validation or test. Default None.
        words: the words of its path that tell masks and images of one kind apart.
        reason: why it is unknown. Default empty.
        mapped: whether somebody said so (`--map`). Default False.
    """

    kind: Kind
    type: str | None = None
    split: str | None = None
    words: Parts = ()
    reason: str = ""
    mapped: bool = False


class FolderTree:
    """The folders that hold images, and what each was taken for.

    Args:
        root: the imported folder.
        files: its image files.
        maps: what somebody said that folders are.
    """

    def __init__(self, root: Path, files: Sequence[Path], maps: FolderMaps) -> None:
        self.root = root
        self._maps = maps
        self._children: dict[Parts, set[str]] = {}
        self.folders: set[Parts] = set()
        for file in files:
            parts = file.relative_to(root).parts[:-1]
            self.folders.add(parts)
            for depth in range(len(parts)):
                self._children.setdefault(parts[:depth], set()).add(parts[depth])
        self._places: dict[Parts, Place] = {}
        # Names below folders of good images, as of cameras or lots: they are no types of anomalies.
        self._below_good = {
            normalised(name)
            for parts in self.folders
            for depth, above in enumerate(parts)
            if meaning_of(above).kind == "good"
            for name in parts[depth + 1 :]
        }

    def place(self, parts: Parts) -> Place:
        """Return what the folder at `parts` below the root was taken for."""
        if parts not in self._places:
            self._places[parts] = self._mapped(parts) or self._named(parts)
        return self._places[parts]

    @property
    def labelled(self) -> bool:
        """Return whether the name of any folder is good or an anomaly."""
        return bool(self._labelled_splits)

    def labelled_below(self, split: str) -> bool:
        """Return whether any folder of this split is named good or an anomaly."""
        return split in self._labelled_splits

    @cached_property
    def _labelled_splits(self) -> set[str | None]:
        """The splits of the folders that are named good or an anomaly; None stands for those in no split."""
        places = map(self.place, self.folders)
        return {place.split for place in places if place.kind in ("good", "anomaly")}

    def _mapped(self, parts: Parts) -> Place | None:
        """Return what somebody said of the folder, or of the nearest folder above it."""
        found = self._maps.find(parts)
        if found is None:
            return None
        said, depth = found
        split = next((name.split for name in map(meaning_of, parts) if name.split), None)
        words = _words(parts[depth:]) if said.kind == "mask" else _words(parts)
        return Place(said.kind, said.type, split, words, mapped=True)  # type: ignore[arg-type]

    def _meaning(self, parts: Parts) -> Meaning:
        """Return what the last name of a path says beside its siblings: `bad_parts` explains `good_parts`."""
        found = meaning_of(parts[-1])
        siblings = self._children.get(parts[:-1], set())
        if found.kind == "anomaly" and found.rest and (found.view or found.rest in good_counterparts(siblings)):
            return Meaning("anomaly")
        if found.kind == "unknown" and good_counterparts([parts[-1]]) & anomaly_counterparts(siblings):
            return Meaning("good")
        return found

    def _named(self, parts: Parts) -> Place:
        kind: Kind = "open"
        of_type = split = None
        words: list[str] = []
        above_is_known = meaning_of(self.root.name).kind in ("split", "anomaly")
        for depth in range(1, len(parts) + 1):
            name, found = parts[depth - 1], self._meaning(parts[:depth])
            if found.kind in ("unknown", "good", "anomaly") and kind != "mask" and is_derived(name):
                path = "/".join(parts[:depth])
                reason = f"{path}/ does not hold images of the camera by its name: say what it is with {MAP_FORM}"
                return Place("unknown", split=split, reason=reason)
            if found.kind == "neutral":
                continue
            if found.kind == "mask":
                kind = "mask"
                words += filter(None, found.rest.split("_"))
                continue
            words += normalised(name).split("_")
            split = split or found.split
            if kind == "mask" or found.kind == "split":
                above_is_known = True
            elif found.kind in ("good", "anomaly", "unlabelled"):
                if {kind, found.kind} == {"good", "anomaly"}:
                    path = "/".join(parts[:depth])
                    return Place("unknown", reason=f"{path}/ is named both good and an anomaly: say which, {MAP_FORM}")
                kind = found.kind if kind == "open" else kind
                of_type = of_type or (found.rest if found.kind == "anomaly" and found.rest else None)
                above_is_known = True
            elif kind == "anomaly":
                if not (is_place_or_time(name) or normalised(name) in self._below_good):
                    of_type = of_type or name
            elif kind == "open":
                if is_place_or_time(name) or not (above_is_known and self._beside_good(parts[: depth - 1])):
                    return Place("unknown", split=split, reason=self._not_understood(parts, depth))
                kind, of_type = "anomaly", name
        return Place(kind, of_type, split, tuple(words))

    def _beside_good(self, parts: Parts) -> bool:
        """Return whether the folder `parts`, or the same place of another split, holds a folder of good images."""
        places = [parts]
        for depth, name in enumerate(parts):
            if meaning_of(name).kind == "split":
                others = self._children.get(parts[:depth], set())
                places += [(*parts[:depth], other, *parts[depth + 1 :]) for other in others]
        return any(
            self._meaning((*place, child)).kind == "good" for place in places for child in self._children.get(place, ())
        )

    def _not_understood(self, parts: Parts, depth: int) -> str:
        path = "/".join(parts[:depth])
        below = [folder[depth:] for folder in self.folders if folder[:depth] == parts[:depth]]
        if any(meaning_of(name).kind in ("good", "anomaly", "split") for names in below for name in names):
            good = next((names[-1] for names in below if names and meaning_of(names[-1]).kind == "good"), "good")
            return (
                f"{path}/ holds folders that are understood, and it is not: give {self.root / path} itself, or say "
                f"what the folders are, as in --map '*/{good}=good'"
            )
        return (
            f"{path}/ is not understood: name it good, anomaly/{parts[depth - 1]} or unlabelled, say so with "
            f"{MAP_FORM}, or give the label of each file in an index.csv"
        )


def data_root(folder: Path, files: Sequence[Path]) -> Path:
    """Return the folder to read: the given one, or the only folder in it whose name says nothing."""
    while True:
        tops = {file.relative_to(folder).parts[0] if file.parent != folder else "" for file in files}
        if len(tops) != 1 or "" in tops or meaning_of(next(iter(tops))).kind != "unknown":
            return folder
        below = folder / next(iter(tops))
        deeper = {file.relative_to(below).parts[0] for file in files if file.parent != below}
        tells = any(meaning_of(name).kind not in ("unknown", "neutral") for name in deeper)
        if not tells and (len(deeper) != 1 or any(file.parent == below for file in files)):
            return folder
        folder = below


def _words(parts: Sequence[str]) -> Parts:
    """Return the words of a path that say something of its kind of images."""
    words: list[str] = []
    for name in parts:
        found = meaning_of(name)
        if found.kind == "mask":
            words += filter(None, found.rest.split("_"))
        elif found.kind != "neutral":
            words += normalised(name).split("_")
    return tuple(words)
