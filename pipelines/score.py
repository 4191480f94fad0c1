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
from pipelines.prepare import PreparedImage, prepare, tile_grid


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model says of one image.

    `score` is at least 0, larger is more anomalous. `error_map` float32 [h, w] belongs to the prepared image;
    `prepare.restore_map` lays it onto the image. `embedding` is float32 [d]. Of an image in tiles, the score is that of
    the most anomalous tile, the map is stitched, and the embedding is the tiles' mean.
    """

    score: float
    error_map: NDArray[np.float32]
    embedding: NDArray[np.float32]


Images = Sequence[NDArray[np.uint8]] | Sequence[PreparedImage] | NDArray[np.uint8]


def score(package: Package | ScoringGraph, images: Images, batch_size: int = 16) -> list[Scored]:
    """Score images, each uint8 [H, W, 3] RGB of any size or prepared already, `batch_size` (16) tiles at a time; one
    `Scored` each, in order.

    A score does not depend on the images beside it. May be called from several threads. Raises ValueError for
    an array that is not an image, BadPackage if the graph cannot be loaded or gives no finite score.
    """
    results: list[Scored] = []
    for start in range(0, len(images), batch_size):
        chunk = [
            image if isinstance(image, PreparedImage) else prepare_image(package, image)
            for image in images[start : start + batch_size]
        ]
        results += run(package, chunk, batch_size)
    return results


def prepare_image(package: Package | ScoringGraph, pixels: NDArray[np.uint8]) -> PreparedImage:
    """Do what `score` does before it runs the graph, for one image uint8 [H, W, 3].

    Serving does this part in the request's own thread, and lets several images share one `run`. Raises ValueError.
    """
    graph = _graph(package)
    tiles = prepare(pixels, graph.input_size, graph.resize)
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
    found: list[list[NDArray[np.float32]]] = [[] for _ in OUTPUTS]
    for start in range(0, len(tiles), batch_size):
        outputs = session.run(list(OUTPUTS), {"image": tiles[start : start + batch_size]})
        if outputs[0].shape != (len(tiles[start : start + batch_size]),) or not np.isfinite(outputs[0]).all():
            # NaN compares as "not above the threshold": it would pass every defect as good.
            raise BadPackage(f"{graph.path}: gave a score that is not a finite number; export the model again")
        for parts, output in zip(found, outputs, strict=True):
            parts.append(output)
    scores, error_maps, embeddings = (np.concatenate(parts).astype(np.float32, copy=False) for parts in found)
    results, first = [], 0
    for image in images:
        own = slice(first, first + len(image.tiles))
        results.append(_merged(graph, image, scores[own], error_maps[own], embeddings[own]))
        first = own.stop
    return results


def _merged(
    graph: ScoringGraph,
    image: PreparedImage,
    scores: NDArray[np.float32],
    error_maps: NDArray[np.float32],
    embeddings: NDArray[np.float32],
) -> Scored:
    """Return what the tiles say of their image."""
    tiles = tile_grid(image.height, image.width, graph.input_size, graph.resize)
    error_map = error_maps[0].copy() if tiles is None else tiles.stitch(error_maps)
    return Scored(float(scores.max()), error_map, embeddings.mean(axis=0))


def _graph(package: Package | ScoringGraph) -> ScoringGraph:
    return package.graph if isinstance(package, Package) else package
