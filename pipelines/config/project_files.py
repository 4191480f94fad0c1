"""Find the project files: which files of the folders of INSPECTLINE_PROJECTS declare a project, and which cannot.

A file ends in `.yaml` or `.yml`. Any other file is refused by name, since its line would otherwise be missing without a
word, except what nobody can mean as a project file: hidden files, notes, and what editors and people keep aside.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from pipelines.errors import SettingsError

ENDINGS = (".yaml", ".yml")
_KEPT_ASIDE = re.compile(
    r"""
    \..* | .*~ | ~.* | \#.*\#                                     # hidden; an editor's backups and locks
    | .*\.(?:bak|backup|old|orig|rej|save|copy|tmp|temp|part|swp|off|disabled|inactive|example|sample|template|dist)
    | .*\.(?:md|rst|html?|pdf|csv|log|py|pyc|sh|gitkeep|keep)
    | readme(?:\..*)? | licen[cs]e(?:\..*)? | makefile | thumbs\.db | desktop\.ini
    """,
    re.VERBOSE | re.IGNORECASE,
)


def find_files(folders: Iterable[Path]) -> tuple[dict[str, Path], dict[str, SettingsError]]:
    """Return the project files by project, earlier folders first, and an error for each file that cannot be one.

    Errors are listed by the project that they keep from working: two files of one project in a folder. Those of files
    with another ending are listed by the file's name, and keep no other project from working.
    """
    files: dict[str, Path] = {}
    errors: dict[str, SettingsError] = {}
    for folder in folders:
        of_folder: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("*")):
            if path.suffix.lower() in ENDINGS and not path.name.startswith((".", "~")):
                of_folder.setdefault(path.stem, []).append(path)
            elif not _KEPT_ASIDE.fullmatch(path.name) and path.is_file():
                errors.setdefault(path.name, SettingsError(f"{path}: name project files {_named(path)}.yaml"))
        for name, paths in of_folder.items():
            if name in files:
                continue
            files[name] = paths[0]
            if len(paths) > 1:
                every = " and ".join(path.name for path in paths)
                errors[name] = SettingsError(f"{folder}: {every} declare the same project: keep one of them")
    return files, errors


def _named(path: Path) -> str:
    """Return the name that a file with a wrong ending was probably meant to have, without an ending."""
    return re.sub(r"\.ya?ml$", "", path.stem, flags=re.IGNORECASE) or path.name
