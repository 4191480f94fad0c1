"""The pack: a dataset version decoded and prepared once into memory-mapped arrays; training reads nothing else.

In S3 lie `images.npy` (uint8 [n, S, S, 3], RGB, in the manifest's order), `index.parquet` (the manifest's rows in the
same order) and, written last, `pack.json` with the digests of both. On a machine that uses it, a pack lies in the local
cache under its own digest and is mapped from there, never loaded whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.model_settings import ModelSettings, Resize
from pipelines.config.project import load_project
from pipelines.config.settings import settings
from pipelines.datasets.versions import read_manifest
from pipelines.errors import BadDataset, BadImage, NotFound
from pipelines.images.decode import open_image
from pipelines.images.preprocess import prepare, tile_grid
from pipelines.steps import DatasetVersion, PackRef
from pipelines.storage import keys
from pipelines.storage.files import file_digest
from pipelines.storage.s3 import Storage, split_uri

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
IMAGES, INDEX, CARD = "images.npy", "index.parquet", "pack.json"
# A change in how images are decoded or prepared makes new packs.
PREPARATION = 3
KEPT = 8  # packs in the local cache


@dataclass(frozen=True)
class Pack:
    """A dataset version as arrays: `images` uint8 [n, S, S, 3], read-only and mapped from disk, and `index`, its rows.

    A sample's images are the `tiles` ones from its row's `first` on: one, unless it was cut.
    """

    images: NDArray[np.uint8]
    index: pd.DataFrame


def build(dataset: DatasetVersion, model: ModelSettings) -> PackRef:
    """Make the pack of a dataset version for the input that `model` has, unless it is in S3 already.

    Raises:
        BadDataset: a sample of the manifest is gone from S3 or can no longer be read; names it.
        StorageError: S3 did not do what was asked; trying again is safe.
    """
    project = load_project(dataset.project)
    size, resize = model.input_size, model.resize
    storage = Storage(project.bucket)
    folder = keys.pack(project.name, dataset.version_id, size, resize, PREPARATION)
    try:
        card = json.loads(storage.get(f"{folder}/{CARD}"))
        log.info("the pack of %s images is there already", card["n"])
    except NotFound:
        card = _build(dataset, size, resize, storage, folder)
    return PackRef(uri=storage.uri(folder), digest=card["digest"], n=card["n"])


def open_pack(pack: PackRef) -> Pack:
    """Return a pack, fetched from S3 into the local cache unless it lies there.

    Raises:
        BadDataset: the pack in S3 is not there, or not what the digest says.
    """
    import pandas as pd

    folder = _shelf() / pack.digest
    if not (folder / IMAGES).is_file():
        _fetch(pack.uri, pack.digest)
    os.utime(folder)  # used last
    images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
    return Pack(images, pd.read_parquet(folder / INDEX))


def _build(dataset: DatasetVersion, size: int, resize: Resize, storage: Storage, folder: str) -> dict[str, Any]:
    """Decode, prepare and upload; the card comes last, so that a pack half written is built anew."""
    manifest = read_manifest(dataset.manifest_uri)
    with tempfile.TemporaryDirectory(prefix="build-", dir=_shelf()) as work:
        local = Path(work)
        index = manifest.assign(tiles=_tile_counts(manifest, size, resize))
        index["first"] = index["tiles"].cumsum() - index["tiles"]
        index.to_parquet(local / INDEX, index=False)
        _decode(index, size, resize, dataset.bits, storage, local / IMAGES)
        files = {name: file_digest(local / name) for name in (IMAGES, INDEX)}
        digest = _digest(files)
        for name in files:
            storage.upload(local / name, f"{folder}/{name}")
        card = {"digest": digest, "n": len(manifest), "size": size, "resize": resize, "files": files}
        storage.put(f"{folder}/{CARD}", json.dumps(card).encode(), "application/json")
        _keep(local, digest)
    return card


def _tile_counts(manifest: pd.DataFrame, size: int, resize: Resize) -> list[int]:
    grids = (
        tile_grid(int(height), int(width), size, resize)
        for height, width in zip(manifest["height"], manifest["width"], strict=True)
    )
    return [1 if tiles is None else len(tiles) for tiles in grids]


def _decode(index: pd.DataFrame, size: int, resize: Resize, bits: int | None, storage: Storage, path: Path) -> None:
    """Write the prepared images of samples, in this order, as one .npy file; several are worked on at a time.

    Threads do: Pillow decodes without the interpreter's lock, and reading from S3 waits for the network.
    """
    sample_keys, places = list(index["key"]), list(zip(index["first"], index["tiles"], strict=True))
    shape = (int(index["tiles"].sum()), size, size, 3)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)

    def fill(position: int) -> None:
        key = sample_keys[position]
        try:
            # What ingest accepted stays acceptable when the project file later asks for more.
            pixels = open_image(storage.get(key), max_pixels=1 << 40, min_side=1, bits=bits).pixels
        except (NotFound, BadImage) as error:
            raise BadDataset(
                f"sample {storage.uri(key)} cannot be read any more ({error}): restore it, or withdraw it and freeze "
                "the dataset again"
            ) from error
        first, tiles = places[position]
        images[first : first + tiles] = prepare(pixels, size, resize)

    threads = ThreadPoolExecutor(max(4, os.cpu_count() or 1), thread_name_prefix="pack")
    try:
        for done, _ in enumerate(threads.map(fill, range(len(sample_keys))), start=1):
            if done % 500 == 0 or done == len(sample_keys):
                log.info("%s of %s images packed", done, len(sample_keys))
    finally:
        threads.shutdown(cancel_futures=True)
    images.flush()


def _fetch(uri: str, digest: str) -> None:
    """Download a pack, check it against its digest, and put it into the cache in one step."""
    bucket, folder = split_uri(uri)
    storage = Storage(bucket)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=_shelf()) as work:
        local = Path(work)
        try:
            for name in (INDEX, IMAGES):
                storage.download(f"{folder}/{name}", local / name)
        except NotFound as error:
            raise BadDataset(f"the pack {uri} is not whole ({error}): run the step pack again") from error
        actual = _digest({name: file_digest(local / name) for name in (IMAGES, INDEX)})
        if actual != digest:
            raise BadDataset(f"the pack {uri} has the digest {actual[:12]}, not {digest[:12]}: run the step pack again")
        _keep(local, digest)


def _keep(work: Path, digest: str) -> None:
    """Move a complete pack into the cache, unless another process was faster; forget the packs used longest ago."""
    target = _shelf() / digest
    finished = work / "pack"
    finished.mkdir()
    for name in (IMAGES, INDEX):
        (work / name).rename(finished / name)
    try:
        finished.rename(target)
    except OSError:  # it is there
        if not (target / IMAGES).is_file():
            raise
    packs = [folder for folder in _shelf().iterdir() if (folder / IMAGES).is_file() and len(folder.name) == 64]
    for folder in sorted(packs, key=lambda folder: folder.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)


def _shelf() -> Path:
    folder = settings().cache / "packs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(files: dict[str, str]) -> str:
    return hashlib.sha256("\n".join(f"{name} {files[name]}" for name in sorted(files)).encode()).hexdigest()
