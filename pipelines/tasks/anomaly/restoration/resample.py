"""Downsampling and upsampling of feature maps by 2, by operations whose gradients are cheap on every backend."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def halved(x: Tensor, times: int = 1) -> Tensor:
    """Return [N, H, W, C] averaged over fields of 2 x 2 pixels, `times` (1) times; sides divisible by 2^times."""
    side = 2**times
    _, height, width, channels = x.shape
    return ops.mean(ops.reshape(x, (-1, height // side, side, width // side, side, channels)), axis=(2, 4))


def doubled(x: Tensor) -> Tensor:
    """Return [N, H, W, C] with every pixel repeated to 2 x 2."""
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
