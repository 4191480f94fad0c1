"""Which arithmetic the network trains in: bfloat16 where the processor or GPU is faster with it, else float32.

Timed are convolutions of the network's size and transposed ones, which are their gradients by the image. `keras.ops`
has no operation for gradients by the kernel, so that these are left out.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

FLOAT32, BFLOAT16 = "float32", "mixed_bfloat16"
WORTH = 0.8
# By how much of float32's spread a value of bfloat16's may be off.
NEAR = 0.05
ROUNDS = 8
LEAST_SECONDS, MOST_SECONDS = 0.02, 0.6
MOST_STEPS = 64
# Images of a convolution. On a fast GPU a few are done sooner than the next convolution is called.
FEW, MANY = 16, 256


def faster_precision() -> str:
    """Time convolutions of the network's size in both, and return the dtype policy to train in.

    float32, unless bfloat16 wins clearly and finds nearly the same values.
    """
    try:
        return BFLOAT16 if _bfloat16_wins() else FLOAT32
    except Exception:  # each backend raises its own where its device does not support bfloat16
        return FLOAT32


def _bfloat16_wins() -> bool:
    inputs, steps = _inputs_and_steps()
    best, found = dict.fromkeys(inputs, float("inf")), {}
    spent = 0.0
    # In turns, and the best of several: on a busy machine a single timing says nothing.
    for _ in range(ROUNDS):
        for dtype, (images, weights) in inputs.items():
            seconds, found[dtype] = _timed(images, weights, steps)
            best[dtype] = min(best[dtype], seconds)
            spent += seconds
        if not _near(found["bfloat16"], found["float32"]):
            return False
        if spent > MOST_SECONDS:
            break
    return best["bfloat16"] < WORTH * best["float32"]


def _inputs_and_steps() -> tuple[dict[str, tuple[Any, Any]], int]:
    """Return images and kernel in each dtype, and the steps for which float32 takes LEAST_SECONDS or more.

    Beside such a time calling and fetching count little. There are MOST_STEPS at most.
    """
    image, kernel = _image_and_kernel()
    inputs, steps = _cast(image, kernel), 1
    seconds = _quickest(*inputs["float32"], steps)
    if seconds * MANY / FEW < LEAST_SECONDS:
        inputs = _cast(ops.tile(image, (MANY // FEW, 1, 1, 1)), kernel)
        seconds = _quickest(*inputs["float32"], steps)
    while seconds < LEAST_SECONDS and steps < MOST_STEPS:
        steps *= 2
        seconds = _quickest(*inputs["float32"], steps)
    return inputs, steps


def _image_and_kernel() -> tuple[Any, Any]:
    """Return images [FEW, 64, 64, 32] and a kernel [3, 3, 32, 32] that makes less of them at every step."""
    generator = np.random.default_rng(0)
    image = generator.normal(size=(FEW, 64, 64, 32))
    # The convolution's largest singular value is about twice this deviation times the root of its 9 * 32 summands.
    kernel = generator.normal(0, 0.3 / np.sqrt(9 * 32), (3, 3, 32, 32))
    return ops.convert_to_tensor(image.astype(np.float32)), ops.convert_to_tensor(kernel.astype(np.float32))


def _cast(image: Any, kernel: Any) -> dict[str, tuple[Any, Any]]:
    """Return both in each dtype, there and warmed up: backends cast when they please, and compile at first use."""
    inputs = {dtype: (ops.cast(image, dtype), ops.cast(kernel, dtype)) for dtype in ("float32", "bfloat16")}
    for images, weights in inputs.values():
        _timed(images, weights, 1)
    return inputs


def _quickest(image: Any, kernel: Any, steps: int) -> float:
    """Return the seconds of the better of two runs."""
    return min(_timed(image, kernel, steps)[0] for _ in range(2))


def _timed(image: Any, kernel: Any, steps: int) -> tuple[float, NDArray[np.float32]]:
    """Return the seconds that `steps` convolutions, each followed by its transposed one, take, and means [W, C] of what
    the last one finds.

    Each works on what the one before found, and most backends return before they have computed: fetching the last waits
    for all. The image is added anew each time, so that values neither grow nor vanish and errors do not add up.
    """
    start = time.perf_counter()
    change: Any = 0.0
    for _ in range(steps):
        seen = ops.conv(image + change, kernel, padding="same")
        change = ops.conv_transpose(seen, kernel, padding="same")
    found = ops.convert_to_numpy(ops.mean(ops.cast(change, "float32"), axis=(0, 1)))
    return time.perf_counter() - start, found


def _near(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Return whether every value found is finite and near the expected one; NaN compares as far."""
    return bool(np.abs(found - expected).max() <= NEAR * expected.std())
