"""Baseline detectors: mean brightness, PCA reconstruction, and a plain bottleneck autoencoder.

Each is trained on good images only: `fit` takes the prepared training images, `judge` returns scores and, except for
brightness, error maps.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Judged = tuple[NDArray[np.float64], NDArray[np.float32] | None]


class Baseline(Protocol):
    """A detector of prepared images [n, S, S, 3]."""

    def fit(self, images: Images, seed: int, *, seconds: float = math.inf, steps: int | None = None) -> None:
        """Train on good images, for at most `seconds` or `steps`."""

    def judge(self, images: Images) -> Judged:
        """Return the scores [n], larger for anomalies, and the error maps [n, h, w] or None."""


class Brightness:
    """The distance of an image's mean brightness from that of the training images."""

    def fit(self, images: Images, seed: int, *, seconds: float = math.inf, steps: int | None = None) -> None:
        """Compute the mean brightness."""
        self._mean = float(images.mean())

    def judge(self, images: Images) -> Judged:
        """Return the distances of the means, without maps."""
        return np.abs(images.mean(axis=(1, 2, 3), dtype=np.float64) - self._mean), None


class PcaReconstruction:
    """The distance of an image, at 64 pixels a side, from the subspace of the training images' principal components.

    Keeps the components that explain 95 % of the variance, at most half as many as there are images.
    """

    def fit(self, images: Images, seed: int, *, seconds: float = math.inf, steps: int | None = None) -> None:
        """Compute the components."""
        flat = self._flat(images)
        self._mean = flat.mean(axis=0)
        centred = flat - self._mean
        values, vectors = np.linalg.eigh(centred @ centred.T)
        values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        enough = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.95)) + 1
        kept = min(enough, max(1, len(images) // 2))
        self._components = (vectors[:, :kept].T @ centred) / np.sqrt(values[:kept, None] + 1e-12)

    def judge(self, images: Images) -> Judged:
        """Return the norms of the residuals, and the mean squared residual of each pixel."""
        centred = self._flat(images) - self._mean
        residual = centred - (centred @ self._components.T) @ self._components
        maps = np.square(residual).reshape(len(images), 64, 64, 3).mean(axis=-1)
        return np.linalg.norm(residual, axis=1).astype(np.float64), maps.astype(np.float32)

    def _flat(self, images: Images) -> NDArray[np.float32]:
        side = images.shape[1] // 64
        cut = images[:, : 64 * side, : 64 * side].reshape(len(images), 64, side, 64, side, 3)
        return (cut.mean(axis=(2, 4), dtype=np.float32) / 255).reshape(len(images), -1)


class PlainAutoencoder:
    """A convolutional autoencoder through a vector of 128 numbers, trained on squared error, which is its score."""

    def fit(self, images: Images, seed: int, *, seconds: float = math.inf, steps: int | None = None) -> None:
        """Train until the time is up or the steps are done."""
        import keras

        keras.utils.set_random_seed(seed)
        self._network = _plain_network(images.shape[1])
        self._network.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
        generator = np.random.default_rng([seed, 5])
        start = time.monotonic()
        for _ in itertools.count() if steps is None else range(steps):
            if time.monotonic() - start >= seconds:
                break
            batch = images[generator.integers(len(images), size=32)].astype(np.float32) / 255
            self._network.train_on_batch(batch, batch)

    def judge(self, images: Images) -> Judged:
        """Return the mean squared errors, and those of each pixel."""
        maps = []
        for start in range(0, len(images), 32):
            batch = images[start : start + 32].astype(np.float32) / 255
            restored: Any = self._network.predict_on_batch(batch)
            maps.append(np.square(batch - restored).mean(axis=-1))
        errors = np.concatenate(maps)
        return errors.mean(axis=(1, 2)).astype(np.float64), errors.astype(np.float32)


def _plain_network(size: int) -> Any:
    from keras import Sequential, layers

    widths = (32, 64, 128, 128)
    small = size // 2 ** len(widths)
    parts: list[Any] = [layers.Input((size, size, 3))]
    parts += [layers.Conv2D(width, 3, strides=2, padding="same", activation="relu") for width in widths]
    parts += [layers.Flatten(), layers.Dense(128), layers.Dense(small * small * widths[-1], activation="relu")]
    parts += [layers.Reshape((small, small, widths[-1]))]
    parts += [
        layers.Conv2DTranspose(width, 4, strides=2, padding="same", activation="relu") for width in widths[-2::-1]
    ]
    parts += [layers.Conv2DTranspose(3, 4, strides=2, padding="same", activation="sigmoid")]
    return Sequential(parts)


BASELINES: dict[str, type[Baseline]] = {
    "brightness": Brightness,
    "PCA": PcaReconstruction,
    "plain autoencoder": PlainAutoencoder,
}
