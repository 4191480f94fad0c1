"""Make the plan of an import for a classifier: the class of each image, by its folder or by an index.csv.

`<class>/…`, also below `train/`, `val/` and `test/`, or with these below the class. Folders that say nothing, such as
`images/`, are passed over where no class lies beside them. Spellings of one class are never merged: the plan asks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipelines.config.class_names import BadClass, class_name, is_unlabelled, spelling
from pipelines.ingest.folder_files import FolderFiles, looks_like_mask
from pipelines.ingest.folder_maps import CLASS_MAP_FORM, FolderMaps
from pipelines.ingest.folder_names import mask_base, meaning_of
from pipelines.ingest.import_index import read_indexes
from pipelines.ingest.import_names import group_same_stems, inbox_name, safe_part
from pipelines.ingest.import_plan import ImportPlan, PlannedImage, PlanRow
from pipelines.ingest.inbox_keys import INDEX
from pipelines.ingest.name_lists import count_note, some

LEAST_IMAGES = 8  # of a class; see pipelines.datasets.class_rules
_EXPECTED = "give one with a folder for each class"
Parts = tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """What a folder was taken for: a class, or unlabelled without one, or not understood for a reason."""

    label: str | None = None
    split: str | None = None
    depth: int = 0  # of the folder that named the class
    reason: str = ""


def plan_classes(folder: Path, files: FolderFiles, maps: Mapping[str, str], known: Collection[str]) -> ImportPlan:
    """Return the plan for importing `folder` with its `files`; what is not understood is among its `problems`.

    Args:
        folder: the folder of images.
        files: what it holds.
        maps: what folders are: a class, unlabelled or ignore. A label of an index.csv may stand for a folder.
        known: classes that the project has already.

    Raises:
        BadFolder: a map fits nothing, or an index.csv cannot be read.
    """
    return _ClassPlan(folder, files, maps, known).plan()


class _ClassPlan:
    def __init__(self, given: Path, files: FolderFiles, maps: Mapping[str, str], known: Collection[str]) -> None:
        self.root = _class_root(given, files)
        self._files, self._known = files, set(known)
        self.index = read_indexes(self.root, files.images, files.others)
        labels = {row["label"] for row in self.index.rows.values() if row.get("label")}
        of_folders = {name: meaning for name, meaning in maps.items() if name not in labels or (given / name).is_dir()}
        self._said = FolderMaps(of_folders, given, self.root, [*files.images, *files.others], "classification")
        self._said_of_labels = {name: meaning for name, meaning in maps.items() if name in labels}
        self.problems = [f"{self._path(path)} cannot be read: {why}" for path, why in files.unreadable]
        self.notes = [*count_note("links lead to nothing", map(self._path, files.broken_links)), *self.index.notes]
        self._sources: dict[str, Counter[str]] = defaultdict(Counter)  # by class, what to type for it in a map

    def plan(self) -> ImportPlan:
        images: list[PlannedImage] = []
        rows: dict[tuple[str, str, str], int] = Counter()
        names: set[str] = set()
        for file in self._images():
            place = self._place(self._parts(file))
            try:
                label = self._label(file, place)
            except BadClass as error:
                self._problem(str(error))
                meaning = "?"
            else:
                meaning = label or "unlabelled"
                name = inbox_name(self.root, file, self._files.endings, names)
                by_index = label is not None and safe_part(label) != label
                metadata = self.index.rows.get(file, {})
                images.append(PlannedImage(file, name, label, split=place.split, metadata=metadata, by_index=by_index))
            rows["/".join(self._parts(file)) or ".", meaning, place.split or ""] += 1
        images, same = group_same_stems(images, self.root)
        self._check(images)
        self.notes += [*self.index.without_row(self.root, [image.file for image in images]), *same, *self._left_aside()]
        table = tuple(PlanRow(where, meaning, count, 0, split) for (where, meaning, split), count in rows.items())
        return ImportPlan(
            self.root, tuple(images), table, tuple(self.problems), tuple(self.notes), f"{_EXPECTED}, <class>/…"
        )

    def _images(self) -> list[Path]:
        """Return the images to import: not those that a map ignores, nor masks beside an image."""
        images = [file for file in self._files.images if not self._said.ignores(self._parts(file))]
        if ignored := len(self._files.images) - len(images):
            self.notes.append(f"{ignored} images are ignored as --map says")
        stems = {(file.parent, file.stem.casefold()) for file in images}
        masks = [
            file
            for file in images
            if (base := mask_base(file.stem)) and (file.parent, base[0].casefold()) in stems and looks_like_mask(file)
        ]
        self.notes += count_note("masks are left aside, which classes do not use", map(self._path, masks))
        return [file for file in images if file not in set(masks)]

    def _label(self, file: Path, place: _Place) -> str | None:
        """Return the class of an image, None if it is unlabelled; an index.csv goes before its folder.

        Raises:
            BadClass: it is not understood; says what to do.
        """
        if text := self.index.rows.get(file, {}).get("label"):
            said = self._said_of_labels.get(text, text)
            if is_unlabelled(said):
                return None
            try:
                label = class_name(said)
            except BadClass as error:
                raise BadClass(f"{self._path(file)}: the label of its {INDEX}: {error}") from None
            self._sources[label][text] += 1
            return label
        if place.reason:
            raise BadClass(place.reason)
        if place.label is not None:
            self._sources[place.label]["/".join(self._parts(file)[: place.depth]) or "."] += 1
        return place.label

    def _place(self, parts: Parts) -> _Place:
        """Return what the folder at `parts` below the root was taken for."""
        said = self._said.find(parts)
        # The folder that somebody named a class is no split, whatever its name: a class may be called `train`.
        others = parts[: said[1] - 1] + parts[said[1] :] if said and said[1] else parts
        split = next((found for name in others if (found := meaning_of(name).split)), None)
        if said:
            return _Place(said[0].type, split, said[1])
        for depth in range(1, len(parts) + 1):
            if self._passed_over(parts[:depth]):
                continue
            name = parts[depth - 1]
            if is_unlabelled(name):
                return _Place(None, split, depth)
            try:
                return _Place(class_name(name), split, depth)
            except BadClass as error:
                path = "/".join(parts[:depth])
                return _Place(split=split, reason=f"{path}/: {error}, or say what it is with {CLASS_MAP_FORM}")
        if split == "test":
            return _Place(None, split)
        where = f"{'/'.join(parts)}/" if parts else f"{self.root.name}/ itself"
        reason = (
            f"{where} holds images and is no folder of a class: put them into folders named as their classes, say what "
            f"they are with {CLASS_MAP_FORM} (. is the whole folder), or give the label of each file in an {INDEX}"
        )
        return _Place(split=split, reason=reason)

    def _passed_over(self, parts: Parts) -> bool:
        """Return whether a folder names no class: a split, or a word that says nothing with only such beside it."""
        meanings = [meaning_of(name) for name in self._children.get(parts[:-1], ())]
        if meaning_of(parts[-1]).split:
            return True
        return meaning_of(parts[-1]).kind == "neutral" and all(found.kind in ("neutral", "split") for found in meanings)

    @cached_property
    def _children(self) -> dict[Parts, set[str]]:
        children: dict[Parts, set[str]] = {}
        for file in self._files.images:
            parts = self._parts(file)
            for depth in range(len(parts)):
                children.setdefault(parts[:depth], set()).add(parts[depth])
        return children

    def _check(self, images: Sequence[PlannedImage]) -> None:
        """Add what is wrong with the classes as a whole, and what to mind."""
        self._ask_about_spellings()
        sides: dict[str, set[str | None]] = {}
        for image in images:
            if image.label is not None:
                sides.setdefault(image.label, set()).add(image.split)
        if len(sides) == 1 and self._known <= set(sides) and not self.problems:
            (only,) = sides
            self._problem(
                f"{only!r} is the only class here, and a classifier takes at least 2: {_EXPECTED}, as in "
                f"{self.root.name}/<class>/…"
            )
        trained = {spelling(label) for label, of in sides.items() if of != {"test"}} | set(map(spelling, self._known))
        untrained = sorted(label for label in sides if spelling(label) not in trained)
        if untrained:
            self._problem(
                f"test/ has {'a class' if len(untrained) == 1 else f'{len(untrained)} classes'} that training does not "
                f"have: {some([repr(label) for label in untrained])}; add training images, or leave the class out with "
                f"--map {self._first_source(untrained[0])}=ignore"
            )
        counts = Counter(image.label for image in images if image.label is not None)
        few = [f"{label!r} ({count})" for label, count in sorted(counts.items()) if count < LEAST_IMAGES]
        if few:
            self.notes.append(
                f"a class takes at least {LEAST_IMAGES} images in all, and {len(few)} have fewer here: {some(few, 10)}"
            )
        if counts:
            least, most = min(counts.values()), max(counts.values())
            self.notes.append(
                f"{len(counts)} classes with {least if least == most else f'{least} to {most}'} images each"
            )

    def _ask_about_spellings(self) -> None:
        """Add a problem for each class that comes in several spellings, with the words that settle it."""
        alike: dict[str, list[str]] = {}
        for label in {*self._sources, *self._known}:
            alike.setdefault(spelling(label), []).append(label)
        for labels in alike.values():
            here = [label for label in labels if label in self._sources]
            if len(labels) == 1 or not here:
                continue
            most = min(labels, key=lambda label: (label not in self._known, -self._sources[label].total(), label))
            others = sorted(label for label in here if label != most)
            sources = [source for label in others for source in sorted(self._sources[label])]
            if not others:
                continue
            where = " (a class of the project already)" if most in self._known else ""
            self._problem(
                f"{', '.join(map(repr, others))} and {most!r}{where} differ only in case, spaces, underscores or "
                f'hyphens: if they are one class, say so with MAP="{";".join(f"{name}={most}" for name in sources)}" '
                "(of make) or --map; if not, rename one of them"
            )

    def _first_source(self, label: str) -> str:
        return min(self._sources[label], default=label)

    def _left_aside(self) -> list[str]:
        others = [file for file in self._files.others if file.name.lower() != INDEX]
        kinds = Counter(file.suffix.lower() or "no ending" for file in others)
        named = ", ".join(f"{count} {ending}" for ending, count in kinds.most_common())
        return [f"{len(others)} other files are left aside: {named}"] if others else []

    def _parts(self, file: Path) -> Parts:
        return file.relative_to(self.root).parts[:-1] if file.is_relative_to(self.root) else ()

    def _path(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else file.as_posix()

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def _class_root(folder: Path, files: FolderFiles) -> Path:
    """Return the folder to read: the given one, or the only folder in it if splits lie below or it has the same name.

    Archives are often unpacked so: `mushrooms/mushrooms/<class>/`. A folder with an index.csv is never left.
    """
    images = files.images
    indexed = {file.parent for file in files.others if file.name.lower() == INDEX}
    while folder not in indexed:
        tops = {image.relative_to(folder).parts[0] if image.parent != folder else "" for image in images}
        if len(tops) != 1 or "" in tops:
            return folder
        below = folder / next(iter(tops))
        if meaning_of(below.name).split or is_unlabelled(below.name):
            return folder
        inner = {image.relative_to(below).parts[0] for image in images if image.parent != below}
        splits = bool(inner) and all(meaning_of(name).split for name in inner)
        same = below.name.casefold() == folder.name.casefold() and len(inner) > 1
        if not (splits and len(inner) > 1) and not same:
            return folder
        folder = below
    return folder
