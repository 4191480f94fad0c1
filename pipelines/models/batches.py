"""The stream of training batches: a function of the seed and the number of the step, so that it can go on
anywhere.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.models.masks import Floats
from pipelines.models.rows import spread, whole_batches
from pipelines.models.synthetic import Painter, augment, is_aligned

Batch = tuple[Floats, Floats]


@dataclass(frozen=True)
class Selection:
    """Some rows of a pack's memory map [n, S, S, 3], read only when they are asked for.

    `places` says of each which part of its image it shows, where images are cut: those of one number show the same
    part. None: each shows the whole.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    places: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.asarray(self.images[self.rows[places]])

    def of_one_part(self) -> Selection:
        """Return those that show the same part of their images: the part that most show."""
        if self.places is None:
            return self
        parts, counts = np.unique(self.places, return_counts=True)
        return Selection(self.images, self.rows[self.places == parts[counts.argmax()]])


Images = NDArray[np.uint8] | Selection


class BatchStream:
    """Batches of `batch_size` from `images` [n, S, S, 3] uint8: (damaged, clean), float32 in 0 to 1.

    Every image comes once before any comes again, in an order that the seed decides; step k is the same batch
    whether the training began at step 0 or was taken up at k.
    """

    def __init__(self, images: Images, batch_size: int, seed: int) -> None:
        self._images = images
        self._batch_size = batch_size
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._shuffled)
        self._painter = Painter(_side(images), seed)
        self._turns = not is_aligned(images.of_one_part() if isinstance(images, Selection) else images)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step (from 0)."""
        places = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        rounds, positions = np.divmod(places, len(self._images))
        rows = [self._order(int(turn))[position] for turn, position in zip(rounds, positions, strict=True)]
        # A memory map wants its rows in order; the order within a batch does not matter.
        generator = np.random.default_rng([self._seed, 1, step])
        clean = augment(self._images[np.sort(rows)], generator, self._turns)
        return self._painter.add_defects(clean, generator), clean

    def from_step(self, step: int) -> Generator[Batch, None, None]:
        """Yield the batches from `step` on without end, the next one made while this one is used."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as worker:
            coming = worker.submit(self.batch, step)
            while True:
                ready, step = coming.result(), step + 1
                coming = worker.submit(self.batch, step)
                yield ready

    def _shuffled(self, turn: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, 0, turn]).permutation(len(self._images))


def validation_batches(images: Images, batch_size: int, seed: int, most: int = 64) -> list[Batch]:
    """Return fixed batches to follow the loss on: at most `most` images spread over `images`, always whole
    batches.

    A small set is repeated to fill its last batch.
    """
    if len(images) == 0:
        return []
    painter, batches = Painter(_side(images), seed), []
    for number, part in enumerate(whole_batches(spread(len(images), most), batch_size)):
        generator = np.random.default_rng([seed, 2, number])
        clean = augment(images[part], generator)
        batches.append((painter.add_defects(clean, generator), clean))
    return batches


def _side(images: Images) -> int:
    pixels = images.images if isinstance(images, Selection) else images
    return int(pixels.shape[1])
