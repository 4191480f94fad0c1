"""How much arithmetic a training step takes, how fast the device multiplies at best, and how much memory is used: for
`benchmarks.speed` to tell which share of the device's rate a training reaches.

Counted are the convolutions and dense layers, a multiplication and its addition as two operations, as makers of
processors count; all else (norms, activations, the loss, the optimizer) takes time and counts as nothing.
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

# Sides of the square matrices that are tried, and how long the products of one side take together, at least.
SIDES = (1024, 2048, 4096, 8192)
LEAST_SECONDS = 0.05
# A product that takes longer shows that larger ones would be no faster, and only take long.
LONG_SECONDS = 0.2


def step_operations(network: keras.Model) -> int:
    """Return the floating-point operations of a training step for one image: of each layer those of the output, of the
    gradient by its weights and, where something before it is trained, of the gradient by its input. Layers that
    are not trained count as nothing.
    """
    total = 0
    for layer in network.layers:
        forward = _operations(layer)
        if forward:
            total += forward * (3 if _is_trained(layer.input) else 2)
    return total


def highest_rate(dtype: str) -> float:
    """Return the operations a second of the fastest product of two square matrices in `dtype`, with Keras's backend."""
    best = 0.0
    for side in SIDES:
        generator = np.random.default_rng(side)
        # The second keeps the length of whatever is multiplied by it, about.
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
    """Return where the training's memory lies, and how many bytes of it were used at most: the device's, or without
    one the process's.
    """
    used = _highest_of_gpu() if has_gpu() else None
    if used is not None:
        return "device", int(used)
    return "process", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _highest_of_gpu() -> int | None:
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        # Not every allocator of JAX's counts.
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    import tensorflow

    return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]


def _operations(layer: layers.Layer) -> int:
    """Return the operations that a layer's output takes for one image; 0 for a layer that is not counted."""
    if not isinstance(layer, layers.Conv2D | layers.Conv2DTranspose | layers.Dense) or not layer.trainable_weights:
        return 0
    # A transposed convolution's kernel meets each place of its input once, any other each place of its output.
    shape = layer.input.shape if isinstance(layer, layers.Conv2DTranspose) else layer.output.shape
    return 2 * math.prod(shape[1:-1]) * math.prod(layer.kernel.shape)


def _is_trained(tensor: Any) -> bool:
    """Return whether weights that are trained have a say in a symbolic tensor: then its gradient is needed, too."""
    seen, left = set(), [*tensor] if isinstance(tensor, list) else [tensor]
    while left:
        operation, node, _ = left.pop()._keras_history
        if id(operation) in seen or type(operation).__name__ == "StopGradient":
            continue
        seen.add(id(operation))
        if getattr(operation, "trainable_weights", None):
            return True
        left += operation._inbound_nodes[node].input_tensors
    return False


def _products(left: Any, right: Any, count: int) -> float:
    """Return the seconds of so many products, each of what the one before found."""
    start = time.perf_counter()
    for _ in range(count):
        left = ops.matmul(left, right)
    # Backends return before they have computed; fetching waits.
    ops.convert_to_numpy(ops.cast(left[0, :1], "float32"))
    return time.perf_counter() - start
