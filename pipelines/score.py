"""The only way from an image to an anomaly score.

Calibration, evaluation and drift call `score()`; serving calls its two halves, `prepare_image` and `run`, so that
requests which come together share a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadPackage
from pipelines.graph import OUTPUTS, ScoringGraph
from pipelines.package import Package
from pipelines.prepare import prepare


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model says of one image.

    `score` is at least 0, larger is more anomalous. `error_map` float32 [h, w] belongs to the prepared square;
    `prepare.restore_map` lays it onto the image. `embedding` is float32 [d].
    """

    score: float
    error_map: NDArray[np.float32]
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What the graph sees of one image: uint8 [tiles, S, S, 3], and the image's own height and width in pixels."""

    tiles: NDArray[np.uint8]
    height: int
    width: int


def score(
    package: Package | ScoringGraph, images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], batch_size: int = 16
) -> list[Scored]:
    """Score images, each uint8 [H, W, 3] RGB of any size, `batch_size` (16) at a time; one `Scored` each, in
    order.

    A score does not depend on the images beside it. May be called from several threads. Raises ValueError for
    an array that is not an image, BadPackage if the graph cannot be loaded or gives no finite score.
    """
    results: list[Scored] = []
    for start in range(0, len(images), batch_size):
        chunk = [prepare_image(package, image) for image in images[start : start + batch_size]]
        results += run(package, chunk, batch_size)
    return results


def prepare_image(package: Package | ScoringGraph, pixels: NDArray[np.uint8]) -> PreparedImage:
    """Do what `score` does before it runs the graph, for one image uint8 [H, W, 3].

    Serving does this part in the request's own thread, and lets several images share one `run`. Raises ValueError.
    """
    graph = _graph(package)
    tiles = prepare(pixels, graph.input_size, graph.resize)[np.newaxis]
    return PreparedImage(tiles, height=pixels.shape[0], width=pixels.shape[1])


def run(package: Package | ScoringGraph, images: Sequence[PreparedImage], batch_size: int = 16) -> list[Scored]:
    """Do the rest of `score` for prepared images: run the graph on `batch_size` (16) tiles at a time, and merge.

    Raises BadPackage as `score` does.
    """
    if not images:
        return []
    graph = _graph(package)
    session = graph.session()
    tiles = np.concatenate([image.tiles for image in images])
    results: list[Scored] = []
    for start in range(0, len(tiles), batch_size):
        batch = tiles[start : start + batch_size]
        scores, error_maps, embeddings = session.run(list(OUTPUTS), {"image": batch})
        if scores.shape != (len(batch),) or not np.isfinite(scores).all():
            # NaN compares as "not above the threshold": it would pass every defect as good.
            raise BadPackage(f"{graph.path}: gave a score that is not a finite number; export the model again")
        for value, error_map, embedding in zip(scores, error_maps, embeddings, strict=True):
            results.append(Scored(float(value), error_map.astype(np.float32), embedding.astype(np.float32)))
    return results


def _graph(package: Package | ScoringGraph) -> ScoringGraph:
    return package.graph if isinstance(package, Package) else package
