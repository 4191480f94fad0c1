"""Sort the files of a folder: images, masks paired with them, annotations, index files, and what is left aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from pipelines.errors import BadImage
from pipelines.images.regions import BadRegions, Region
from pipelines.ingest.annotation_formats import Annotated, AnnotationSet, BadAnnotations, read_annotations
from pipelines.ingest.folder_files import FolderFiles, looks_like_mask, read_sidecar
from pipelines.ingest.folder_layouts import FolderTree, Parts, Place
from pipelines.ingest.folder_maps import MAP_FORM, FolderMaps
from pipelines.ingest.folder_names import mask_base, meaning_of
from pipelines.ingest.import_index import read_indexes
from pipelines.ingest.inbox_keys import INDEX, REGIONS_ENDING
from pipelines.ingest.mask_pairs import pair_masks
from pipelines.ingest.name_lists import count_note, some
from pipelines.ingest.unread_files import ARCHIVES, PICTURES

_ALWAYS_MASKS = ("mask", "gt", "groundtruth", "ground_truth")
_MASK_BYTES_PER_PIXEL = 0.15  # photographs compress to more; only smaller files are opened
_READ_ELSEWHERE = (REGIONS_ENDING, "labelmap.txt")


class FolderContents:
    """The files of an imported folder, sorted by what they are.

    Args:
        given: the folder given to the import.
        root: the folder that is read, `given` or one below it.
        files: its files.
        maps: what folders are, by path or pattern.

    Attributes:
        images: the images to import.
        masks: mask files by image.
        sets: what annotation files say.
        index: the rows of the index files.
        tree: what folders were taken for.
        unread: files that nothing read.
        problems: what is not understood.
        notes: what was decided or left aside.
    """

    def __init__(self, given: Path, root: Path, files: FolderFiles, maps: Mapping[str, str]) -> None:
        self.root, self._given = root, given
        said = FolderMaps(maps, given, root, [*files.images, *files.others])
        ignored = {file for file in (*files.images, *files.others) if said.ignores(self.parts(file))}
        all_images = [file for file in files.images if file not in ignored]
        self._others = [file for file in files.others if file not in ignored]
        self.problems: list[str] = [f"{self.path(path)} cannot be read: {why}" for path, why in files.unreadable]
        self.notes: list[str] = count_note("links lead to nothing", map(self.path, files.broken_links))
        self._damaged = False
        self.sets = self._read_sets(all_images)
        self.index = read_indexes(root, all_images, self._others)
        self.notes += self.index.notes
        taken = {file for found in self.sets for file in found.files}
        candidates = [file for file in all_images if file not in taken]
        self.tree = FolderTree(root, candidates, said)
        self._annotated = self._merge_sets()
        self._sidecars = self._read_sidecars(all_images)
        masks = self._mask_files(candidates)
        self.images = [file for file in candidates if file not in masks]
        self.notes += self.index.without_row(root, self.images)
        pairs = pair_masks(self.tree, self.images, sorted(masks))
        self.masks = pairs.masks
        self.problems += pairs.problems
        self._refuse_stray_masks()
        left = self._left_aside(taken, ignored)
        self.unread = [] if self._damaged else left

    def place(self, file: Path) -> Place:
        """Return what the folder of a file was taken for."""
        return self.tree.place(self.parts(file))

    def parts(self, file: Path) -> Parts:
        """Return the folders above a file, below the root; none for a file that lies outside it."""
        return file.relative_to(self.root).parts[:-1] if file.is_relative_to(self.root) else ()

    def path(self, file: Path) -> str:
        """Return the path of a file below the root, or below the given folder if it lies outside the root."""
        return file.relative_to(self.root if file.is_relative_to(self.root) else self._given).as_posix()

    def annotated(self, file: Path) -> tuple[Annotated | None, str]:
        """Return what annotation files say of an image, and which; its own sidecar goes before others."""
        regions = self._sidecars.get((file.parent, file.stem))
        if regions is not None:
            return Annotated(regions), f"its {REGIONS_ENDING}"
        return self._annotated.get(file, (None, ""))

    def _read_sets(self, images: Sequence[Path]) -> list[AnnotationSet]:
        try:
            return read_annotations(self.root, images, self._others)
        except (BadAnnotations, BadImage) as error:
            self._damaged = True  # the file is named already
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
                if earlier is None or annotated.regions or (annotated.done and not earlier[0].done):
                    merged[image] = annotated, found.format
        return merged

    def _read_sidecars(self, images: Sequence[Path]) -> dict[tuple[Path, str], tuple[Region, ...]]:
        read: dict[tuple[Path, str], tuple[Region, ...]] = {}
        for file in self._others:
            try:
                if found := read_sidecar(file):
                    read[found[0].parent, found[0].name] = found[1]
            except BadRegions as error:
                self.problems.append(f"{self.path(file)}: {error}")
        stems = {(image.parent, image.stem) for image in images}
        orphans = [f"{name}{REGIONS_ENDING}" for folder, name in read if (folder, name) not in stems]
        if orphans:
            self.problems.append(f"{len(orphans)} files of regions have no image ({', '.join(orphans[:3])}): add them")
        return read

    def _mask_files(self, candidates: Sequence[Path]) -> set[Path]:
        """Return the files that are masks: by folder, by name, or by format beside an image of the same stem."""
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
            if word == "before":  # `mask_7` is one only if there is a `7`
                if beside and looks_like_mask(file):
                    masks.add(file)
                continue
            elsewhere = stem.casefold() in anywhere or word in _ALWAYS_MASKS or looks_like_mask(file)
            if beside or (elsewhere and not self.place(file).mapped):
                masks.add(file)
        for same in stems.values():
            same = [file for file in same if file not in masks]
            if len(same) > 1:
                alike = [file for file in same if looks_like_mask(file)]
                masks.update(alike if len(alike) < len(same) else [])
        return masks

    def _refuse_stray_masks(self) -> None:
        """Refuse files that have few values, as masks do, among images that have many, and no name of a mask."""
        suspects = [file for file in self.images if file not in self.masks and file not in self.index.rows]
        suspects = [file for file in suspects if not self.place(file).mapped and self.place(file).kind != "unknown"]
        stray = [file for file in suspects if _is_small(file) and looks_like_mask(file, flat=False)]
        if stray and len(stray) < len(self.images):
            names = some([self.path(file) for file in stray], 3)
            self.problems.append(
                f"{len(stray)} {'file looks like a mask' if len(stray) == 1 else 'files look like masks'} and "
                f"{'is none' if len(stray) == 1 else 'are none'} by name or folder ({names}): name masks as "
                f"their images with _mask or put them into ground_truth/; if they are images, say so with {MAP_FORM}"
            )

    def _left_aside(self, taken: set[Path], ignored: set[Path]) -> list[Path]:
        """Note the files that nothing reads, and return them."""
        read = taken | {file for file in self._others if file.name.lower() == INDEX}
        read |= {file for file in self._others if file.name.lower().endswith(_READ_ELSEWHERE)}
        others = [file for file in self._others if file not in read]
        if others:
            kinds = Counter(file.suffix.lower() or "no ending" for file in others)
            named = ", ".join(f"{count} {ending}" for ending, count in kinds.most_common())
            self.notes.append(f"{len(others)} other files are left aside: {named}")
        pictures = [file for file in others if file.suffix.lower() in PICTURES]
        masks = [file for file in pictures if self.place(file).kind == "mask"]
        for line in count_note("masks are in a format that is not read", map(self.path, masks), 3):
            self.problems.append(f"{line}: save them as PNG, or say with --map FOLDER=ignore that they are not wanted")
        rest = [self.path(file) for file in pictures if file not in masks]
        self.notes += count_note("pictures or arrays are in a format that is not read; save images as PNG", rest)
        archives = [self.path(file) for file in others if file.suffix.lower() in ARCHIVES]
        self.notes += count_note("archives are not looked into; unpack what belongs to the data", archives)
        empty = [self.path(file) for file in self.images if not file.stat().st_size]
        self.notes += count_note("images are empty files (0 bytes), which the ingest will refuse", empty)
        if ignored:
            self.notes.append(f"{len(ignored)} files are ignored as --map says")
        self._note_masks_outside()
        return others

    def _note_masks_outside(self) -> None:
        if all(file.parent == self.root for file in self.images) and _is_mask_folder(self.root) and not self.masks:
            self.problems.append(f"{self.root} is a folder of masks by its name: give the folder above it")
        elif not self.masks and any(self.place(file).kind == "anomaly" for file in self.images):
            try:
                siblings = [path for path in self.root.parent.iterdir() if path != self.root and path.is_dir()]
            except OSError:
                return
            for outside in filter(_is_mask_folder, siblings):
                self.notes.append(f"{outside} may hold masks of these images: give {self.root.parent} to import both")


def _is_mask_folder(folder: Path) -> bool:
    found = meaning_of(folder.name)
    return found.kind == "mask" and not found.rest


def _is_small(file: Path) -> bool:
    """Return whether a file is small for its number of pixels, as masks are, or has one bit or a palette."""
    try:
        with Image.open(file) as image:
            if image.format == "JPEG":
                return False
            compressed = image.format in ("PNG", "WEBP", "TIFF")
            small = file.stat().st_size < 400 + _MASK_BYTES_PER_PIXEL * image.width * image.height
            return image.mode in ("1", "P") or (small if compressed else image.mode == "L")
    except Exception:  # a file that is no image is refused by ingest, which says why
        return False
