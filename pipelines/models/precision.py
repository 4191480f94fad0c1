"""Which arithmetic the network trains in: bfloat16 where the processor or GPU is faster with it, else float32."""

from __future__ import annotations

import time

import keras
import numpy as np
from keras import ops

FLOAT32, BFLOAT16 = "float32", "mixed_bfloat16"
WORTH = 0.8


def faster_precision() -> str:
    """Time a small convolution in both and return the dtype policy to train in; float32 unless bfloat16 wins
    clearly.
    """
    image = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(8, 32, 32, 64)).astype(np.float32))
    kernel = ops.convert_to_tensor(np.random.default_rng(1).normal(size=(3, 3, 64, 64)).astype(np.float32))
    try:
        seconds = {dtype: _seconds(ops.cast(image, dtype), ops.cast(kernel, dtype)) for dtype in (FLOAT32, "bfloat16")}
    except Exception:  # backends raise whatever their device raises where bfloat16 is not supported
        return FLOAT32
    return BFLOAT16 if seconds["bfloat16"] < WORTH * seconds[FLOAT32] else FLOAT32


def _seconds(image: keras.KerasTensor, kernel: keras.KerasTensor) -> float:
    """Return the best of five timings, so that another process on the machine decides nothing."""
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        ops.convert_to_numpy(ops.cast(ops.sum(ops.conv(image, kernel, padding="same")), "float32"))
        best = min(best, time.perf_counter() - start)
    return best
