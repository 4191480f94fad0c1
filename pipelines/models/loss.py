"""What the network is trained to make small."""

from __future__ import annotations

from keras import ops

from pipelines.models.scoring import Tensor, gradient_error, pixel_error

SQUARED_WEIGHT = 10.0
GRADIENT_WEIGHT = 0.1
DAMAGE_WEIGHT = 0.1
EXPECTATION_WEIGHT = 0.03
LEAST_EXPECTED = 1e-3
VISIBLE = 0.02
# A batch with hardly a hurt pixel must not weigh as much as one with many.
FEW = 0.004


def training_loss(damaged: Tensor, clean: Tensor, restored: Tensor, expected: Tensor) -> Tensor:
    """Return the scalar loss of a step, from RGB [N, H, W, 3] in 0 to 1 and expected errors [N, H, W, 1].

    Defects cover a few percent of the pixels, so that a network which copies them has a small loss over all:
    those pixels count once more by themselves.
    """
    loss = restoration_loss(clean, restored) + DAMAGE_WEIGHT * damage_loss(damaged, clean, restored)
    return loss + EXPECTATION_WEIGHT * expectation_loss(clean, restored, expected)


def restoration_loss(clean: Tensor, restored: Tensor) -> Tensor:
    """Return the loss over all pixels.

    Squared error alone blurs; the gradient term is the very error that the anomaly score is made of.
    """
    fine = sum(ops.mean(error) for error in gradient_error(clean, restored))
    return SQUARED_WEIGHT * ops.mean(ops.square(clean - restored)) + GRADIENT_WEIGHT * fine


def damage_loss(damaged: Tensor, clean: Tensor, restored: Tensor) -> Tensor:
    """Return the loss over the pixels that a synthetic defect changed visibly; 0 without any."""
    hurt = ops.cast(ops.max(ops.abs(damaged - clean), axis=-1, keepdims=True) > VISIBLE, "float32")
    squared = ops.mean(ops.square(clean - restored), axis=-1, keepdims=True)
    error = pixel_error(clean, restored) + SQUARED_WEIGHT * squared
    return ops.mean(error * hurt) / (ops.mean(hurt) + FEW)


def expectation_loss(clean: Tensor, restored: Tensor, expected: Tensor) -> Tensor:
    """Return how badly `expected` foretells the error: the negative log-likelihood of an exponential
    distribution.
    """
    error = ops.stop_gradient(pixel_error(clean, restored))
    scale = expected + LEAST_EXPECTED
    return ops.mean(error / scale + ops.log(scale))
