"""The restoration autoencoder: a small U-Net that draws the clean RGB image from the fine structure of the grey
one.

It says, too, how far off it expects to be at each pixel. Its input is reduced, inside the network, to the grey
image minus a blurred copy, so that it has to supply colour and shading from what it learnt of normal images
(Liu et al., "Simple and effective frequency-aware image restoration for industrial visual anomaly detection",
2024); trained to remove synthetic defects, it cannot pass a real one through. Only standard Keras layers and
operations, so that a saved network loads in safe mode.
"""

from __future__ import annotations

import keras
from keras import layers, ops

CHANNELS = {
    "small": (32, 64, 96, 64),
    "base": (48, 96, 128, 192, 64),
    "large": (64, 96, 128, 192, 64),
}
BLUR = 9


def build_network(preset: str, input_size: int, dtype: str = "float32") -> keras.Model:
    """Return the network of a preset: image [N, S, S, 3] in 0 to 1 -> [restored, expected, features].

    `restored` [N, S, S, 3] is in 0 to 1; `expected` [N, S, S, 1] is the error that the network expects of its
    restoration, at least 0; `features` [N, h, w, 64] are its bottleneck. `dtype` is a Keras dtype policy;
    weights and outputs are float32.
    """
    channels = CHANNELS[preset]
    image = keras.Input((input_size, input_size, 3), name="image")
    x = fold(high_pass(image), 2)
    skips = []
    for level, width in enumerate(channels):
        if level:
            x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False, dtype=dtype, name=f"down{level}")(x)
            x = _norm(x, dtype, f"down{level}_norm")
        x = _block(x, width, dtype, f"encode{level}")
        skips.append(x)
    features = layers.Activation("linear", dtype="float32", name="features")(x)
    for level in reversed(range(len(channels) - 1)):
        x = layers.UpSampling2D(2, interpolation="nearest", dtype=dtype, name=f"up{level}")(x)
        x = layers.Concatenate(dtype=dtype, name=f"join{level}")([x, skips[level]])
        x = _block(x, channels[level], dtype, f"decode{level}")
    # Drawn in float32: bfloat16 would leave steps of half a percent in what is compared.
    drawn = layers.Conv2D(12, 3, padding="same", dtype="float32", activation="sigmoid", name="draw")(x)
    expected = layers.Conv2D(4, 3, padding="same", dtype="float32", activation="softplus", name="expect")(x)
    outputs = [unfold(drawn, 2), unfold(expected, 2), features]
    return keras.Model(image, outputs, name=f"restoration_{preset}")


def high_pass(image: keras.KerasTensor) -> keras.KerasTensor:
    """Return the grey image minus its local mean, and how far that reaches, as one channel about -1 to 1."""
    grey = ops.mean(image, axis=-1, keepdims=True)
    blurred = ops.average_pool(ops.average_pool(grey, BLUR, 1, "same"), BLUR, 1, "same")
    return ops.multiply(ops.subtract(grey, blurred), 4.0)


def fold(x: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Fold each `side` x `side` field of pixels into channels: [N, H, W, C] -> [N, H/side, W/side, side * side
    * C].
    """
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height // side, side, width // side, side, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, height // side, width // side, side * side * channels))


def unfold(x: keras.KerasTensor, side: int) -> keras.KerasTensor:
    """Undo `fold`: [N, H, W, side * side * C] -> [N, H * side, W * side, C]."""
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height, width, side, side, channels // (side * side)))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, height * side, width * side, channels // (side * side)))


def _block(x: keras.KerasTensor, width: int, dtype: str, name: str) -> keras.KerasTensor:
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, dtype=dtype, name=name)(x)
    return _norm(x, dtype, f"{name}_norm")


def _norm(x: keras.KerasTensor, dtype: str, name: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=0.95, dtype=dtype, name=name)(x)
    return layers.Activation("relu", dtype=dtype, name=f"{name}_act")(x)
