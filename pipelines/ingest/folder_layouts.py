"""Find out what the folders of a data set mean: good, anomalies by type, masks, splits, unlabelled.

A folder's name is understood (`pipelines.ingest.folder_names`), or the plan says that it is not, and nothing is
imported: a defect mistaken for a good image would be learnt as normal. A name that is not understood is a type of
anomaly only below a folder of anomalies, or below a split beside a folder of good images, as in MVTec AD. Images in no
named folder are good, or unlabelled in a test split; where each of them has a mask, those with an empty mask are good
and the others anomalies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pipelines.ingest.folder_names import (
    Meaning,
    anomaly_counterparts,
    good_counterparts,
    meaning_of,
    normalised,
)
from pipelines.ingest.import_plan import BadFolder

Kind = Literal["good", "anomaly", "unlabelled", "mask", "ignore", "open", "unknown"]
Parts = tuple[str, ...]
MAP_FORM = "--map FOLDER=good|anomaly|anomaly/TYPE|mask|unlabelled|ignore"


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
        maps: what somebody said that folders are, by folder or pattern relative to the root.
    """

    def __init__(self, root: Path, files: Sequence[Path], maps: Mapping[str, str] | None = None) -> None:
        self.root = root
        self._children: dict[Parts, set[str]] = {}
        self.folders: set[Parts] = set()
        for file in files:
            parts = file.relative_to(root).parts[:-1]
            self.folders.add(parts)
            for depth in range(len(parts)):
                self._children.setdefault(parts[:depth], set()).add(parts[depth])
        self._maps = [_read_map(folder, meaning, self) for folder, meaning in (maps or {}).items()]
        self._places: dict[Parts, Place] = {}

    def place(self, parts: Parts) -> Place:
        """Return what the folder at `parts` below the root was taken for."""
        if parts not in self._places:
            self._places[parts] = self._mapped(parts) or self._named(parts)
        return self._places[parts]

    @property
    def labelled(self) -> bool:
        """Return whether the name of any folder is good or an anomaly."""
        return any(self.place(parts).kind in ("good", "anomaly") for parts in self.folders)

    def labelled_below(self, split: str) -> bool:
        """Return whether any folder of this split is named good or an anomaly."""
        places = map(self.place, self.folders)
        return any(place.split == split and place.kind in ("good", "anomaly") for place in places)

    def _mapped(self, parts: Parts) -> Place | None:
        """Return what somebody said of the folder, or of the nearest folder above it."""
        for depth in range(len(parts), -1, -1):
            path = "/".join(parts[:depth]) or "."
            for pattern, meaning in self._maps:
                if fnmatchcase(path, pattern):
                    kind, _, of_type = meaning.partition("/")
                    split = next((found.split for found in map(meaning_of, parts) if found.split), None)
                    words = _words(parts[depth:]) if kind == "mask" else _words(parts)
                    return Place(kind, of_type or None, split, words, mapped=True)  # type: ignore[arg-type]
        return None

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
                of_type = of_type or name
            elif kind == "open":
                if not (above_is_known and self._beside_good(parts[: depth - 1])):
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
        below = self._children.get(parts[:depth], set())
        if any(meaning_of(name).kind in ("good", "anomaly", "split") for name in below):
            return f"{path}/ holds folders that are understood, and it is not: give {self.root / path} itself"
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


def _read_map(folder: str, meaning: str, tree: FolderTree) -> tuple[str, str]:
    """Return a folder (or pattern) and its meaning as given by `--map FOLDER=MEANING`.

    Raises:
        BadFolder: the meaning is none of those, or there is no such folder with images.
    """
    pattern = folder.replace("\\", "/").strip("/").removeprefix("./") or "."
    meaning = meaning.strip().strip("/")
    kind, _, of_type = meaning.partition("/")
    if kind not in ("good", "anomaly", "mask", "unlabelled", "ignore") or (of_type and kind != "anomaly"):
        raise BadFolder(f"--map {folder}={meaning}: {meaning!r} is no meaning of a folder: write {MAP_FORM}")
    known = {"."} | {"/".join(parts[:depth]) for parts in tree.folders for depth in range(1, len(parts) + 1)}
    if not any(fnmatchcase(path, pattern) for path in known):
        raise BadFolder(f"--map {folder}={meaning}: no folder {folder!r} with images is in {tree.root}")
    return pattern, meaning
