"""Chooses the precision to train in: bfloat16 if it is faster on this CPU or GPU, else float32.

Times convolutions of the network's size and transposed convolutions, which are their gradients with respect to the
image. Gradients with respect to the kernel are left out, since `keras.ops` has no operation for them.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

FLOAT32, BFLOAT16 = "float32", "mixed_bfloat16"
WORTH = 0.8
# Largest deviation of a bfloat16 value, as a share of the standard deviation of the float32 values.
NEAR = 0.05
ROUNDS = 8
LEAST_SECONDS, MOST_SECONDS = 0.02, 0.6
MOST_STEPS = 64
# Images of a convolution. A fast GPU finishes a few before the next convolution is launched.
FEW, MANY = 16, 256


def faster_precision() -> str:
    """Time convolutions in both precisions and return the dtype policy to train in.

    Returns float32 unless bfloat16 takes less than 0.8 of its time and gives nearly the same values.
    """
    try:
        return BFLOAT16 if _bfloat16_wins() else FLOAT32
    except Exception:  # each backend raises its own where its device does not support bfloat16
        return FLOAT32


def _bfloat16_wins() -> bool:
    inputs, steps = _inputs_and_steps()
    best, means = dict.fromkeys(inputs, float("inf")), {}
    spent = 0.0
    # Alternate and take the best of several: a single timing is unreliable on a busy machine.
    for _ in range(ROUNDS):
        for dtype, (images, weights) in inputs.items():
            seconds, means[dtype] = _timed(images, weights, steps)
            best[dtype] = min(best[dtype], seconds)
            spent += seconds
        if not _near(means["bfloat16"], means["float32"]):
            return False
        if spent > MOST_SECONDS:
            break
    return best["bfloat16"] < WORTH * best["float32"]


def _inputs_and_steps() -> tuple[dict[str, tuple[Any, Any]], int]:
    """Return images and kernel in each dtype, and the number of steps that take float32 at least LEAST_SECONDS.

    The overhead of launching and fetching is small beside that time. At most MOST_STEPS.
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
    """Return images [FEW, 64, 64, 32] and a kernel [3, 3, 32, 32] of a norm below 1, so that values decay."""
    generator = np.random.default_rng(0)
    image = generator.normal(size=(FEW, 64, 64, 32))
    # The largest singular value of the convolution is about 2 * deviation * sqrt(9 * 32), its number of summands.
    kernel = generator.normal(0, 0.3 / np.sqrt(9 * 32), (3, 3, 32, 32))
    return ops.convert_to_tensor(image.astype(np.float32)), ops.convert_to_tensor(kernel.astype(np.float32))


def _cast(image: Any, kernel: Any) -> dict[str, tuple[Any, Any]]:
    """Return both in each dtype after a warm-up, since backends cast lazily and compile at first use."""
    inputs = {dtype: (ops.cast(image, dtype), ops.cast(kernel, dtype)) for dtype in ("float32", "bfloat16")}
    for images, weights in inputs.values():
        _timed(images, weights, 1)
    return inputs


def _quickest(image: Any, kernel: Any, steps: int) -> float:
    """Return the seconds of the faster of two runs."""
    return min(_timed(image, kernel, steps)[0] for _ in range(2))


def _timed(image: Any, kernel: Any, steps: int) -> tuple[float, NDArray[np.float32]]:
    """Return the seconds for `steps` convolutions, each followed by its transpose, and means [W, C] of the last result.

    Each step depends on the one before, and most backends are asynchronous, so that fetching the last result waits for
    all. The image is added in each step, so that values neither grow nor vanish and errors do not accumulate.
    """
    start = time.perf_counter()
    change: Any = 0.0
    for _ in range(steps):
        features = ops.conv(image + change, kernel, padding="same")
        change = ops.conv_transpose(features, kernel, padding="same")
    means = ops.convert_to_numpy(ops.mean(ops.cast(change, "float32"), axis=(0, 1)))
    return time.perf_counter() - start, means


def _near(means: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Return whether all means are finite and near the expected ones; NaN counts as not near."""
    return bool(np.abs(means - expected).max() <= NEAR * expected.std())
