"""What somebody said that folders are: `--map FOLDER=good|anomaly|anomaly/TYPE|mask|unlabelled|ignore`.

Of a classifier `--map FOLDER=CLASS|unlabelled|ignore`.

A folder is given by its path below the imported folder, absolute, or as a pattern with `*`. The deepest folder counts;
of several meanings of one folder, that of its own name goes before that of a pattern.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pipelines.config.class_names import BadClass, class_name, is_unlabelled
from pipelines.ingest.folder_names import folded, meaning_of
from pipelines.ingest.import_plan import BadFolder

MAP_FORM = "--map FOLDER=good|anomaly|anomaly/TYPE|mask|unlabelled|ignore"
CLASS_MAP_FORM = "--map FOLDER=CLASS|unlabelled|ignore"
_KINDS = ("good", "anomaly", "mask", "unlabelled", "ignore")
_LONGEST_TYPE = 80


@dataclass(frozen=True)
class FolderMap:
    """What somebody said of one folder.

    Attributes:
        pattern: its path below the root, or a pattern; `.` for the root itself.
        kind: good, anomaly, mask, unlabelled or ignore; class.
        type: type of anomaly, or name of the class. Default None.
    """

    pattern: str
    kind: str
    type: str | None = None

    def fits(self, path: str) -> bool:
        """Return whether it is said of the folder at `path` below the root."""
        return self.names(path) or fnmatchcase(folded(path), folded(self.pattern))

    def names(self, path: str) -> bool:
        """Return whether the pattern is the path itself, whatever letters it has."""
        return folded(path) == folded(self.pattern)


class FolderMaps:
    """The maps of an import.

    Args:
        maps: meanings by folder, as given.
        given: the folder given to the import.
        root: the folder that is read, `given` or one below it.
        files: all files below it.
        task: the project's task. Default anomaly.

    Raises:
        BadFolder: a meaning is none, or a map fits no folder.
    """

    def __init__(
        self, maps: Mapping[str, str], given: Path, root: Path, files: Iterable[Path], task: str = "anomaly"
    ) -> None:
        folders = {file.relative_to(root).parts[:-1] for file in files if file.is_relative_to(root)}
        known = {"."} | {"/".join(parts[:depth]) for parts in folders for depth in range(1, len(parts) + 1)}
        self._maps: list[FolderMap] = []
        for folder, meaning in maps.items():
            read = _read_class if task == "classification" else _read
            found = read(_below(folder, given, root), meaning, folder)
            if not any(map(found.fits, known)):
                raise BadFolder(f"--map {folder}={meaning}: no folder {folder!r} with files is in {root}")
            self._maps.append(found)

    def find(self, parts: Sequence[str]) -> tuple[FolderMap, int] | None:
        """Return what was said of the folder at `parts`, or of the nearest above it, and the depth of that one."""
        for depth in range(len(parts), -1, -1):
            path = "/".join(parts[:depth]) or "."
            fitting = [entry for entry in self._maps if entry.fits(path)]
            if fitting:
                return next((entry for entry in fitting if entry.names(path)), fitting[0]), depth
        return None

    def ignores(self, parts: Sequence[str]) -> bool:
        """Return whether the files of the folder at `parts` are to be ignored."""
        found = self.find(parts)
        return found is not None and found[0].kind == "ignore"


def read_maps(texts: Sequence[str]) -> dict[str, str]:
    """Return folders and meanings of texts such as `scratched=anomaly/scratch`; several are separated by `;`.

    Raises:
        BadFolder: a text has no `=`, or one folder has two meanings.
    """
    maps: dict[str, str] = {}
    for text in filter(None, (part.strip() for entry in texts for part in entry.split(";"))):
        signs = [match.start() for match in re.finditer("=", text)]
        # `a=b=good`: a folder may have a sign of its own, and a type, too.
        sign = next((at for at in signs if _kind(text[at + 1 :]) in _KINDS), signs[-1] if signs else 0)
        folder, meaning = text[:sign].strip(), text[sign + 1 :].strip()
        if not folder:
            raise BadFolder(f"--map {text}: write {MAP_FORM}")
        if maps.setdefault(folder, meaning) != meaning:
            raise BadFolder(f"--map says that {folder} is {maps[folder]} and {meaning}: keep one of them")
    return maps


def _kind(meaning: str) -> str:
    return meaning.partition("/")[0].strip().casefold()


def _read(pattern: str, meaning: str, folder: str) -> FolderMap:
    kind, of_type = _kind(meaning), meaning.partition("/")[2].strip().strip("/").strip()
    said = f"--map {folder}={meaning}"
    if kind not in _KINDS or (of_type and kind != "anomaly"):
        raise BadFolder(f"{said}: {meaning!r} is no meaning of a folder: write {MAP_FORM}")
    odd = "/" in of_type or "\\" in of_type or any(unicodedata.category(letter)[0] == "C" for letter in of_type)
    if odd or len(of_type) > _LONGEST_TYPE or meaning_of(of_type).kind in ("good", "unlabelled"):
        raise BadFolder(f"{said}: {of_type[:100]!r} is no type of anomaly: write one short name, as in anomaly/scratch")
    return FolderMap(pattern, kind, of_type or None)


def _read_class(pattern: str, meaning: str, folder: str) -> FolderMap:
    if is_unlabelled(meaning):
        return FolderMap(pattern, "unlabelled")
    if meaning.casefold() == "ignore":
        return FolderMap(pattern, "ignore")
    try:
        return FolderMap(pattern, "class", class_name(meaning))
    except BadClass as error:
        raise BadFolder(f"--map {folder}={meaning}: {error}, or {CLASS_MAP_FORM}") from None


def _below(folder: str, given: Path, root: Path) -> str:
    """Return a folder as given, relative to the given folder, to the root or absolute, as a path below the root."""
    path = folder.strip().replace("\\", "/")
    if not path:
        raise BadFolder(f"--map ={folder}: name a folder: {MAP_FORM}")
    for base in (given, given.absolute(), given.resolve()):
        if path.startswith(f"{base.as_posix()}/") or path.rstrip("/") == base.as_posix():
            path = path[len(base.as_posix()) :]
            break
    path = path.removeprefix("./").strip("/") or "."
    above = root.relative_to(given).as_posix()
    if above != "." and (folded(path) == folded(above) or folded(path).startswith(f"{folded(above)}/")):
        return path[len(above) :].strip("/") or "."
    return path
