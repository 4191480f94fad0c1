"""The training loss of the restoration network and of the second network."""

from __future__ import annotations

from dataclasses import dataclass

from keras import ops

from pipelines.tasks.anomaly.restoration.anomaly_score import (
    COLOUR_WEIGHT,
    SCALES,
    Tensor,
    colour_error,
    gradient_error,
    smooth,
)
from pipelines.tasks.anomaly.restoration.resample import doubled, halved

SQUARED_WEIGHT = 10.0
GRADIENT_WEIGHT = 0.1
DAMAGE_WEIGHT = 0.1
EXPECTATION_WEIGHT = 0.03
LEAST_EXPECTED = 1e-3
VISIBLE = 0.015
# A pixel is undamaged where the smoothed change is less than this.
SOUND = 0.003
# Added to the share of damaged pixels, so that a batch with hardly any does not weigh as much as one with many.
FEW = 0.004
# The target of the second network is 0 for changes below UNSEEN and rises linearly to 1 over CLEAR.
UNSEEN, CLEAR = 0.01, 0.03
FOCAL_WEIGHT = 20.0
DICE_WEIGHT = 0.3
DICE_FLOOR = 5.0
IMAGE_WEIGHT = 0.1


@dataclass(frozen=True)
class Errors:
    """The errors of a restoration of images [N, H, W, 3].

    Attributes:
        gradient: gradient error at each scale s, [N, H / 2^s, W / 2^s, 1].
        squared: squared colour error, [N, H/2, W/2, 1].
        fine: gradient error of the two finer scales, [N, H/2, W/2, 1].
        coarse: gradient error of the coarsest scale plus the colour error, [N, H/4, W/4, 1].
    """

    gradient: list[Tensor]
    squared: Tensor
    fine: Tensor
    coarse: Tensor

    @classmethod
    def of(cls, clean: Tensor, restored: Tensor, counts: Tensor) -> Errors:
        """Compute the errors of RGB [N, H, W, 3] in 0 to 1, times `counts` [N, 1, 1, 1], 0 to ignore an image."""
        gradient = [error * counts for error in gradient_error(clean, restored)]
        squared = halved(ops.mean(ops.square(clean - restored), axis=-1, keepdims=True)) * counts
        fine = (halved(gradient[0]) + gradient[1]) / SCALES
        coarse = gradient[2] / SCALES + COLOUR_WEIGHT * colour_error(clean, restored) * counts
        return cls(gradient, squared, fine, coarse)


def training_loss(
    damaged: Tensor,
    clean: Tensor,
    unlocated: Tensor,
    restored: Tensor,
    expected: Tensor,
    defect: Tensor,
    anomalous: Tensor,
) -> Tensor:
    """Return the scalar loss of a step.

    `damaged`, `clean` and `restored` are RGB [N, H, W, 3] in 0 to 1. `unlocated` [N] is 1 for an anomalous image
    without a mask, of which only `anomalous` counts, else 0. The other arguments are outputs of `build_network`.
    """
    counts = ops.reshape(1 - unlocated, (-1, 1, 1, 1))
    errors = Errors.of(clean, restored, counts)
    change = halved(ops.mean(ops.abs(damaged - clean), axis=-1, keepdims=True))
    loss = restoration_loss(errors) + DAMAGE_WEIGHT * damage_loss(errors, change)
    loss = loss + EXPECTATION_WEIGHT * expectation_loss(errors, expected, change, counts)
    return loss + marking_loss(change, defect, anomalous, counts)


def restoration_loss(errors: Errors) -> Tensor:
    """Return the loss over all pixels.

    Squared error alone gives blurred restorations; the gradient term is the error that the anomaly score uses.
    """
    fine = sum(ops.mean(error) for error in errors.gradient)
    return SQUARED_WEIGHT * ops.mean(errors.squared) + GRADIENT_WEIGHT * fine


def damage_loss(errors: Errors, change: Tensor) -> Tensor:
    """Return the loss over the pixels that a synthetic defect changed visibly; 0 without any.

    Defects cover a few percent of the pixels, so that a network which copies them has a small loss over the image:
    their pixels therefore have a term of their own. `change` [N, H/2, W/2, 1] is the mean absolute change of a pixel.
    """
    hurt = ops.cast(change > VISIBLE, "float32")
    fine = ops.mean((errors.fine + SQUARED_WEIGHT * errors.squared) * hurt)
    return (fine + ops.mean(errors.coarse * halved(hurt))) / (ops.mean(hurt) + FEW)


def expectation_loss(errors: Errors, expected: Tensor, change: Tensor, counts: Tensor) -> Tensor:
    """Return the negative log-likelihood of the error of undamaged pixels under an exponential distribution of mean
    `expected`. Damaged pixels are left out, so that the network does not predict an error for defects.
    """
    error = ops.stop_gradient(errors.fine + doubled(errors.coarse))
    scale = expected + LEAST_EXPECTED
    sound = ops.cast(smooth(change) < SOUND, "float32") * counts
    return ops.mean((error / scale + ops.log(scale)) * sound)


def marking_loss(change: Tensor, defect: Tensor, anomalous: Tensor, counts: Tensor) -> Tensor:
    """Return the segmentation and classification loss of the second network, from its logits.

    Cross-entropy with a focal term (Lin et al., "Focal loss for dense object detection", ICCV 2017) and the Dice
    loss (Milletari et al., "V-Net", 3DV 2016), since defects are small.
    """
    truth = ops.clip((change - UNSEEN) / CLEAR, 0, 1)
    chance = ops.sigmoid(defect)
    entropy = _cross_entropy(truth, defect) * counts
    focal = ops.mean(entropy) + FOCAL_WEIGHT * ops.mean(entropy * ops.square(truth - chance))
    both = ops.sum(chance * truth, axis=(1, 2, 3))
    either = ops.sum(chance, axis=(1, 2, 3)) + ops.sum(truth, axis=(1, 2, 3))
    dice = ops.mean((1 - (2 * both + DICE_FLOOR) / (either + DICE_FLOOR)) * counts[:, 0, 0, 0])
    # Images without a mask count as anomalous.
    image = _cross_entropy(ops.maximum(ops.max(truth, axis=(1, 2)), 1 - counts[:, :, 0, 0]), anomalous)
    return focal + DICE_WEIGHT * dice + IMAGE_WEIGHT * ops.mean(image)


def _cross_entropy(truth: Tensor, logits: Tensor) -> Tensor:
    return ops.maximum(logits, 0) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
