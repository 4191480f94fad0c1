"""Copies of a photograph have nearly the same hash; other photographs and flat images have not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from pipelines.catalogue.image_hashes import NEAR
from pipelines.images.perceptual_hash import perceptual_hash


def photograph(seed: int) -> Image.Image:
    """Return shades of several sizes over each other, as a photograph has them, 240 x 180 pixels."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.random((side, side), np.float32)).resize((240, 180), Image.Resampling.BICUBIC))
        for side in (3, 6, 12, 40)
    ]
    grey = 40 + 160 * np.tensordot([0.4, 0.3, 0.2, 0.1], np.stack(layers), 1)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")


def hashed(image: Image.Image) -> int | None:
    return perceptual_hash(np.asarray(image))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out)


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: image.resize((120, 90), Image.Resampling.BICUBIC),
        lambda image: image.resize((500, 400), Image.Resampling.BILINEAR),
        lambda image: jpeg(image, 40),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    ],
)
def test_hash_of_a_copy_is_near_that_of_the_original(copy):
    for seed in range(40):
        original, other = hashed(photograph(seed)), hashed(copy(photograph(seed)))
        assert original is not None
        assert other is not None
        assert (original ^ other).bit_count() <= NEAR


def test_hashes_of_different_photographs_are_far_apart():
    hashes = [hashed(photograph(seed)) for seed in range(120)]
    pairs = [(a ^ b).bit_count() for place, a in enumerate(hashes) for b in hashes[:place]]
    assert min(pairs) > NEAR + 2


def test_hash_of_an_image_that_shows_nothing_is_none():
    even = np.linspace(0, 255, 100)[np.newaxis, :, np.newaxis]
    gradient = np.broadcast_to(even, (80, 100, 3)).astype(np.uint8)
    noise = np.random.default_rng(0).normal(128, 4, (300, 300, 3)).astype(np.uint8)
    for pixels in (np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8), gradient, noise):
        assert perceptual_hash(pixels) is None
