"""The restoration autoencoder: a U-Net that restores the clean RGB image from the fine structure of the grey image, and
a smaller second U-Net that segments defects.

The restorer also predicts its own error. Its input is reduced, inside the network, to the grey image minus a blurred
copy, so that it has to supply colour and shading from what it learnt of normal images (Liu et al., "Simple and
effective frequency-aware image restoration for industrial visual anomaly detection", 2024); trained to remove
synthetic defects, it does not reproduce real ones well. The second network takes the image, its restoration and their
difference, and returns the logits of a defect (Zavrtanik et al., "DRAEM", ICCV 2021). Both consist of standard Keras
layers and operations only, so that a saved network loads in safe mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from pipelines.errors import TrainingFailed
from pipelines.tasks.anomaly.restoration.anomaly_score import (
    evidence,
    excess,
    gradient_error,
    relative_error,
    roughness,
    shown_excess,
)
from pipelines.tasks.anomaly.restoration.normality import PATTERN, Usual
from pipelines.tasks.anomaly.restoration.resample import halved

CHANNELS = {
    "small": (64, 96, 128),
    "base": (96, 128, 160, 192),
    "large": (128, 160, 192, 256),
}
SECOND_CHANNELS = {
    "small": (32, 48, 64),
    "base": (48, 64, 96, 96),
    "large": (64, 96, 96, 128),
}
# Both networks work on fields of 4 x 4 pixels: the full-resolution levels of a U-Net take most of its time but hold few
# of its weights.
FIELD = 4
BLUR = 9
# Initial bias of the second network's logits: the share of defective pixels, as a logit.
RARE = -4.0
# The outputs in the order in which networks saved by version 0.1 list them.
OUTPUTS = ("restored", "expected", "defect", "anomalous", "features", "error", "evidence")
# The outputs that the loss is computed from.
TRAINED_OUTPUTS = OUTPUTS[:4]
# Name prefix of the layers that hold the statistics of good images rather than trained weights.
USUAL = "usual"


def build_network(preset: str, input_size: int, dtype: str = "float32", usual: Usual | None = None) -> keras.Model:
    """Return the network of a preset, which takes an image float32 [N, S, S, 3] in 0 to 1 and returns a dictionary.

    Its outputs, all float32:
        restored: the restoration, [N, S, S, 3] in 0 to 1.
        expected: the predicted error of the restoration, [N, S/2, S/2, 1], at least 0.
        defect: logits that a pixel belongs to a defect, [N, S/2, S/2, 1].
        anomalous: the logit that the image has a defect, [N, 1].
        features: the restorer's bottleneck, [N, h, w, d].
        error: the excess error (`anomaly_score.shown_excess`), [N, S/2, S/2, 1], at least 0.
        evidence: the evidence (`anomaly_score.evidence`), [N, 7], on surfaces [N, 9].

    With `usual`, the statistics of good images, the error is in units of its usual deviation and evidence is
    standardised; without, both are raw. `dtype` is a Keras dtype policy; weights are float32 under any.
    """
    image = keras.Input((input_size, input_size, 3), name="image")
    structure = high_pass(image)
    widths = CHANNELS[preset]
    folded = _block(structure, widths[0], dtype, "fold", size=10, strides=FIELD)
    drawn, features = _u_net(folded, widths, dtype, "")
    # In float32: bfloat16 would quantise the restoration in steps of half a percent.
    restored = _unfolded(drawn, 3, FIELD, "sigmoid", "draw")
    expected = _unfolded(drawn, 1, FIELD // 2, "softplus", "expect")

    # No gradient of the second network flows into the restoration that it judges.
    fixed, foretold = ops.stop_gradient(restored), ops.stop_gradient(expected)
    errors = gradient_error(image, fixed)
    widths = SECOND_CHANNELS[preset]
    whole = ops.concatenate([image - 0.5, (image - fixed) * 4.0, structure, errors[0]], axis=-1)
    second_inputs = [
        layers.Conv2D(widths[0], 8, strides=FIELD, padding="same", use_bias=False, dtype=dtype, name="second_fold")(
            whole
        ),
        ops.concatenate([halved(errors[1]), errors[2], halved(foretold)], axis=-1),
        ops.stop_gradient(drawn),
    ]
    x = _block(layers.Concatenate(dtype=dtype, name="seen")(second_inputs), widths[0], dtype, "second_encode0")
    marked, opinion = _u_net(x, widths, dtype, "second_")
    defect = _unfolded(marked, 1, FIELD // 2, "linear", "mark", bias=RARE)
    pooled = [ops.max(opinion, axis=(1, 2)), ops.mean(opinion, axis=(1, 2))]
    anomalous = layers.Dense(1, dtype="float32", name="judge")(ops.cast(ops.concatenate(pooled, axis=-1), "float32"))

    features = layers.Activation("linear", dtype="float32", name="features")(features)
    error = relative_error(image, restored, expected)
    if usual is None:
        beyond = excess(error)
        pieces = evidence(beyond, defect, anomalous)
    else:
        part = _shown_part(image, usual)
        beyond = excess(error, *_usual_maps(part, image.shape[1] // 2, usual))
        pieces = evidence(beyond, defect, anomalous, paths=usual.surface)
        pieces = layers.Rescaling(
            [1 / scale for scale in usual.scales],
            [-location / scale for location, scale in zip(usual.locations, usual.scales, strict=True)],
            dtype="float32",
            name="evidence",
        )(ops.subtract(pieces, _usual_level(roughness(image), part, usual)))
    outputs = {
        "restored": restored,
        "expected": expected,
        "defect": defect,
        "anomalous": anomalous,
        "features": features,
        "error": shown_excess(beyond),
        "evidence": pieces,
    }
    return keras.Model(image, outputs, name=f"restoration_{preset}")


# The statistics of good images are weights of standard layers, so that they are saved with the network.


def _shown_part(image: keras.KerasTensor, usual: Usual) -> keras.KerasTensor:
    """Return the index [N, 1] of the part that each image shows: the part with the nearest pattern."""
    fields = image.shape[1] // PATTERN
    grey = ops.mean(ops.reshape(image, (-1, PATTERN, fields, PATTERN, fields * 3)), axis=(2, 4))
    # Patterns have mean 0, so that the mean of the image does not change their order.
    nearness = _linear(-0.5 * np.square(usual.patterns).sum(axis=1), usual.patterns.T, "patterns")
    # Not `argmax`: Keras exports it as an operation that ONNX Runtime does not support.
    return ops.top_k(nearness(ops.reshape(grey, (-1, PATTERN * PATTERN))), 1)[1]


def _usual_maps(part: keras.KerasTensor, side: int, usual: Usual) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return the maps `middles` and `widths`, each [N, side, side, 1], of the part that each image shows."""
    both = np.stack([usual.middles, usual.widths], axis=1)
    maps = ops.reshape(_looked_up(both.reshape(len(both), -1), "maps")(part), (-1, 2, side, side, 1))
    return maps[:, 0], maps[:, 1]


def _usual_level(rough: keras.KerasTensor, part: keras.KerasTensor, usual: Usual) -> keras.KerasTensor:
    """Return the levels [N, pieces] for images of roughness `rough` [N, 1]: piecewise linear between the knots,
    computed as a sum of ReLUs, one for each knot.
    """
    typical = ops.reshape(_looked_up(usual.roughness[:, None], "roughness")(part), (-1, 1))
    bent = ops.relu(_linear(-usual.knots, np.ones((1, len(usual.knots))), "knots")(ops.subtract(rough, typical)))
    slopes = np.diff(usual.levels, axis=0) / np.diff(usual.knots)[:, None]
    flat = np.zeros((1, usual.levels.shape[1]))
    return _linear(usual.levels[0], np.diff(slopes, axis=0, prepend=flat, append=flat), "levels")(bent)


def _linear(bias: NDArray[Any], kernel: NDArray[Any], name: str) -> layers.Layer:
    layer = layers.Dense(kernel.shape[1], dtype="float32", name=f"{USUAL}_{name}")
    layer.build((None, kernel.shape[0]))
    layer.set_weights([kernel, bias])
    return layer


def _looked_up(values: NDArray[Any], name: str) -> layers.Layer:
    layer = layers.Embedding(*values.shape, dtype="float32", name=f"{USUAL}_{name}")
    layer.build()
    layer.set_weights([values])
    return layer


def named_weights(network: keras.Model) -> dict[str, list[NDArray[Any]]]:
    """Return the trained weights of a network, float32, by layer name, without the statistics of its images."""
    learnt = (layer for layer in network.layers if layer.weights and not layer.name.startswith(USUAL))
    return {layer.name: [np.asarray(weight, np.float32) for weight in layer.get_weights()] for layer in learnt}


def set_weights(network: keras.Model, weights: dict[str, list[NDArray[Any]]]) -> None:
    """Set the trained weights of another network. Raises TrainingFailed if its architecture differs."""
    own = named_weights(network)
    shapes, others = (
        {name: [array.shape for array in arrays] for name, arrays in named.items()} for named in (own, weights)
    )
    if shapes != others:
        raise TrainingFailed("the weights to start from belong to another network; train from scratch instead")
    for name, arrays in weights.items():
        network.get_layer(name).set_weights(arrays)


def high_pass(image: keras.KerasTensor) -> keras.KerasTensor:
    """Return the grey image [N, H, W, 1] minus its local mean, scaled to about -1 to 1."""
    grey = ops.mean(image, axis=-1, keepdims=True)
    blurred = ops.average_pool(ops.average_pool(grey, BLUR, 1, "same"), BLUR, 1, "same")
    return ops.multiply(ops.subtract(grey, blurred), 4.0)


def _unfolded(
    x: keras.KerasTensor, channels: int, factor: int, activation: str, name: str, bias: float = 0.0
) -> keras.KerasTensor:
    """Return `x` [N, h, w, c] upsampled by a transposed convolution to [N, factor * h, factor * w, channels]."""
    return layers.Conv2DTranspose(
        channels,
        2 * factor,
        strides=factor,
        padding="same",
        dtype="float32",
        activation=activation,
        bias_initializer=keras.initializers.Constant(bias),
        name=name,
    )(x)


def _u_net(
    x: keras.KerasTensor, channels: Sequence[int], dtype: str, name: str
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return the output of a U-Net, of the size of `x`, and its bottleneck.

    Skip connections are added rather than concatenated, which takes less than half the arithmetic at the same width.
    """
    skips = [x]
    for level, width in enumerate(channels[1:], start=1):
        x = _block(x, width, dtype, f"{name}down{level}", strides=2)
        x = _block(x, width, dtype, f"{name}encode{level}")
        skips.append(x)
    bottleneck = x
    for level in reversed(range(len(channels) - 1)):
        x = _block(x, channels[level], dtype, f"{name}narrow{level}", size=1)
        x = layers.UpSampling2D(2, interpolation="nearest", dtype=dtype, name=f"{name}up{level}")(x)
        x = layers.Add(dtype=dtype, name=f"{name}join{level}")([x, skips[level]])
        x = _block(x, channels[level], dtype, f"{name}decode{level}")
    return x, bottleneck


def _block(
    x: keras.KerasTensor, width: int, dtype: str, name: str, size: int = 3, strides: int = 1
) -> keras.KerasTensor:
    x = layers.Conv2D(width, size, strides=strides, padding="same", use_bias=False, dtype=dtype, name=name)(x)
    x = layers.BatchNormalization(momentum=0.95, dtype=dtype, name=f"{name}_norm")(x)
    return layers.Activation("relu", dtype=dtype, name=f"{name}_act")(x)
