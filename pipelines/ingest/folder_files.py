"""Walk a folder: its images (by ending or content), its other files, each file once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.images.decode import EXTENSIONS
from pipelines.images.file_signatures import looks_like
from pipelines.images.regions import Region, loads
from pipelines.ingest.file_names import left_alone
from pipelines.ingest.inbox_keys import REGIONS_ENDING

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
# Endings that are never opened to see whether they hold an image.
_OTHERS = frozenset(
    [
        ".txt",
        ".csv",
        ".json",
        ".xml",
        ".yaml",
        ".yml",
        ".md",
        ".html",
        ".htm",
        ".pdf",
        ".zip",
        ".tar",
        ".gz",
        ".7z",
        ".rar",
        ".py",
        ".ipynb",
        ".npy",
        ".npz",
        ".db",
        ".ini",
        ".log",
        ".xlsx",
        ".xls",
        ".doc",
        ".docx",
        ".mp4",
        ".avi",
        ".mov",
        ".parquet",
        ".sha256",
        ".md5",
        ".part",
        ".partial",
        ".filepart",
        ".tmp",
        ".crdownload",
    ]
)


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder.

    Attributes:
        images: image files, sorted.
        others: other files, sorted.
        endings: the ending to give an image whose name does not have the right one.
        broken_links: links that lead to nothing.
        unreadable: files and folders that cannot be read, and why.
    """

    images: tuple[Path, ...]
    others: tuple[Path, ...]
    endings: dict[Path, str]
    broken_links: tuple[Path, ...] = ()
    unreadable: tuple[tuple[Path, str], ...] = ()


def find_files(root: Path) -> FolderFiles:
    """Return the files below a folder, without hidden and system files; a linked file or folder counts once."""
    images: list[Path] = []
    others: list[Path] = []
    endings: dict[Path, str] = {}
    walk = _Walk(root)
    for file in sorted(walk.files()):
        if not os.access(file, os.R_OK):
            walk.unreadable.append((file, "you have no right to read it"))
        elif file.suffix.lower() in ENDINGS:
            images.append(file)
        elif file.suffix.lower() not in _OTHERS and (kind := _content(file)):
            images.append(file)
            endings[file] = kind
        else:
            others.append(file)
    return FolderFiles(tuple(images), tuple(others), endings, tuple(walk.broken_links), tuple(walk.unreadable))


def _content(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            kind = EXTENSIONS.get(looks_like(stream.read(32)) or "")
    except OSError:
        return None
    return f".{kind}" if kind else None


class _Walk:
    """Walks a folder, and collects what cannot be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken_links: list[Path] = []
        self.unreadable: list[tuple[Path, str]] = []

    def files(self) -> Iterator[Path]:
        """Yield each file once: first what lies there itself, then what is only linked to."""
        seen: set[Path] = {self.root.resolve()}
        links: list[Path] = []
        folders = [self.root]
        while folders or links:
            if folders:
                folder = folders.pop()
            else:
                linked = links.pop(0)
                target = self._target(linked)
                if target is None or target in seen:
                    continue
                seen.add(target)
                if not target.is_dir():
                    yield linked
                    continue
                folder = linked
            for entry in self._entries(folder):
                if entry.name.startswith(".") or left_alone(entry.name) == "system":
                    continue
                path = Path(entry.path)
                if entry.is_symlink():
                    links.append(path)
                elif entry.is_dir():
                    seen.add(path.resolve())
                    folders.append(path)
                elif entry.is_file() and path.resolve() not in seen:
                    seen.add(path.resolve())
                    yield path

    def _target(self, link: Path) -> Path | None:
        try:
            target = link.resolve()
            if target.exists():
                return target
        except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
            pass
        self.broken_links.append(link)
        return None

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            return sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable.append((folder, (error.strerror or str(error)).lower()))
            return []


def looks_like_mask(file: Path, flat: bool = True) -> bool:
    """Return whether an image file has few values as a mask does: at most 16 greys or indices, or 4 colours.

    Args:
        file: the image file.
        flat: what to return of an image with a single value, which may be an empty mask. Default True.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.format == "JPEG":
                return False
            pixels = np.asarray(image.convert("L") if image.mode in ("RGB", "RGBA", "LA") else image)
            if image.mode in ("RGB", "RGBA"):
                colours = np.asarray(image.convert("RGB"))
                if not (colours.max(axis=2) == colours.min(axis=2)).all():
                    return len(np.unique(colours.reshape(-1, 3), axis=0)) <= 4
            values = len(np.unique(pixels))
            return values <= 16 and (flat or values > 1)
    except Exception:  # a file that is no image is refused by ingest, which says why
        return False


def read_sidecar(file: Path) -> tuple[Path, tuple[Region, ...]] | None:
    """Return the path without `.regions.json` and the regions of a sidecar; None for other files.

    Raises:
        BadRegions: the sidecar cannot be read.
    """
    if not file.name.lower().endswith(REGIONS_ENDING):
        return None
    return file.with_name(file.name[: -len(REGIONS_ENDING)]), loads(file.read_bytes())
