"""Caches the results of benchmarks in `var/benchmarks/`, so that an interrupted run resumes where it stopped.

A file is named by a digest of everything that its results depend on: the arguments, the images, the code and, for
times, the machine. A change of any of these is a cache miss.
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
# The fields that identify a processor's model; a virtual machine often hides all but the vendor.
_MODEL = ("vendor_id", "cpu family", "model", "model name", "CPU implementer", "CPU part")


def path_of(*depends: Any, prefix: str = "") -> Path:
    """Return the file of the results that depend on these JSON values."""
    text = json.dumps(depends, sort_keys=True)
    return FOLDER / f"{prefix}{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def read(path: Path, usable: Callable[[Any], T]) -> T | None:
    """Return the cached value, as converted by `usable`; None without one.

    A truncated file, or one for which `usable` raises LookupError, TypeError or ValueError, is reported in a line and
    ignored.
    """
    try:
        return usable(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (LookupError, TypeError, ValueError):
        print(f"{path}: truncated, or not written by this benchmark; measured anew", flush=True)
        return None


def write(path: Path, value: Any) -> None:
    """Write a JSON value atomically: an interruption leaves the file as it was."""
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
    """Return the installed version of each package, None for a missing one."""
    installed: dict[str, str | None] = dict.fromkeys(packages)
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def machine() -> dict[str, Any]:
    """Return the `model` of the CPU and the number of `processors` that this process may use."""
    return {"model": _model(), "processors": usable_cores()}


def _model() -> list[str]:
    try:
        first = PROCESSORS.read_text(encoding="utf-8").split("\n\n")[0]
    except FileNotFoundError:
        first = ""
    lines = [line for line in first.splitlines() if line.partition(":")[0].strip() in _MODEL]
    return lines or [platform.processor() or platform.machine()]
