"""Which arithmetic the network trains in: bfloat16 where the processor or GPU is faster with it, else float32."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from keras import ops

FLOAT32, BFLOAT16 = "float32", "mixed_bfloat16"
WORTH = 0.8
ROUNDS = 8


def faster_precision() -> str:
    """Time a convolution of the network's size in both, and return the dtype policy to train in.

    float32, unless bfloat16 wins clearly.
    """
    generator = np.random.default_rng(0)
    image = ops.convert_to_tensor(generator.normal(size=(16, 64, 64, 32)).astype(np.float32))
    kernel = ops.convert_to_tensor(generator.normal(size=(3, 3, 32, 32)).astype(np.float32))
    best = {"float32": float("inf"), "bfloat16": float("inf")}
    try:
        # In turns, and the best of several: on a busy machine a single timing says nothing.
        for _ in range(ROUNDS):
            for dtype in best:
                best[dtype] = min(best[dtype], _seconds(ops.cast(image, dtype), ops.cast(kernel, dtype)))
    except Exception:  # each backend raises its own where its device does not support bfloat16
        return FLOAT32
    return BFLOAT16 if best["bfloat16"] < WORTH * best["float32"] else FLOAT32


def _seconds(image: Any, kernel: Any) -> float:
    """Return how long one convolution takes, its result fetched."""
    start = time.perf_counter()
    ops.convert_to_numpy(ops.cast(ops.sum(ops.conv(image, kernel, padding="same")), "float32"))
    return time.perf_counter() - start
