"""The network as it is deployed: from a uint8 image to score, error map and embedding, all in one graph."""

from __future__ import annotations

from pathlib import Path

import keras
from keras import ops

from pipelines.errors import BadPackage
from pipelines.graph import first_line
from pipelines.models.scoring import anomaly_score, embedding, error_map


def inspection_model(network: keras.Model) -> keras.Model:
    """Return `network` with normalising before it and scoring behind it.

    `image` uint8 [N, S, S, 3] -> {`score` [N], `error_map` [N, S, S], `embedding` [N, d]}, all float32.
    """
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    scaled = ops.divide(ops.cast(image, "float32"), 255.0)
    restored, expected, features = network(scaled, training=False)
    error = error_map(scaled, restored, expected)
    outputs = {"score": anomaly_score(error), "error_map": error, "embedding": embedding(features)}
    return keras.Model(image, outputs, name="inspection")


def load_network(path: Path) -> keras.Model:
    """Load a saved network in safe mode: standard layers only, no code. Raises BadPackage."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # keras raises whatever its zip, JSON and HDF5 readers raise
        raise BadPackage(f"{path.name}: not a network that keras can load: {first_line(error)}") from error
