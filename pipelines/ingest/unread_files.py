"""Find files that look like annotations of images, and are in no form that is read.

Images whose annotations are not understood would be taken as good. A file looks like annotations if it has the stem of
an image, if it names images beside something else (a list of names alone, as `train.txt`, says nothing of what they
show), or if its own name says so (`annotations.json`, `labels.zip`).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipelines.ingest.annotation_formats.model import without_upload_prefix
from pipelines.ingest.folder_names import folded

_TEXTS = frozenset({".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv", ".txt", ".yaml", ".yml", ".xlsx"})
_NO_TABLES = frozenset({".txt", ".md", ".rst", ".html", ".htm", ".pdf", ".py", ".ipynb", ".yaml", ".yml", ".log"})
_ANNOTATIONS = re.compile(
    r"annot|anno(?:[^a-z]|$)|labels?(?:[^a-z]|$)|instances|coco|bbox|ground_?truth", re.IGNORECASE
)
_LINES = frozenset({".csv", ".tsv", ".txt"})
_PROSE = re.compile(r"(?:read_?me|licen[cs]e|copying|changelog|notes?|requirements)\b.*", re.IGNORECASE)
_MOST_BYTES = 32 << 20
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CHECKSUM = re.compile(r"[0-9a-f]{32,128}", re.IGNORECASE)
# Pictures and arrays that other programs read, and an import does not.
PICTURES = frozenset(
    f".{ending}"
    for ending in re.findall(
        r"\w+",
        "gif heic heif avif jp2 j2k jxl dng raw cr2 cr3 nef arw exr hdr psd svg npy npz mat pgm ppm pnm pbm dcm tga",
    )
)
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".zst"})


class UnreadAnnotations:
    """Looks up the images that files name.

    Args:
        images: the images of the import.
    """

    def __init__(self, images: Iterable[Path]) -> None:
        self._names: dict[str, set[Path]] = {}
        self._stems: dict[str, set[Path]] = {}
        for image in images:
            self._names.setdefault(folded(image.name), set()).add(image)
            self._stems.setdefault(folded(image.stem), set()).add(image)

    def find(self, files: Sequence[Path]) -> dict[Path, set[Path]]:
        """Return the images that each file seems to annotate, for the files that seem to annotate any."""
        found = {file: self._of(file) for file in files}
        return {file: images for file, images in found.items() if images}

    def _of(self, file: Path) -> set[Path]:
        if _PROSE.fullmatch(file.stem):
            return set()
        for stem in (folded(file.stem), folded(file.stem.removesuffix(".regions"))):
            if file.suffix.lower() in _TEXTS and (own := self._names.get(stem) or self._stems.get(stem)):
                return {image for image in own if image.parent == file.parent} or set(own)
        found: set[Path] = set()
        if file.suffix.lower() in _TEXTS:
            text = _text(file)
            found = self._in_lines(text) if file.suffix.lower() in _LINES else self._in_text(text, file)
        if not found and file.suffix.lower() not in _NO_TABLES and _ANNOTATIONS.search(file.stem):
            return set().union(*self._names.values())
        return found

    def _in_text(self, text: str, file: Path) -> set[Path]:
        words = _QUOTED.findall(text) if "json" in file.suffix.lower() else re.split(r"[<>\"'\n]", text)
        found: set[Path] = set()
        for word in words:
            found |= self._named(word)
        return found

    def _in_lines(self, text: str) -> set[Path]:
        lines = [line for line in text.splitlines() if line.strip()]
        found: set[Path] = set()
        telling = 0
        for line in lines:
            cells = [cell.strip() for cell in re.split(r"[,;\t|\"]", line) if cell.strip()]
            words = [word for cell in cells for word in {cell, *cell.split()}]
            if any(map(_CHECKSUM.fullmatch, words)) or len(line.split()) == 1 == len(cells):
                continue
            named = set().union(*map(self._named, words)) if words else set()
            named = named or self._stems.get(folded(Path(cells[0]).name) if cells else "", set())
            found |= named
            telling += bool(named)
        return found if 2 * telling >= len(lines) - 1 else set()

    def _named(self, word: str) -> set[Path]:
        name = folded(re.split(r"[/\\]", word.strip())[-1].partition("?")[0])
        return self._names.get(name) or self._names.get(without_upload_prefix(name)) or set()


def _text(file: Path) -> str:
    """Return the beginning of a file as text; of a workbook, the texts of its cells."""
    try:
        if file.suffix.lower() == ".xlsx":
            return "\n".join(_cells(file))
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return ""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def _cells(file: Path) -> Iterator[str]:
    with zipfile.ZipFile(file) as book:
        for name in book.namelist():
            if name == "xl/sharedStrings.xml" or name.startswith("xl/worksheets/"):
                with book.open(name) as stream:
                    yield stream.read(_MOST_BYTES).decode("utf-8", "replace")
