"""Keeps what a benchmark has measured in `var/benchmarks/`, so that an interrupted run goes on where it stopped.

A file is named for all that its figures depend on: what was asked, the images, the code and, where times are measured,
the machine. Whatever changes one of these measures anew.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from pipelines.config.cpu import usable_cores
from pipelines.config.settings import REPOSITORY
from pipelines.storage.files import write_atomically

T = TypeVar("T")

FOLDER = REPOSITORY / "var" / "benchmarks"
PROCESSORS = Path("/proc/cpuinfo")
# What tells a processor's model there; a virtual machine often hides all of its name but the maker's.
_MODEL = ("vendor_id", "cpu family", "model", "model name", "CPU implementer", "CPU part")


def path_of(*depends: Any, prefix: str = "") -> Path:
    """Return the file of the figures that depend on these values, of whatever JSON can hold."""
    told = json.dumps(depends, sort_keys=True)
    return FOLDER / f"{prefix}{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"


def read(path: Path, usable: Callable[[Any], T]) -> T | None:
    """Return what was kept, as `usable` returns it; None if there is nothing.

    A truncated file, or one for which `usable` raises LookupError, TypeError or ValueError, is told in a line and
    counts as nothing.
    """
    try:
        return usable(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (LookupError, TypeError, ValueError):
        print(f"{path}: truncated, or not written by this benchmark; measured anew", flush=True)
        return None


def write(path: Path, value: Any) -> None:
    """Keep a value that JSON can hold; an interruption leaves the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(value))


def code(*patterns: str) -> str:
    """Return a digest of the content of source files, given by patterns from the repository's root.

    Raises:
        FileNotFoundError: a pattern matches nothing, as after a file was moved.
    """
    digest = hashlib.sha256()
    for pattern in patterns:
        paths = sorted(REPOSITORY.glob(pattern))
        if not paths:
            raise FileNotFoundError(f"{pattern} matches no source file: correct the list that names it")
        for path in paths:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def versions(*packages: str) -> dict[str, str | None]:
    """Return the installed version of each package, None for one that is not there."""
    found: dict[str, str | None] = dict.fromkeys(packages)
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return the processor's model, and how many of the processors this process may use."""
    return {"model": _model(), "processors": usable_cores()}


def _model() -> list[str]:
    try:
        first = PROCESSORS.read_text(encoding="utf-8").split("\n\n")[0]
    except FileNotFoundError:
        first = ""
    found = [line for line in first.splitlines() if line.partition(":")[0].strip() in _MODEL]
    return found or [platform.processor() or platform.machine()]
