"""Measures the arithmetic of a training step, the device's highest rate of matrix products, and memory, from which
`benchmarks.speed` computes the share of the highest rate that a training reaches.

Counts the convolutions and dense layers, with a multiply-add as two operations, as in vendors' specifications;
everything else (norms, activations, the loss, the optimizer) takes time but is not counted.
"""

from __future__ import annotations

import math
import resource
import time
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from pipelines.tasks.anomaly.synthetic.device import has_gpu

# Sides of the square matrices, and the least total time of the products of each side.
SIDES = (1024, 2048, 4096, 8192)
LEAST_SECONDS = 0.05
# If a product takes longer, larger ones are not tried: they would not be faster.
LONG_SECONDS = 0.2


def step_operations(network: keras.Model) -> int:
    """Return the floating-point operations of a training step for one image: for each layer the forward pass, the
    gradient with respect to its weights and, if an earlier layer is trained, the gradient with respect to its input.
    Layers that are not trained are not counted.
    """
    total = 0
    for layer in network.layers:
        forward = _operations(layer)
        if forward:
            total += forward * (3 if _is_trained(layer.input) else 2)
    return total


def highest_rate(dtype: str) -> float:
    """Return the operations per second of the fastest product of square matrices in `dtype`, with Keras's backend."""
    best = 0.0
    for side in SIDES:
        generator = np.random.default_rng(side)
        # The second matrix roughly preserves norms, so that repeated products neither grow nor vanish.
        left, right = (
            ops.cast(scale * generator.standard_normal((side, side), np.float32), dtype) for scale in (1.0, side**-0.5)
        )
        _products(left, right, 1)
        seconds, count = _products(left, right, 1), 1
        while seconds < LEAST_SECONDS:
            count *= 2
            seconds = _products(left, right, count)
        best = max(best, 2 * side**3 * count / seconds)
        if seconds / count > LONG_SECONDS:
            break
    return best


def highest_memory() -> tuple[str, int]:
    """Return `device` or, without a GPU, `process`, and its peak memory in bytes."""
    used = _highest_of_gpu() if has_gpu() else None
    if used is not None:
        return "device", int(used)
    return "process", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _highest_of_gpu() -> int | None:
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # Not every allocator of JAX keeps statistics.
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    import tensorflow

    return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]


def _operations(layer: layers.Layer) -> int:
    """Return the operations of a layer's forward pass for one image; 0 for a layer that is not counted."""
    if not isinstance(layer, layers.Conv2D | layers.Conv2DTranspose | layers.Dense) or not layer.trainable_weights:
        return 0
    # The kernel of a transposed convolution is applied at each pixel of its input, any other at each of its output.
    shape = layer.input.shape if isinstance(layer, layers.Conv2DTranspose) else layer.output.shape
    return 2 * math.prod(shape[1:-1]) * math.prod(layer.kernel.shape)


def _is_trained(tensor: Any) -> bool:
    """Return whether a symbolic tensor depends on trained weights, so that its gradient is needed."""
    visited, left = set(), [*tensor] if isinstance(tensor, list) else [tensor]
    while left:
        operation, node, _ = left.pop()._keras_history
        if id(operation) in visited or type(operation).__name__ == "StopGradient":
            continue
        visited.add(id(operation))
        if getattr(operation, "trainable_weights", None):
            return True
        left += operation._inbound_nodes[node].input_tensors
    return False


def _products(left: Any, right: Any, count: int) -> float:
    """Return the seconds of `count` products, each of the result of the one before."""
    start = time.perf_counter()
    for _ in range(count):
        left = ops.matmul(left, right)
    # Backends are asynchronous; fetching waits for the result.
    ops.convert_to_numpy(ops.cast(left[0, :1], "float32"))
    return time.perf_counter() - start
