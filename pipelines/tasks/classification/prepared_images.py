"""The images of a dataset version as a classifier takes them, in the order of their manifest rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipelines.config.model_settings import Resize
from pipelines.datasets.original_images import original_images
from pipelines.datasets.pack import open_pack
from pipelines.errors import BadDataset
from pipelines.images.preprocess import PreparedImage, prepare
from pipelines.steps import PackRef, Run

if TYPE_CHECKING:
    import pandas as pd


def prepared_images(
    run: Run, pack: PackRef, rows: pd.DataFrame, input_size: int, resize: Resize, bits: int | None
) -> Iterator[PreparedImage]:
    """Yield the image of each manifest row for a model, from the pack, or from what was sent where the pack has another
    size or bit depth.

    Raises:
        BadDataset: a sample is not in the pack, or can no longer be read.
    """
    opened = open_pack(pack)
    if opened.images.shape[1] != input_size or run.settings.model.resize != resize or run.dataset.bits != bits:
        for pixels in original_images(run.project, rows, bits):
            yield PreparedImage(prepare(pixels, input_size, resize), pixels.shape[0], pixels.shape[1])
        return
    index = opened.index.set_index("sha256")[["first", "height", "width"]]
    place = dict(zip(index.index, index.itertuples(index=False), strict=True))
    for sha256 in rows["sha256"]:
        if sha256 not in place:
            raise BadDataset(f"sample {sha256} is in the manifest but not in the pack {pack.uri}: build it again")
        first, height, width = map(int, place[sha256])
        yield PreparedImage(np.asarray(opened.images[first : first + 1]), height, width)
