"""Make the plan of an import: which files are images and masks, and what each image shows."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.errors import BadImage
from pipelines.images.masks import open_mask
from pipelines.images.regions import BadRegions, Region
from pipelines.ingest.annotation_formats import Annotated, AnnotationSet, BadAnnotations, read_annotations, size_of
from pipelines.ingest.folder_files import FolderFiles, find_files, looks_like_mask, read_sidecar
from pipelines.ingest.folder_layouts import MAP_FORM, FolderTree, Parts, Place, data_root
from pipelines.ingest.folder_names import mask_base, meaning_of
from pipelines.ingest.import_index import read_indexes
from pipelines.ingest.import_plan import BadFolder, ImportPlan, PlannedImage, PlanRow, type_name
from pipelines.ingest.mask_pairs import pair_masks

_BY_MASK = "anomaly where its mask marks something, else good"
_ALWAYS_MASKS = ("mask", "gt", "groundtruth")


@dataclass(frozen=True)
class _Label:
    """What was decided of an image.

    Attributes:
        label: good, anomaly or None: unlabelled.
        type: type of the anomaly.
        meaning: how it was decided, for the plan.
        regions: what was marked.
        masks: its masks.
    """

    label: str | None
    type: str | None
    meaning: str
    regions: tuple[Region, ...] = ()
    masks: tuple[Path, ...] = ()


class _Planner:
    """Collects what is decided, file by file."""

    def __init__(self, root: Path, files: FolderFiles, maps: Mapping[str, str]) -> None:
        self.files = files
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.root = root
        self.sets = self._read_sets()
        self.index = read_indexes(root, files.images, files.others)
        self.notes += self.index.notes
        taken = {file for found in self.sets for file in found.files}
        self.tree = FolderTree(root, [file for file in files.images if file not in taken], maps)
        self.annotated = self._merge_sets()
        self.sidecars = self._read_sidecars()
        candidates = [file for file in files.images if file not in taken]
        self.ignored = [file for file in candidates if self.place(file).kind == "ignore"]
        candidates = [file for file in candidates if self.place(file).kind != "ignore"]
        masks = self._mask_files(candidates)
        self.images = [file for file in candidates if file not in masks]
        pairs = pair_masks(self.tree, self.images, sorted(masks))
        self.masks = pairs.masks
        self.problems += pairs.problems
        self._left_aside(taken)

    def place(self, file: Path) -> Place:
        return self.tree.place(self.parts(file))

    def parts(self, file: Path) -> Parts:
        return file.relative_to(self.root).parts[:-1]

    def path(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def _read_sets(self) -> list[AnnotationSet]:
        try:
            return read_annotations(self.root, self.files.images, self.files.others)
        except (BadAnnotations, BadImage) as error:
            self.problems.append(str(error))
            return []

    def _merge_sets(self) -> dict[Path, tuple[Annotated, str]]:
        merged: dict[Path, tuple[Annotated, str]] = {}
        for found in self.sets:
            self.notes += [f"{found.format}: {note}" for note in found.notes]
            for image, annotated in found.images.items():
                earlier = merged.get(image)
                if earlier and earlier[0].regions and annotated.regions and earlier[0] != annotated:
                    self.problems.append(
                        f"{self.path(image)} is annotated both in {earlier[1]} and in {found.format}: keep one of them"
                    )
                if earlier is None or annotated.regions:
                    merged[image] = annotated, found.format
        return merged

    def _read_sidecars(self) -> dict[tuple[Path, str], tuple[Region, ...]]:
        read: dict[tuple[Path, str], tuple[Region, ...]] = {}
        for file in self.files.others:
            try:
                if found := read_sidecar(file):
                    read[found[0].parent, found[0].name] = found[1]
            except BadRegions as error:
                self.problems.append(f"{self.path(file)}: {error}")
        stems = {(image.parent, image.stem) for image in self.files.images}
        orphans = [f"{name}.regions.json" for folder, name in read if (folder, name) not in stems]
        if orphans:
            self.problems.append(f"{len(orphans)} files of regions have no image ({', '.join(orphans[:3])}): add them")
        return read

    def _mask_files(self, candidates: Sequence[Path]) -> set[Path]:
        """Return the files that are masks: by folder, by suffix, or by format beside an image of the same stem."""
        masks = {file for file in candidates if self.place(file).kind == "mask"}
        others = [file for file in candidates if file not in masks]
        stems: dict[tuple[Path, str], list[Path]] = {}
        for file in others:
            stems.setdefault((file.parent, file.stem.casefold()), []).append(file)
        anywhere = {file.stem.casefold() for file in others}
        for file in others:
            base = mask_base(file.stem)
            if base is None:
                continue
            stem, word = base
            beside = (file.parent, stem.casefold()) in stems
            elsewhere = stem.casefold() in anywhere or word in _ALWAYS_MASKS or looks_like_mask(file)
            if beside or (elsewhere and not self.place(file).mapped):
                masks.add(file)
        for same in stems.values():
            same = [file for file in same if file not in masks]
            if len(same) > 1:
                alike = [file for file in same if looks_like_mask(file)]
                masks.update(alike if len(alike) < len(same) else [])
        return masks

    def _left_aside(self, taken: set[Path]) -> None:
        read = taken | {file for file in self.files.others if file.name.lower() == "index.csv"}
        read |= {file for file in self.files.others if file.name.lower().endswith((".regions.json", "labelmap.txt"))}
        others = [file for file in self.files.others if file not in read]
        if others:
            kinds = Counter(file.suffix.lower() or "no ending" for file in others)
            named = ", ".join(f"{count} {ending}" for ending, count in kinds.most_common())
            self.notes.append(f"{len(others)} other files are left aside: {named}")
        if self.ignored:
            self.notes.append(f"{len(self.ignored)} images are ignored as --map says")
        if all(file.parent == self.root for file in self.images) and _is_mask_folder(self.root) and not self.masks:
            self.problems.append(f"{self.root} is a folder of masks by its name: give the folder above it")
        elif not self.masks and any(self.place(file).kind == "anomaly" for file in self.images):
            siblings = [path for path in self.root.parent.iterdir() if path != self.root and path.is_dir()]
            for outside in filter(_is_mask_folder, siblings):
                self.notes.append(f"{outside} may hold masks of these images: give {self.root.parent} to import both")

    def label(self, file: Path) -> _Label | None:
        """Return what an image shows; None after adding a problem."""
        place, masks = self.place(file), self.masks.get(file, ())
        annotated, source = self._annotated(file)
        if text := self.index.rows.get(file, {}).get("label"):
            return self._by_index(file, text, annotated, masks)
        if place.kind == "unknown" and not (annotated and annotated.done):
            self._problem(place.reason)
            return None
        if annotated and not annotated.done and place.kind == "open":
            return _Label(None, None, f"unlabelled: {source} does not annotate it")
        if annotated and annotated.done:
            return self._by_annotation(file, place, annotated, source, masks)
        if place.kind == "good":
            return self._good(file, masks)
        if place.kind == "anomaly":
            shown = f"anomaly, type {place.type}" if place.type else "anomaly"
            return _Label("anomaly", place.type, shown, masks=masks)
        if place.kind == "unlabelled":
            if masks:
                self._problem(f"{self.path(file)} has a mask and is in a folder named unlabelled: name the folder anew")
            return _Label(None, None, "unlabelled")
        return self._open(file, place, masks)

    def _annotated(self, file: Path) -> tuple[Annotated | None, str]:
        """Return what annotation files say of an image, and which; its own sidecar goes before others."""
        regions = self.sidecars.get((file.parent, file.stem))
        if regions is not None:
            return Annotated(regions), "its .regions.json"
        return self.annotated.get(file, (None, ""))

    def _by_index(self, file: Path, text: str, annotated: Annotated | None, masks: tuple[Path, ...]) -> _Label | None:
        """Return what the columns `label` and `type` of an index.csv say, with the regions of other files."""
        kind = meaning_of(text).kind
        if kind not in ("good", "anomaly", "unlabelled"):
            self._problem(
                f"{self.path(file)}: the label {text!r} of index.csv is none of good, anomaly and unlabelled: write "
                "what kind of anomaly it is into a column type"
            )
            return None
        regions = tuple(_without_general_type(region) for region in annotated.regions) if annotated else ()
        if kind == "anomaly":
            of_type = self.index.rows[file].get("type") or type_name(regions)
            return _Label("anomaly", of_type, "by index.csv", regions, masks)
        if any(not _is_good(region) for region in regions):
            self._problem(
                f"{self.path(file)}: index.csv says {kind}, and regions are marked in it: correct one of them"
            )
            return None
        return _Label("good" if kind == "good" else None, None, "by index.csv")

    def _by_annotation(
        self, file: Path, place: Place, annotated: Annotated, source: str, masks: tuple[Path, ...]
    ) -> _Label | None:
        regions = tuple(_without_general_type(region) for region in annotated.regions if not _is_good(region))
        label = annotated.label or ("anomaly" if regions or (masks and self._marks(file, masks)) else None)
        if label is None:
            label = place.kind if place.kind in ("good", "anomaly") else "good"
        if label == "good" and (regions or place.kind == "anomaly"):
            what = "marks regions in it" if regions else "says that it is good"
            self._problem(f"{self.path(file)}: {source} {what}, and it is labelled otherwise: correct one of them")
            return None
        if label == "anomaly" and place.kind == "good":
            self._problem(f"{self.path(file)} is in a folder of good images, and {source} marks regions in it")
            return None
        kind = (type_name(regions) or place.type) if label == "anomaly" else None
        return _Label(label, kind, f"by {source}", regions, masks if label == "anomaly" else ())

    def _good(self, file: Path, masks: tuple[Path, ...]) -> _Label | None:
        if masks and self._marks(file, masks):
            self._problem(
                f"{self.path(file)} is in a folder of good images, and its mask {self.path(masks[0])} marks something: "
                "move one of them"
            )
            return None
        return _Label("good", None, "good")

    def _open(self, file: Path, place: Place, masks: tuple[Path, ...]) -> _Label | None:
        folder = file.parent
        with_masks = [image for image in self.images if image.parent == folder and image in self.masks]
        if with_masks:
            if not masks:
                self._problem(
                    f"{self.path(file)} has no mask, and other images of {folder.name}/ have: add it, or say what its "
                    f"folder is with {MAP_FORM}"
                )
                return None
            return _Label("anomaly" if self._marks(file, masks) else "good", None, _BY_MASK, masks=masks)
        if any(self.sets):
            return _Label(None, None, "unlabelled: no annotation file lists it")
        if place.split == "test":
            if self.tree.labelled_below("test"):
                self._problem(f"{self.path(file)} lies beside folders with a label and has none: move it into one")
                return None
            return _Label(None, None, "unlabelled: in a test split without folders")
        if self.tree.labelled_below(place.split) if place.split else self.tree.labelled:
            self._problem(f"{self.path(file)} lies beside folders with a label and has none: move it into one")
            return None
        if not self.parts(file) and (kind := meaning_of(self.root.name).kind) in ("anomaly", "unlabelled"):
            return _Label("anomaly" if kind == "anomaly" else None, None, f"{kind}, by the folder's name")
        if not self.parts(file) and meaning_of(self.root.name).split == "test":
            return _Label(None, None, "unlabelled: in a test split without folders")
        return _Label("good", None, "good: images alone")

    def _marks(self, file: Path, masks: Sequence[Path]) -> bool:
        """Return whether any mask marks a pixel; a mask that cannot be read does, so that ingest says why."""
        try:
            size = size_of(file)
            return any(bool(open_mask(mask.read_bytes(), (size.width, size.height)).any()) for mask in masks)
        except BadImage as error:
            self._problem(f"{self.path(masks[0])}: {error}")
            return True

    def _problem(self, text: str) -> None:
        if text and text not in self.problems:
            self.problems.append(text)


def plan_import(folder: Path, maps: Mapping[str, str] | None = None) -> ImportPlan:
    """Return the plan for importing a folder; what is not understood is among its `problems`.

    Args:
        folder: the folder of images.
        maps: what folders are, by path or pattern: good, anomaly, anomaly/TYPE, mask, unlabelled, ignore.

    Raises:
        BadFolder: there is no such folder, or a map fits none.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise BadFolder(f"{folder} is no folder: give one that holds images")
    files = find_files(folder)
    root = data_root(folder, files.images) if files.images else folder
    planner = _Planner(root, files, maps or {})
    images: list[PlannedImage] = []
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    names: set[str] = set()
    for file in planner.images:
        place, label = planner.place(file), planner.label(file)
        meaning = label.meaning if label else "?"
        row = rows.setdefault(("/".join(planner.parts(file)) or ".", meaning, place.split or ""), Counter())
        row["images"] += 1
        if label:
            row["masks"] += len(label.masks)
            name = _name(planner.root, file, files.endings, names)
            images.append(
                PlannedImage(
                    file,
                    name,
                    label.label,
                    _safe_type(label.type),
                    place.split,
                    label.masks,
                    label.regions,
                    metadata=planner.index.rows.get(file, {}),
                )
            )
    images, same = _group_same_stems(images, root)
    table = [
        PlanRow(folder_name, meaning, row["images"], row["masks"], split)
        for (folder_name, meaning, split), row in rows.items()
    ]
    return ImportPlan(root, tuple(images), tuple(table), tuple(planner.problems), (*planner.notes, *same))


def _group_same_stems(images: Sequence[PlannedImage], root: Path) -> tuple[list[PlannedImage], list[str]]:
    """Put images of one folder and stem (`7.jpg`, `7.png`) into one group, and say so."""
    stems: dict[tuple[Path, str], list[PlannedImage]] = {}
    for image in images:
        stems.setdefault((image.file.parent, image.file.stem.casefold()), []).append(image)
    groups = {
        entry.file: f"{image.name.rpartition('.')[0]}"
        for same in stems.values()
        if len(same) > 1
        for image in same[:1]
        for entry in same
    }
    grouped = [replace(image, group=groups.get(image.file)) for image in images]
    several = [same for same in stems.values() if len(same) > 1]
    if not several:
        return grouped, []
    first = " and ".join(image.file.relative_to(root).as_posix() for image in several[0])
    note = f"{len(several)} names stand for several files ({first}…): they are one group, and share masks of that name"
    return grouped, [note]


def _is_mask_folder(folder: Path) -> bool:
    found = meaning_of(folder.name)
    return found.kind == "mask" and not found.rest


def _is_good(region: Region) -> bool:
    return region.type is not None and meaning_of(region.type).kind == "good"


def _without_general_type(region: Region) -> Region:
    """Return a region without the type `anomaly`, which stands for no type."""
    return replace(region, type=None) if region.type and region.type.casefold() == "anomaly" else region


def _safe_type(kind: str | None) -> str | None:
    return None if kind is None or kind.casefold() == "anomaly" else safe_part(kind)


def _name(root: Path, file: Path, endings: Mapping[Path, str], names: set[str]) -> str:
    """Return a name below the inbox that is valid, unique by its stem, and no name of a mask."""
    parts = [safe_part(unicodedata.normalize("NFC", part)) for part in file.relative_to(root).parts]
    stem, dot, ending = parts[-1].rpartition(".")
    if file in endings:
        stem, ending = (stem if dot and len(ending) <= 5 else parts[-1]), endings[file][1:]
    if mask_base(stem):
        stem += "-image"
    folder = "/".join(parts[:-1])
    path = f"{folder}/{stem}" if folder else stem
    if path.casefold() in names:
        path += f"-{hashlib.sha256(str(file).encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"
    names.add(path.casefold())
    return f"{path}.{ending}"


def safe_part(part: str) -> str:
    """Replace characters that not every S3 server accepts in a path component; a hash suffix keeps it unique."""
    safe = re.sub(r"[^\w .=+,()@-]+", "_", part).strip(" ") or "_"
    if safe == part:
        return part
    stem, dot, ending = safe.rpartition(".")
    digits = hashlib.sha256(part.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{stem}-{digits}.{ending}" if dot and stem else f"{safe}-{digits}"
