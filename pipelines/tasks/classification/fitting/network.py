"""The network of a classifier: a backbone with dense layers behind its embedding."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from pipelines.backbones import Backbone
from pipelines.tasks.classification.fitting.data import Head

HIDDEN = 256  # units of a hidden layer


def classifier(backbone: Backbone, classes: int, dense_layers: int) -> keras.Model:
    """Return backbone and head; takes RGB images, float [n, S, S, 3] from 0 to 255.

    Outputs by name: `logits` [n, classes] and `embedding` [n, d].
    """
    embedding = backbone.network.output["embedding"]
    x = embedding
    for number in range(1, dense_layers):
        x = layers.Dense(HIDDEN, activation="relu", name=f"hidden_{number}")(x)
    logits = layers.Dense(classes, name="logits")(x)
    return keras.Model(backbone.network.input, {"logits": logits, "embedding": embedding}, name="classifier")


def set_head(network: keras.Model, head: Head) -> None:
    """Set the weights of a network with one dense layer."""
    network.get_layer("logits").set_weights([head.weights, head.bias])


def head_layers(network: keras.Model) -> list[keras.Layer]:
    """Return the dense layers behind the embedding, the last first."""
    return [layer for layer in reversed(network.layers) if layer.name == "logits" or layer.name.startswith("hidden_")]


def open_upper_layers(network: keras.Model, convolutions: int) -> int:
    """Let training change the head and the last convolutions of the backbone, and nothing before them.

    Batch normalisation stays frozen, as in the tutorial on fine-tuning of Keras: its statistics over small batches
    would be worse than those of ImageNet. Returns the number of convolutions that are open.
    """
    head, opened, closed = {layer.name for layer in head_layers(network)}, 0, False
    for layer in reversed(network.layers):
        if layer.name in head:
            layer.trainable = True
            continue
        convolution = isinstance(layer, layers.Conv1D | layers.Conv2D | layers.DepthwiseConv2D | layers.SeparableConv2D)
        closed = closed or (convolution and opened == convolutions)
        opened += convolution and not closed
        layer.trainable = not closed and not isinstance(layer, layers.BatchNormalization)
    return opened


def embed(network: keras.Model, images: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float32]:
    """Return the embeddings [n, d] of images uint8 [n, S, S, 3]."""
    parts = []
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        # Whole batches, so that no backend compiles for the last one.
        padded = np.zeros((batch_size, *batch.shape[1:]), np.float32)
        padded[: len(batch)] = batch
        answer: dict[str, Any] = network.predict_on_batch(padded)
        parts.append(np.asarray(answer["embedding"], np.float32)[: len(batch)])
    return np.concatenate(parts)
