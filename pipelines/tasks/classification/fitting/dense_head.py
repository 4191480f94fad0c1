"""Fits a head of several dense layers on embeddings."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from pipelines.tasks.classification.fitting.network import head_layers

EPOCHS = 60
DROPOUT = 0.3
LEAST_DEVIATION = 0.2  # of a feature, as a share of the mean deviation of all


def fit_dense_head(
    network: keras.Model,
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    weights: NDArray[np.float32],
    *,
    seed: int = 0,
) -> None:
    """Train the dense layers of a classifier on embeddings [n, d], with dropout between them, and set them.

    The embeddings are standardised, which the first layer undoes again.
    """
    names = [layer.name for layer in reversed(head_layers(network))]
    inputs = keras.Input((embeddings.shape[1],), name="embeddings")
    x = inputs
    for name in names:
        layer = network.get_layer(name)
        x = keras.layers.Dropout(DROPOUT, seed=seed)(x)
        x = keras.layers.Dense(layer.units, activation=layer.activation, name=name)(x)
    head = keras.Model(inputs, x, name="dense_head")
    mean, deviation = embeddings.mean(axis=0), embeddings.std(axis=0)
    # Features that hardly vary among the training images must not dominate others, where they do.
    scale = np.maximum(deviation, LEAST_DEVIATION * deviation.mean()) + 1e-6
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(1e-3, EPOCHS * -(-len(labels) // 32)), weight_decay=0.05
    )
    head.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    head.fit(
        (embeddings - mean) / scale,
        labels,
        sample_weight=weights,
        batch_size=32,
        epochs=EPOCHS,
        shuffle=True,
        verbose=0,
    )
    for name in names:
        kernel, bias = head.get_layer(name).get_weights()
        if name == names[0]:
            kernel = kernel / scale[:, None]
            bias = bias - mean @ kernel
        network.get_layer(name).set_weights([kernel, bias])
