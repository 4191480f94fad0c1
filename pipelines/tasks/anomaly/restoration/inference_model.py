"""Builds the deployed model: one graph from a uint8 image to score, error map and embedding."""

from __future__ import annotations

from pathlib import Path

import keras
from keras import ops

from pipelines.errors import BadPackage, first_line
from pipelines.tasks.anomaly.restoration.anomaly_score import (
    embedding,
    fused_score,
    reconstruction_score,
    shares,
    weighted_error,
)
from pipelines.tasks.anomaly.restoration.network import OUTPUTS


def inspection_model(network: keras.Model, score: str = "fused") -> keras.Model:
    """Return `network` with normalisation of its input and scoring of its outputs.

    `image` uint8 [N, S, S, 3] -> {`score` [N], `error_map` [N, S/2, S/2], `embedding` [N, d]}, all float32. `score` is
    `fused` or `reconstruction`; the map is the excess error, for the fused score weighted by the second network. With
    the fused score, the outputs also hold its `evidence` and the weights `shares` of the pieces, both [N, 7 or 9], by
    which `pipelines.tasks.anomaly.predict` merges tiles.
    """
    image = keras.Input(network.input_shape[1:], dtype="uint8", name="image")
    scaled = ops.divide(ops.cast(image, "float32"), 255.0)
    answer = network(scaled, training=False)
    defect, error, evidence = answer["defect"], answer["error"], answer["evidence"]
    outputs = {"embedding": embedding(answer["features"])}
    if score == "fused":
        outputs |= {"score": fused_score(evidence), "error_map": weighted_error(error, defect), "evidence": evidence}
        outputs["shares"] = ops.zeros_like(evidence) + shares(evidence.shape[1])
    else:
        outputs |= {"score": reconstruction_score(error), "error_map": error}
    outputs["error_map"] = ops.squeeze(outputs["error_map"], -1)
    return keras.Model(image, outputs, name="inspection")


def load_network(path: Path) -> keras.Model:
    """Load a saved network in safe mode: standard layers only, no code.

    A network saved by version 0.1 lists its outputs by position; it gets their names. Raises BadPackage.
    """
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # keras raises whatever its zip, JSON and HDF5 readers raise
        raise BadPackage(f"{path.name}: not a network that keras can load: {first_line(error)}") from error
    if isinstance(network.output, dict):
        return network
    if len(network.outputs) != len(OUTPUTS):
        raise BadPackage(f"{path.name}: a network with {len(network.outputs)} outputs, not {len(OUTPUTS)}; train again")
    outputs = dict(zip(OUTPUTS, network.outputs, strict=True))
    return keras.Model(network.input, outputs, name=network.name)
