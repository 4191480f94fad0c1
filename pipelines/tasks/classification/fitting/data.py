"""What a classifier learns from, and what came of it. Independent of S3, packs and MLflow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledImages:
    """Prepared images with their classes.

    Attributes:
        images: uint8 [n, S, S, 3], possibly mapped from disk.
        rows: int [m], which of them.
        labels: int [m], the place of the class of each.
        groups: str [m]; images of one group show the same thing.
        weights: float32 [m], how much each counts.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images at places 0 … m-1, uint8 [k, S, S, 3]."""
        return self.images[self.rows[places]]


@dataclass(frozen=True)
class Head:
    """A linear classifier of embeddings, logits = embedding @ weights + bias.

    Attributes:
        weights: float32 [d, classes].
        bias: float32 [classes].
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits [n, classes] of embeddings [n, d]."""
        return embeddings @ self.weights + self.bias


@dataclass(frozen=True)
class TunedHead:
    """A head and how it was chosen.

    Attributes:
        head: fitted to all images.
        strength: the inverse of the L2 penalty that cross-validation chose (scikit-learn's `C`).
        out_of_fold: float32 [n, classes], logits of each image by a head that was fitted without its group.
        log_loss: mean cross-entropy of the out-of-fold logits, by strength.
    """

    head: Head
    strength: float
    out_of_fold: NDArray[np.float32]
    log_loss: dict[float, float]


def log_losses(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cross-entropy of each row of logits [n, classes] with its class: [n]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels])
