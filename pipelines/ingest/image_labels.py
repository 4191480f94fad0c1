"""Decide what each image of an imported folder shows: good, an anomaly of a type, or unlabelled.

An index.csv goes before annotation files, these before the names of folders, and these before masks. What contradicts
itself is a problem of the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import BadImage
from pipelines.images.mask_placement import placed
from pipelines.images.regions import Region
from pipelines.ingest.annotation_formats import Annotated, size_of
from pipelines.ingest.folder_contents import FolderContents
from pipelines.ingest.folder_layouts import Place
from pipelines.ingest.folder_maps import MAP_FORM
from pipelines.ingest.folder_names import meaning_of
from pipelines.ingest.import_plan import type_name
from pipelines.ingest.unread_files import UnreadAnnotations

_BY_MASK = "anomaly where its mask marks something, else good"
_FORMS = "COCO JSON, Pascal VOC, YOLO, CVAT, LabelMe, VIA, Label Studio JSON or a CSV of boxes"


@dataclass(frozen=True)
class ImageLabel:
    """What was decided of an image.

    Attributes:
        label: good, anomaly or None: unlabelled.
        type: type of the anomaly.
        meaning: how it was decided, for the plan.
        regions: what was marked. Default empty.
        masks: its masks. Default empty.
        guessed: whether neither a name, a mask, an annotation nor a person said so. Default False.
    """

    label: str | None
    type: str | None
    meaning: str
    regions: tuple[Region, ...] = ()
    masks: tuple[Path, ...] = ()
    guessed: bool = False


class ImageLabels:
    """Labels the images of a folder.

    Args:
        contents: the sorted files of the folder.

    Attributes:
        problems: what contradicts itself or is not understood.
        notes: what was not used.
    """

    def __init__(self, contents: FolderContents) -> None:
        self._files = contents
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._labels: dict[Path, ImageLabel] = {}
        self._folders_with_masks = {image.parent for image in contents.masks}
        for image in contents.images:
            if label := self._label(image):
                self._labels[image] = label
        self._compare_unread()

    def of(self, image: Path) -> ImageLabel | None:
        """Return what an image shows; None if there is a problem with it."""
        return self._labels.get(image)

    def _compare_unread(self) -> None:
        """Refuse labels that are only guessed where a file that is not read seems to say more."""
        contents = self._files
        guessed = {image for image, label in self._labels.items() if label.guessed}
        found = UnreadAnnotations(contents.images).find(contents.unread)
        telling = [file for file, images in found.items() if images & guessed]
        if telling:
            count = len(set().union(*(found[file] & guessed for file in telling)))
            self._problem(
                f"{_look(telling, contents)} like annotations of {count} images, in a form that is not read: export "
                f"them as {_FORMS}, write an index.csv (file, label, type), or say what the images are with {MAP_FORM} "
                "(. is the whole folder)"
            )
        if others := [file for file in found if file not in telling]:
            self.notes.append(f"{_look(others, contents)} like annotations, in a form that is not read")

    def _label(self, file: Path) -> ImageLabel | None:
        """Return what an image shows; None after adding a problem."""
        place, masks = self._files.place(file), self._files.masks.get(file, ())
        annotated, source = self._files.annotated(file)
        if text := self._files.index.rows.get(file, {}).get("label"):
            return self._by_index(file, text, annotated, masks)
        if place.kind == "unknown" and not (annotated and annotated.done):
            self._problem(place.reason)
            return None
        if annotated and not annotated.done and place.kind == "open":
            return ImageLabel(None, None, f"unlabelled: {source} does not annotate it")
        if annotated and annotated.done:
            return self._by_annotation(file, place, annotated, source, masks)
        if place.kind == "good":
            return self._good(file, masks)
        if place.kind == "anomaly":
            shown = f"anomaly, type {place.type}" if place.type else "anomaly"
            return ImageLabel("anomaly", place.type, shown, masks=masks)
        if place.kind == "unlabelled":
            if masks:
                self._problem(
                    f"{self._path(file)} has a mask and is in a folder named unlabelled: name the folder anew"
                )
            return ImageLabel(None, None, "unlabelled")
        return self._open(file, place, masks)

    def _by_index(
        self, file: Path, text: str, annotated: Annotated | None, masks: tuple[Path, ...]
    ) -> ImageLabel | None:
        """Return what the columns `label` and `type` of an index.csv say, with the regions of other files."""
        kind = meaning_of(text).kind
        if kind not in ("good", "anomaly", "unlabelled"):
            self._problem(
                f"{self._path(file)}: the label {text!r} of index.csv is none of good, anomaly and unlabelled: write "
                "what kind of anomaly it is into a column type"
            )
            return None
        regions = annotated.regions if annotated else ()
        if kind == "anomaly":
            of_type = self._files.index.rows[file].get("type") or type_name(regions)
            return ImageLabel("anomaly", of_type, "by index.csv", regions, masks)
        if any(not _is_good(region) for region in regions):
            self._problem(
                f"{self._path(file)}: index.csv says {kind}, and regions are marked in it: correct one of them"
            )
            return None
        return ImageLabel("good" if kind == "good" else None, None, "by index.csv")

    def _by_annotation(
        self, file: Path, place: Place, annotated: Annotated, source: str, masks: tuple[Path, ...]
    ) -> ImageLabel | None:
        regions = tuple(region for region in annotated.regions if not _is_good(region))
        if place.kind == "unlabelled" and (regions or annotated.label):
            self._problem(f"{self._path(file)} is in a folder named unlabelled, and {source} labels it: move it")
            return None
        if place.kind == "unlabelled":
            return ImageLabel(None, None, "unlabelled")
        label = annotated.label or ("anomaly" if regions or (masks and self._marks(file, masks)) else None)
        if label is None:
            label = place.kind if place.kind in ("good", "anomaly") else "good"
        if label == "good" and (regions or place.kind == "anomaly"):
            what = "marks regions in it" if regions else "says that it is good"
            self._problem(f"{self._path(file)}: {source} {what}, and it is labelled otherwise: correct one of them")
            return None
        if label == "anomaly" and place.kind == "good":
            self._problem(f"{self._path(file)} is in a folder of good images, and {source} marks regions in it")
            return None
        kind = (type_name(regions) or place.type) if label == "anomaly" else None
        return ImageLabel(label, kind, f"by {source}", regions, masks if label == "anomaly" else ())

    def _good(self, file: Path, masks: tuple[Path, ...]) -> ImageLabel | None:
        if masks and self._marks(file, masks):
            self._problem(
                f"{self._path(file)} is in a folder of good images, and its mask {self._path(masks[0])} marks something"
                ": move one of them"
            )
            return None
        return ImageLabel("good", None, "good")

    def _open(self, file: Path, place: Place, masks: tuple[Path, ...]) -> ImageLabel | None:
        if file.parent in self._folders_with_masks:
            if not masks:
                self._problem(
                    f"{self._path(file)} has no mask, and other images of {file.parent.name}/ have: add it (black for "
                    "a good image), or give the label of each file in an index.csv"
                )
                return None
            return ImageLabel("anomaly" if self._marks(file, masks) else "good", None, _BY_MASK, masks=masks)
        if any(self._files.sets):
            return ImageLabel(None, None, "unlabelled: no annotation file lists it")
        if place.split == "test":
            if self._files.tree.labelled_below("test"):
                self._problem(f"{self._path(file)} lies beside folders with a label and has none: move it into one")
                return None
            return ImageLabel(None, None, "unlabelled: in a test split without folders", guessed=True)
        if self._files.tree.labelled_below(place.split) if place.split else self._files.tree.labelled:
            self._problem(f"{self._path(file)} lies beside folders with a label and has none: move it into one")
            return None
        if not self._files.parts(file) and (kind := meaning_of(self._files.root.name).kind) in (
            "anomaly",
            "unlabelled",
        ):
            return ImageLabel("anomaly" if kind == "anomaly" else None, None, f"{kind}, by the folder's name")
        if not self._files.parts(file) and meaning_of(self._files.root.name).split == "test":
            return ImageLabel(None, None, "unlabelled: in a test split without folders", guessed=True)
        return ImageLabel("good", None, "good: images alone", guessed=True)

    def _marks(self, file: Path, masks: Sequence[Path]) -> bool:
        """Return whether any mask marks a pixel; a mask that cannot be read does, so that ingest says why."""
        try:
            size = size_of(file)
            upright = (size.width, size.height)
            return any(bool(placed(mask.read_bytes(), upright, size.orientation).marked.any()) for mask in masks)
        except BadImage as error:
            self._problem(f"{self._path(masks[0])}: {error}")
            return True

    def _path(self, file: Path) -> str:
        return self._files.path(file)

    def _problem(self, text: str) -> None:
        if text and text not in self.problems:
            self.problems.append(text)


def _is_good(region: Region) -> bool:
    return region.type is not None and meaning_of(region.type).kind == "good"


def _look(files: Sequence[Path], contents: FolderContents) -> str:
    """Return which files look, up to the verb."""
    named = ", ".join(map(contents.path, files[:3]))
    return f"{named} looks" if len(files) == 1 else f"{named}{' …' if len(files) > 3 else ''} ({len(files)} files) look"
