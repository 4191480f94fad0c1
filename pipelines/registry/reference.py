"""`reference.npz` of a package: the validation set as the model saw it, which serving and drift compare with."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadPackage, first_line
from pipelines.images.preprocess import PreparedImage
from pipelines.registry.package import REFERENCE

REFERENCE_ARRAYS = ("score", "embedding", "sha256", "descriptors", "descriptor_names")
# Optional in the reference: the tiles of some images one after the other, and of each image [tiles, height, width].
EXAMPLES, EXAMPLE_SHAPES = "examples", "example_shapes"


def write_reference(
    folder: Path,
    *,
    score: NDArray[np.float32],
    embedding: NDArray[np.float32],
    sha256: list[str],
    descriptors: NDArray[np.float64],
    descriptor_names: list[str],
    examples: Sequence[PreparedImage] = (),
    more: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Write `reference.npz` into `folder`, without pickles.

    Args:
        folder: the package's folder.
        score: [n], of each image what drift follows: the anomaly score, or the certainty of the class.
        embedding: [n, d].
        sha256: n digests.
        descriptors: [n, k].
        descriptor_names: their k names.
        examples: the first images as prepared: serving scores them again before it takes a version. Default none.
        more: further arrays of the task, whose first axis is n. Default None.
    """
    path = folder / REFERENCE
    stored: dict[str, Any] = dict(more or {})
    if examples:
        stored[EXAMPLES] = np.concatenate([image.tiles for image in examples])
        stored[EXAMPLE_SHAPES] = np.array([(len(image.tiles), image.height, image.width) for image in examples])
    np.savez_compressed(
        path,
        score=np.asarray(score, np.float32),
        embedding=np.asarray(embedding, np.float32),
        sha256=np.asarray(sha256, "U64"),
        descriptors=np.asarray(descriptors, np.float64),
        descriptor_names=np.asarray(descriptor_names, np.str_),
        **stored,
    )
    return path


def read_reference(path: Path, more: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read `reference.npz` without unpickling anything; `more` names further arrays that the task needs.

    Raises BadPackage if arrays are missing or of different lengths.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            optional = [name for name in (EXAMPLES, EXAMPLE_SHAPES) if name in archive.files]
            arrays = {name: archive[name] for name in (*REFERENCE_ARRAYS, *more, *optional)}
    except KeyError as error:
        raise BadPackage(f"{path}: {first_line(error)}; write the package again") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadPackage(f"{path}: not a readable reference: {first_line(error)}; fetch the package again") from None
    n, k = len(arrays["score"]), len(arrays["descriptor_names"])
    fit = arrays["score"].shape == (n,) == arrays["sha256"].shape and arrays["descriptors"].shape == (n, k)
    fit = fit and all(len(arrays[name]) == n for name in more)
    if not fit or arrays["embedding"].ndim != 2 or len(arrays["embedding"]) != n:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise BadPackage(f"{path}: arrays do not fit together ({shapes}); write the package again")
    return arrays


def stored_examples(reference: Mapping[str, NDArray[Any]]) -> list[PreparedImage]:
    """Return the first images of a reference as the graph takes them, if any are kept: its first scores are theirs."""
    tiles = reference.get(EXAMPLES)
    if tiles is None:
        return []
    shapes = reference.get(EXAMPLE_SHAPES, np.array([(1, *tiles.shape[1:3])] * len(tiles)))
    parts = np.split(tiles, np.cumsum(shapes[:, 0])[:-1])
    return [PreparedImage(part, int(shape[1]), int(shape[2])) for part, shape in zip(parts, shapes, strict=True)]
