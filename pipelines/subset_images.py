"""The images of a dataset version's subsets, in the order of their manifest rows, a few in memory at a time.

`prepared_images` takes them from the pack where the pack has what the model takes, else as `original_images` does from
S3, where they are decoded as they were at ingest. `score()` prepares those that are not prepared yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadDataset, BadImage, NotFound
from pipelines.graph import ScoringGraph
from pipelines.images import open_image, open_mask
from pipelines.package import Package
from pipelines.prepare import PreparedImage
from pipelines.project import load_project
from pipelines.score import Scored, prepare_image, score
from pipelines.storage import Storage

if TYPE_CHECKING:
    import pandas as pd

READERS = 4
BATCH = 16

Pixels = NDArray[np.uint8]
Image = TypeVar("Image", Pixels, PreparedImage)


def original_images(project: str, rows: pd.DataFrame) -> Iterator[Pixels]:
    """Yield the image of each manifest row as it was sent, uint8 [H, W, 3]; the next few are read meanwhile.

    Raises BadDataset if a sample is gone or can no longer be read.
    """
    rules = load_project(project)
    storage = Storage(rules.bucket)

    def read(key: str) -> Pixels:
        try:
            # What ingest accepted stays acceptable when the project file later asks for more.
            return open_image(storage.get(key), max_pixels=1 << 40, min_side=1).pixels
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


def prepared_images(run: dict[str, Any], rows: pd.DataFrame, graph: ScoringGraph) -> Iterator[PreparedImage]:
    """Yield for each manifest row the image as `graph` takes it, from what was sent where the pack has another size."""
    from pipelines import pack

    built = pack.build(run)
    opened = pack.open_pack(built["uri"], built["digest"])
    if opened.images.shape[1] != graph.input_size or run["settings"]["model"]["resize"] != graph.resize:
        for pixels in original_images(run["project"], rows):
            yield prepare_image(graph, pixels)
        return
    index = opened.index.set_index("sha256")[["first", "tiles", "height", "width"]]
    place = dict(zip(index.index, index.itertuples(index=False), strict=True))
    for sha256 in rows["sha256"]:
        if sha256 not in place:
            raise BadDataset(f"sample {sha256} is in the manifest but not in the pack {built['uri']}: build it again")
        first, tiles, height, width = map(int, place[sha256])
        yield PreparedImage(np.asarray(opened.images[first : first + tiles]), height, width)


def score_each(model: Package | ScoringGraph, images: Iterable[Image]) -> Iterator[tuple[Image, Scored]]:
    """Yield each image with what the model says of it, scoring a batch at a time."""
    images = iter(images)
    while batch := list(islice(images, BATCH)):
        yield from zip(batch, score(model, batch), strict=True)


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
