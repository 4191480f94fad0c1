"""What every annotation format is read into: the regions of image files, and what did not meet."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipelines.errors import InspectlineError
from pipelines.images.decode import open_header
from pipelines.images.orientation import SIDEWAYS, orientation_of
from pipelines.images.region_pixels import turned
from pipelines.images.regions import Region
from pipelines.ingest.folder_names import folded, meaning_of

_HEADER_PIXELS = 1 << 40  # only the header is read
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts it before the names of uploaded files


class BadAnnotations(InspectlineError):
    """An annotation file cannot be read or contradicts its images."""


@dataclass(frozen=True)
class Annotated:
    """What an annotation file says of one image.

    Attributes:
        regions: the marked regions. Default empty: the image shows nothing to mark.
        done: whether somebody annotated it; False for an image that is only listed. Default True.
        label: label of the whole image (good, anomaly), where the file gives one. Default None.
    """

    regions: tuple[Region, ...] = ()
    done: bool = True
    label: str | None = None


@dataclass(frozen=True)
class AnnotationSet:
    """The content of the annotation files of one format.

    Attributes:
        format: name of the format for people.
        images: what it says of each image file that was found.
        files: the annotation files and masks that were read, which are no images to import.
        notes: what did not meet or was left out, in lines for people.
    """

    format: str
    images: Mapping[Path, Annotated]
    files: frozenset[Path]
    notes: tuple[str, ...] = ()


@dataclass
class ImageFiles:
    """The image files of a folder, to be looked up by the names that annotation files use.

    Attributes:
        root: the imported folder.
        files: its image files.
    """

    root: Path
    files: tuple[Path, ...]
    _by_name: dict[str, list[Path]] = field(init=False, repr=False)
    _by_stem: dict[str, list[Path]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._by_name, self._by_stem = {}, {}
        for file in self.files:
            self._by_stem.setdefault(folded(file.stem), []).append(file)
            self._by_name.setdefault(folded(file.name), []).append(file)

    def find(self, name: str, beside: Path) -> Path | None:
        """Return the file that `name`, written in a file in the folder `beside`, stands for; None if there is none.

        Tried in this order: the path relative to `beside`, the longest common end of the paths, the name alone, the
        name without Label Studio's upload prefix. An ambiguous name finds the file nearest to `beside`, or nothing.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        candidates = self._by_name.get(folded(path.name)) or self._by_name.get(
            folded(without_upload_prefix(path.name)), []
        )
        if not candidates:
            return None
        wanted = [folded(part) for part in path.parts]

        def closeness(file: Path) -> tuple[int, int]:
            parts = [folded(part) for part in file.relative_to(self.root).parts]
            common = 0
            while common < min(len(parts), len(wanted)) and parts[-1 - common] == wanted[-1 - common]:
                common += 1
            return common, int(file.is_relative_to(beside))

        ranked = sorted(candidates, key=closeness, reverse=True)
        if len(ranked) > 1 and closeness(ranked[0]) == closeness(ranked[1]):
            return None
        return ranked[0]

    def beside(self, file: Path) -> Path | None:
        """Return the image with the stem of `file`: in its folder, or else the only one anywhere; None without one."""
        found = self._by_stem.get(folded(file.stem), [])
        own = [image for image in found if image.parent == file.parent]
        return own[0] if len(own) == 1 else found[0] if len(found) == 1 else None


def without_upload_prefix(name: str) -> str:
    """Return the name of a file without the prefix that Label Studio gives to uploads: `0a1b2c3d-7.png` is `7.png`."""
    return _UPLOAD_PREFIX.sub("", name, count=1)


@dataclass(frozen=True)
class Size:
    """The size of an image file.

    Attributes:
        width: width of the upright image in pixels.
        height: height of the upright image in pixels.
        orientation: its EXIF orientation, 1 to 8.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Return width and height of the pixels as stored."""
        return (self.height, self.width) if self.orientation in SIDEWAYS else (self.width, self.height)


def size_of(file: Path) -> Size:
    """Return the size of an image file from its header.

    Raises:
        BadImage: it is not a readable image.
    """
    image = open_header(file.read_bytes(), _HEADER_PIXELS)
    orientation = orientation_of(image)
    width, height = image.size
    return Size(height, width, orientation) if orientation in SIDEWAYS else Size(width, height, orientation)


def upright_regions(regions: Iterable[Region], declared: tuple[int, int] | None, file: Path) -> tuple[Region, ...]:
    """Return regions in pixels of the upright image; those drawn on the stored pixels are turned with it.

    Args:
        regions: regions in pixels of an image of the size `declared`.
        declared: width and height that the annotation file gives for the image; None where it gives none.
        file: the image file.

    Raises:
        BadAnnotations: the file has another size.
    """
    regions = tuple(regions)
    if not declared or not regions:
        return regions
    size = size_of(file)
    if declared == (size.width, size.height):
        return regions
    if declared == size.stored:
        return tuple(turned(region, size.orientation, size.stored) for region in regions)
    raise BadAnnotations(
        f"{file.name} was annotated at {declared[0]} x {declared[1]} pixels and the file has {size.width} x "
        f"{size.height}: export images and annotations at one size"
    )


def whole_image_label(words: Iterable[str]) -> str | None:
    """Return good or anomaly where the words for a whole image mean one of them; None of others or of both."""
    kinds = {meaning_of(word).kind for word in words} & {"good", "anomaly"}
    return next(iter(kinds)) if len(kinds) == 1 else None


def read_text(file: Path, fallback: str | None = None) -> str:
    """Return the text of an annotation file in UTF-8 or UTF-16, or else in the encoding `fallback`.

    Raises:
        BadAnnotations: it is none of them.
    """
    data = file.read_bytes()
    try:
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return io.TextIOWrapper(io.BytesIO(data), encoding="utf-16" if wide else "utf-8-sig").read()
    except UnicodeDecodeError:
        if fallback and b"\0" not in data:
            return data.decode(fallback, "replace")
        raise BadAnnotations(f"{file} is no UTF-8 text: save it as UTF-8") from None
