"""Model packages on their way between S3, where the steps of a run hand them on, and a folder, where they are used."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pipelines.config.settings import settings
from pipelines.errors import BadPackage
from pipelines.registry.package import CARD, GRAPH, REFERENCE, WEIGHTS, Package
from pipelines.storage import keys
from pipelines.storage.s3 import Storage, split_uri

PackageType = TypeVar("PackageType", bound=Package)
# The card comes last: a package without one is not whole, and nobody takes it for one.
FILES = (GRAPH, WEIGHTS, REFERENCE, CARD)


def package_uri(bucket: str, project: str, version_id: str, training_id: str) -> str:
    """Return the S3 folder of the package that a training makes, without a slash at its end."""
    return Storage(bucket).uri(keys.package(project, version_id, training_id))


@contextmanager
def working_folder() -> Iterator[Path]:
    """Give a folder under the local cache that is gone afterwards."""
    shelf = settings().cache / "work"
    shelf.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="package-", dir=shelf) as folder:
        yield Path(folder)


def fetch_files(uri: str, folder: Path) -> list[str]:
    """Download the files of the package at `uri` that are there and return their names."""
    bucket, prefix = split_uri(f"{uri.rstrip('/')}/")
    storage = Storage(bucket)
    there = {item.key.removeprefix(prefix) for item in storage.list(prefix)}
    names = [name for name in FILES if name in there]
    if GRAPH not in names:
        raise BadPackage(f"{uri} holds no {GRAPH}: run the export step again")
    for name in names:
        storage.download(prefix + name, folder / name)
    return names


@contextmanager
def fetched_package(uri: str, open_package: Callable[[Path], PackageType]) -> Iterator[PackageType]:
    """Give the complete package at `uri`, opened by `open_package`, for as long as it is used. Raises BadPackage."""
    with working_folder() as folder:
        fetch_files(uri, folder)
        yield open_package(folder)


def publish_files(folder: Path, uri: str) -> None:
    """Upload a complete package, its card last; again changes nothing."""
    bucket, prefix = split_uri(f"{uri.rstrip('/')}/")
    for name in FILES:
        if (folder / name).is_file():
            Storage(bucket).upload(folder / name, prefix + name)
