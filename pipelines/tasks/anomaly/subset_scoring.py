"""The images of a dataset version's subsets, in the order of their manifest rows, a few in memory at a time.

`prepared_images` takes them from the pack where the pack has what the model takes, else as `original_images` does from
S3, where they are decoded at the model's bit depth. `score()` prepares those that are not prepared yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipelines.datasets.original_images import Pixels, original_images
from pipelines.datasets.pack import open_pack
from pipelines.errors import BadDataset
from pipelines.images.preprocess import PreparedImage
from pipelines.steps import PackRef, Run
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import Prediction, predict, prepare_image

if TYPE_CHECKING:
    import pandas as pd

BATCH = 16

Image = TypeVar("Image", Pixels, PreparedImage)


def prepared_images(
    run: Run, pack: PackRef, rows: pd.DataFrame, graph: ScoringGraph, bits: int | None = None
) -> Iterator[PreparedImage]:
    """Yield for each manifest row the image as `graph` takes it at the bit depth `bits`, from what was sent where the
    pack has another size or bit depth.
    """
    opened = open_pack(pack)
    alike = opened.images.shape[1] == graph.input_size and run.settings.model.resize == graph.resize
    if not alike or run.dataset.bits != bits:
        for pixels in original_images(run.project, rows, bits):
            yield prepare_image(graph, pixels)
        return
    index = opened.index.set_index("sha256")[["first", "tiles", "height", "width"]]
    place = dict(zip(index.index, index.itertuples(index=False), strict=True))
    for sha256 in rows["sha256"]:
        if sha256 not in place:
            raise BadDataset(f"sample {sha256} is in the manifest but not in the pack {pack.uri}: build it again")
        first, tiles, height, width = map(int, place[sha256])
        yield PreparedImage(np.asarray(opened.images[first : first + tiles]), height, width)


def score_each(model: AnomalyPackage | ScoringGraph, images: Iterable[Image]) -> Iterator[tuple[Image, Prediction]]:
    """Yield each image with what the model says of it, scoring a batch at a time."""
    images = iter(images)
    while batch := list(islice(images, BATCH)):
        yield from zip(batch, predict(model, batch), strict=True)
