"""Draws a sheet of test images, each with its restoration, error map and mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.folders import ImageSet, TestImage, read_mask, read_pixels
from pipelines.images.preprocess import prepare, restore_map, tile_grid
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.predict import predict
from pipelines.tasks.anomaly.restoration.plots import heat_colours
from pipelines.tasks.anomaly.synthetic.sampling import spread

OF_EACH_TYPE = 4
HEIGHT, GAP, TITLE = 128, 4, 14


def page(images: ImageSet, network: Any, graph: ScoringGraph) -> Image.Image:
    """Return a sheet with a row for each of at most four test images of every type, spread evenly.

    Error maps are coloured from 0 to the largest error on the page. `network` is a trained `build_network`, `graph` its
    exported graph.
    """
    chosen = [image for kind in sorted({image.type for image in images.test}) for image in _some(images.test, kind)]
    predictions = predict(graph, [read_pixels(image.file) for image in chosen])
    most = max(float(prediction.error_map.max()) for prediction in predictions)
    rows = []
    for image, scored in zip(chosen, predictions, strict=True):
        pixels = read_pixels(image.file)
        height, width = pixels.shape[:2]
        heat = heat_colours(restore_map(scored.error_map, height, width, graph.resize) / max(most, 1e-9))
        mask = read_mask(image, height, width)
        cells = [pixels, _restored(pixels, network, graph), np.round(255 * heat).astype(np.uint8)]
        cells.append(np.zeros_like(pixels) if mask is None else np.repeat(255 * mask.astype(np.uint8)[..., None], 3, 2))
        rows.append(_row(cells, f"{image.type} {image.file.name}  score {scored.score:.4g}"))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _some(test: list[TestImage], kind: str) -> list[TestImage]:
    own = [image for image in test if image.type == kind]
    return [own[place] for place in spread(len(own), OF_EACH_TYPE)]


def _restored(pixels: NDArray[np.uint8], network: Any, graph: ScoringGraph) -> NDArray[np.uint8]:
    """Return the restoration of the whole image, uint8, in its own proportions."""
    height, width = pixels.shape[:2]
    tiles = prepare(pixels, graph.input_size, graph.resize)
    restored = network.predict_on_batch(tiles.astype(np.float32) / 255)["restored"]
    grid = tile_grid(height, width, graph.input_size, graph.resize)
    whole = (
        restored[0]
        if grid is None
        else np.stack([grid.stitch(restored[..., channel]) for channel in range(3)], axis=-1)
    )
    return np.round(255 * np.clip(whole, 0, 1)).astype(np.uint8)


def _row(cells: list[NDArray[np.uint8]], title: str) -> Image.Image:
    height, width = cells[0].shape[:2]
    across = max(1, round(HEIGHT * width / height))
    row = Image.new("RGB", (len(cells) * (across + GAP), HEIGHT + TITLE + GAP), "white")
    ImageDraw.Draw(row).text((1, 1), title, fill="black")
    for place, cell in enumerate(cells):
        row.paste(Image.fromarray(cell).resize((across, HEIGHT)), (place * (across + GAP), TITLE))
    return row
