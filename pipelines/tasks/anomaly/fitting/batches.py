"""The stream of training batches: a function of the seed and the step number, so that it can resume at any step."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipelines.config.cpu import single_threaded_products, usable_cores
from pipelines.tasks.anomaly.synthetic.batch_spec import SLOTS, Recipe, recipe
from pipelines.tasks.anomaly.synthetic.defects import Painter, augment, is_aligned
from pipelines.tasks.anomaly.synthetic.foreground import on_plain_ground
from pipelines.tasks.anomaly.synthetic.real_defects import Annotated
from pipelines.tasks.anomaly.synthetic.sampling import spread, whole_batches
from pipelines.tasks.anomaly.synthetic.shapes import Floats

# The damaged images, the clean images, and 1 for each anomalous image without a mask, else 0. Or, for batches rendered
# on the GPU, the sampled parameters and zeros.
Drawn = tuple[Floats, tuple[Floats, Floats]]
Batch = Drawn | tuple[Recipe, Floats]
# The share of batches in which one image is an annotated anomaly without a mask.
UNLOCATED_SHARE = 0.5
MAX_WORKERS = 8
BYTES_AHEAD = 512 << 20  # of prefetched batches


@dataclass(frozen=True)
class Selection:
    """A selection of rows of a pack's memory map, read lazily.

    Attributes:
        images: the memory map, [n, S, S, 3].
        rows: the selected rows, [k].
        places: number of the part of its image that each row shows, [k], if images are cut into tiles; None if each
            shows a whole image.
        fresh: whether each row is new to the network that a fine-tuning starts from, [k].
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    places: NDArray[np.int64] | None = None
    fresh: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.asarray(self.images[self.rows[places]])

    def of_one_part(self) -> Selection:
        """Return the rows that show the commonest part of their images."""
        if self.places is None:
            return self
        shown, counts = np.unique(self.places, return_counts=True)
        return Selection(self.images, self.rows[self.places == shown[counts.argmax()]])


Images = NDArray[np.uint8] | Selection


def of_one_part(images: Images) -> Images:
    """Return the images that show the commonest part, if they are cut into tiles; else all."""
    return images.of_one_part() if isinstance(images, Selection) else images


class BatchStream:
    """Batches of `batch_size` from `images` [n, S, S, 3] uint8, as float32 in 0 to 1.

    Images are sampled without replacement within each pass, in an order given by the seed; step k has the same batch
    whether the training started at step 0 or resumed at k. If some images are fresh, they are half of each batch, and
    the other half replays old ones to prevent catastrophic forgetting (Robins, "Catastrophic forgetting, rehearsal and
    pseudorehearsal", Connection Science 1995).

    With `on_device` (False), batches are recipes that the GPU renders (`synthetic.device`) with these `textures`.
    Annotated anomalies can only be pasted on the CPU, so that with any, all batches are drawn there.
    """

    def __init__(
        self, images: Images, batch_size: int, seed: int, annotated: Annotated | None = None, on_device: bool = False
    ) -> None:
        self._images = images
        self._batch_size = batch_size
        self._seed = seed
        self._pools = _pools(images, batch_size)
        self._order = lru_cache(maxsize=4)(self._shuffled)
        self._turns = not is_aligned(of_one_part(images))
        self._painter = Painter(_side(images), seed, annotated, self._turns, on_plain_ground(images))
        self._unlocated = annotated.unlocated if annotated is not None else np.empty(0, np.uint8)
        has_annotated = annotated is not None and (len(annotated.located) or len(annotated.unlocated))
        self.textures = np.stack(self._painter.textures) if on_device and not has_annotated else None

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from 0."""
        rows: list[int] = []
        for number, (pool, share) in enumerate(self._pools):
            rounds, positions = np.divmod(np.arange(step * share, (step + 1) * share), len(pool))
            orders = [self._order(number, int(turn)) for turn in rounds]
            rows += [pool[order[position]] for order, position in zip(orders, positions, strict=True)]
        # Rows of a memory map are read fastest in order; the order within a batch does not matter.
        generator = np.random.default_rng([self._seed, 1, step])
        images = self._images[np.sort(np.array(rows))]
        if self.textures is not None:
            return recipe(images, self._painter, generator, self._turns), np.zeros(len(images), np.float32)
        clean = augment(images, generator, self._turns)
        damaged, unlocated = self._painter.add_defects(clean, generator), np.zeros(len(clean), np.float32)
        if len(self._unlocated) and generator.random() < UNLOCATED_SHARE:
            row = generator.integers(len(self._unlocated), size=1)
            damaged[-1:] = clean[-1:] = augment(self._unlocated[row], generator, self._turns)
            unlocated[-1] = 1
        return damaged, (clean, unlocated)

    def workers(self) -> int:
        """Return the number of threads that draw batches: one for every two CPU cores, as far as memory allows."""
        bytes_a_pixel = 3 + SLOTS if self.textures is not None else 2 * 3 * np.dtype(np.float32).itemsize
        size = self._batch_size * _side(self._images) ** 2 * bytes_a_pixel
        return max(1, min(MAX_WORKERS, usable_cores() // 2, BYTES_AHEAD // size))

    def from_step(self, step: int, workers: int | None = None) -> Generator[Batch, None, None]:
        """Yield the batches from `step` on without end, with as many prefetched as there are `workers` (by default
        `workers()`).
        """
        workers = workers or self.workers()
        # Matrix products as small as these gain nothing from a second thread, which would only slow the network down.
        with single_threaded_products(), ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
            coming = deque(pool.submit(self.batch, step + ahead) for ahead in range(workers))
            while True:
                ready = coming.popleft().result()
                coming.append(pool.submit(self.batch, step + workers))
                step += 1
                yield ready

    def _shuffled(self, pool: int, turn: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, 0, turn, pool]).permutation(len(self._pools[pool][0]))


def _pools(images: Images, batch_size: int) -> list[tuple[NDArray[np.int64], int]]:
    """Return the pools that a batch is sampled from, as indices of images, and the number of images from each."""
    everything = np.arange(len(images))
    fresh = images.fresh if isinstance(images, Selection) else None
    if fresh is None or fresh.all() or not fresh.any():
        return [(everything, batch_size)]
    half = batch_size // 2
    pools = [(everything[fresh], batch_size - half), (everything[~fresh], half)]
    return [(pool, share) for pool, share in pools if share]


def validation_batches(images: Images, batch_size: int, seed: int, most: int = 64) -> list[Drawn]:
    """Return fixed batches for the validation loss: at most `most` (64) images spread evenly over `images`.

    Images are repeated to fill the last batch. Without images, returns no batches.
    """
    if len(images) == 0:
        return []
    painter, batches = Painter(_side(images), seed), []
    for number, part in enumerate(whole_batches(spread(len(images), most), batch_size)):
        generator = np.random.default_rng([seed, 2, number])
        clean = augment(images[part], generator)
        batches.append((painter.add_defects(clean, generator), (clean, np.zeros(len(clean), np.float32))))
    return batches


def _side(images: Images) -> int:
    pixels = images.images if isinstance(images, Selection) else images
    return int(pixels.shape[1])
