"""What the network is trained to make small: squared error and the loss of fine structure."""

from __future__ import annotations

from keras import ops

from pipelines.models.scoring import Tensor, gradient_error

GRADIENT_WEIGHT = 0.1


def restoration_loss(image: Tensor, restored: Tensor) -> Tensor:
    """Return the scalar loss between clean images and their restoration, both [N, H, W, 3] in 0 to 1.

    Squared error alone blurs; the gradient term is the very error that the anomaly score is made of.
    """
    squared = ops.mean(ops.square(image - restored))
    fine = sum(ops.mean(error) for error in gradient_error(image, restored))
    return squared * 10.0 + GRADIENT_WEIGHT * fine
