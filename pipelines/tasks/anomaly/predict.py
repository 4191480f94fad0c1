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
from pipelines.images.preprocess import PreparedImage, prepare, tile_grid
from pipelines.tasks.anomaly.onnx_graph import EVIDENCE, OUTPUTS, SHARES, ScoringGraph
from pipelines.tasks.anomaly.package import AnomalyPackage

# Where the evidence tells means over the whole tile: of the excess, and of the second opinion.
MEANS = [2, 5]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image.

    `score` is at least 0, larger is more anomalous. `error_map` float32 [h, w] belongs to the prepared image;
    `prepare.restore_map` lays it onto the image. `embedding` is float32 [d]. Of an image in tiles, the map is
    stitched, the embedding is the tiles' mean, and the score is that of the most anomalous tile; a fused score is made
    of the whole image's evidence instead.
    """

    score: float
    error_map: NDArray[np.float32]
    embedding: NDArray[np.float32]


Images = Sequence[NDArray[np.uint8]] | Sequence[PreparedImage] | NDArray[np.uint8]


def predict(package: AnomalyPackage | ScoringGraph, images: Images, batch_size: int = 16) -> list[Prediction]:
    """Score images, each uint8 [H, W, 3] RGB of any size or prepared already, `batch_size` (16) tiles at a time; one
    `Scored` each, in order.

    A score does not depend on the images beside it. May be called from several threads. Raises ValueError for
    an array that is not an image, BadPackage if the graph cannot be loaded or gives no finite score.
    """
    results: list[Prediction] = []
    for start in range(0, len(images), batch_size):
        chunk = [
            image if isinstance(image, PreparedImage) else prepare_image(package, image)
            for image in images[start : start + batch_size]
        ]
        results += predict_prepared(package, chunk, batch_size)
    return results


def prepare_image(package: AnomalyPackage | ScoringGraph, pixels: NDArray[np.uint8]) -> PreparedImage:
    """Do what `predict` does before it runs the graph, for one image uint8 [H, W, 3].

    Serving does this part in the request's own thread, and lets several images share one `run`. Raises ValueError.
    """
    graph = _graph(package)
    tiles = prepare(pixels, graph.input_size, graph.resize)
    return PreparedImage(tiles, height=pixels.shape[0], width=pixels.shape[1])


def predict_prepared(
    package: AnomalyPackage | ScoringGraph, images: Sequence[PreparedImage], batch_size: int = 16
) -> list[Prediction]:
    """Do the rest of `predict` for prepared images: run the graph on `batch_size` (16) tiles at a time, and merge.

    Raises BadPackage as `score` does.
    """
    if not images:
        return []
    graph = _graph(package)
    session = graph.session()
    tiles = np.concatenate([image.tiles for image in images])
    names = [*OUTPUTS, *(item.name for item in session.get_outputs() if item.name in (EVIDENCE, SHARES))]
    batches: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    for start in range(0, len(tiles), batch_size):
        outputs = session.run(names, {"image": tiles[start : start + batch_size]})
        if outputs[0].shape != (len(tiles[start : start + batch_size]),) or not np.isfinite(outputs[0]).all():
            # NaN compares as "not above the threshold": it would pass every defect as good.
            raise BadPackage(f"{graph.path}: gave a score that is not a finite number; export the model again")
        for name, output in zip(names, outputs, strict=True):
            batches[name].append(output)
    outputs_by_name = {name: np.concatenate(parts).astype(np.float32, copy=False) for name, parts in batches.items()}
    results, first = [], 0
    for image in images:
        own = slice(first, first + len(image.tiles))
        results.append(_merged(graph, image, {name: values[own] for name, values in outputs_by_name.items()}))
        first = own.stop
    return results


def _merged(graph: ScoringGraph, image: PreparedImage, outputs: dict[str, NDArray[np.float32]]) -> Prediction:
    """Return what the tiles say of their image."""
    tiles = tile_grid(image.height, image.width, graph.input_size, graph.resize)
    error_map = outputs["error_map"][0].copy() if tiles is None else tiles.stitch(outputs["error_map"])
    scores, evidence = outputs["score"], outputs.get(EVIDENCE)
    score = scores.max() if len(scores) == 1 or evidence is None else fused_score(evidence, outputs.get(SHARES))
    return Prediction(float(score), error_map, outputs["embedding"].mean(axis=0))


def fused_score(evidence: NDArray[np.float32], shares: NDArray[np.float32] | None = None) -> float:
    """Return the fused score of an image whose tiles have this evidence [T, pieces]; of one tile, what the graph gives.

    A mean is the mean over the tiles; of all else the largest of any tile counts. `shares` [T, pieces], together 1 for
    each tile, weigh them; without, as in graphs of older code, all pieces weigh the same.
    """
    merged = evidence.max(axis=0)
    merged[MEANS] = evidence.mean(axis=0)[MEANS]
    logistic = 1 / (1 + np.exp(-np.clip(merged.astype(np.float64), -50, 50)))
    return float(np.average(logistic, weights=None if shares is None else shares[0]))


def _graph(package: AnomalyPackage | ScoringGraph) -> ScoringGraph:
    return package.graph if isinstance(package, AnomalyPackage) else package
