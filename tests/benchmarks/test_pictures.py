"""The page of pictures: some images of every type, each beside its restoration, its error map and its mask."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.folders import read_set
from benchmarks.pictures import GAP, HEIGHT, OF_EACH_TYPE, TITLE, page
from pipelines.tasks.anomaly.export import write_graph
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
from pipelines.tasks.anomaly.restoration.network import build_network

SIDE = 32


@pytest.mark.parametrize("resize", ["tile", "tile2"])
def test_page_shows_images_of_every_type_with_what_was_made_of_them(parts: Path, tmp_path: Path, resize):
    network = build_network("small", SIDE)
    graph = ScoringGraph(write_graph(inspection_model(network), tmp_path / "model.onnx"), SIDE, resize)
    sheet = np.asarray(page(read_set(parts), network, graph))
    row = HEIGHT + TITLE + GAP
    assert sheet.shape == (2 * OF_EACH_TYPE * row, 4 * (HEIGHT + GAP), 3)
    image, restored, heat, mask = (
        sheet[:, place * (HEIGHT + GAP) : place * (HEIGHT + GAP) + HEIGHT] for place in range(4)
    )
    for number in range(2 * OF_EACH_TYPE):
        own = slice(number * row + TITLE, number * row + TITLE + HEIGHT)
        assert image[own].std() > 10
        # An untrained network draws grey.
        assert restored[own].std() < 0.5 * image[own].std()
        assert heat[own].max() > 0
        # Good images come first, in the order of the types' names; only defective ones have something in the mask.
        assert (mask[own].max() > 0) == (number >= OF_EACH_TYPE)
