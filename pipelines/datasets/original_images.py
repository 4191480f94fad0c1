"""The images and masks of a dataset version as they were sent, decoded at a bit depth."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.project import load_project
from pipelines.errors import BadDataset, BadImage, NotFound
from pipelines.images.decode import open_image
from pipelines.images.masks import open_mask
from pipelines.storage.s3 import Storage

if TYPE_CHECKING:
    import pandas as pd

READERS = 4


Pixels = NDArray[np.uint8]


def original_images(project: str, rows: pd.DataFrame, bits: int | None = None) -> Iterator[Pixels]:
    """Yield the image of each manifest row as it was sent, uint8 [H, W, 3]; the next few are read meanwhile.

    Images of more than eight bits per sample are scaled by `bits`, the bit depth of a model or dataset version; None,
    the default, leaves it to each image.

    Raises BadDataset if a sample is gone or can no longer be read.
    """
    rules = load_project(project)
    storage = Storage(rules.bucket)

    def read(key: str) -> Pixels:
        try:
            # What ingest accepted stays acceptable when the project file later asks for more.
            return open_image(storage.get(key), max_pixels=1 << 40, min_side=1, bits=bits).pixels
        except (NotFound, BadImage) as error:
            raise BadDataset(f"sample {storage.uri(key)} of {project} cannot be read: {error}") from error

    with ThreadPoolExecutor(READERS, thread_name_prefix="read-sample") as pool:
        keys, ahead = iter(rows["key"]), deque[Future[Pixels]]()
        try:
            ahead.extend(pool.submit(read, key) for key in islice(keys, READERS))
            while ahead:
                pixels = ahead.popleft().result()
                ahead.extend(pool.submit(read, key) for key in islice(keys, 1))
                yield pixels
        finally:
            for waiting in ahead:
                waiting.cancel()


def read_mask(project: str, row: Any) -> NDArray[np.bool_]:
    """Return the mask of a manifest row at its image's size, bool [H, W]; all False for a good image.

    Raises BadDataset if it is gone or can no longer be read.
    """
    size = (int(row["width"]), int(row["height"]))
    if row["label"] == "good":
        return np.zeros((size[1], size[0]), dtype=bool)
    storage = Storage(load_project(project).bucket)
    try:
        return open_mask(storage.get(row["mask_key"]), size)
    except (NotFound, BadImage) as error:
        raise BadDataset(f"mask {storage.uri(row['mask_key'])} of {project} cannot be read: {error}") from error
