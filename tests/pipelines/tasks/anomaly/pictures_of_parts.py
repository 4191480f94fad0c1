"""Tiny pictures of a part, for tests that train: a striped plate with a bright disc, in changing light."""

import numpy as np


def good_parts(n: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Return uint8 [n, size, size, 3]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    stripes = 0.45 + 0.12 * np.sin(rows * 30)
    images = []
    for _ in range(n):
        centre = 0.5 + generator.uniform(-0.05, 0.05, 2)
        disc = np.hypot(rows - centre[0], columns - centre[1]) < 0.25
        plate = np.where(disc, 0.8, stripes)[..., None] * np.array([1.0, 0.95, 0.8])
        light = generator.uniform(0.9, 1.1)
        images.append(plate * light + generator.normal(0, 0.01, (size, size, 3)))
    return (np.clip(images, 0, 1) * 255).astype(np.uint8)


def defective_parts(n: int, size: int = 32, seed: int = 1) -> np.ndarray:
    """Return `good_parts` with a dark square of an eighth of the side each."""
    generator = np.random.default_rng(seed)
    images = good_parts(n, size, seed)
    side = max(4, size // 8)
    for image in images:
        top, left = generator.integers(2, size - side - 2, 2)
        image[top : top + side, left : left + side] = 20
    return images
