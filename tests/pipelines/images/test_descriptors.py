"""Descriptors measure what their names say, fast and deterministically."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.images.descriptors import DESCRIPTORS, describe

SURFACE = np.clip(np.random.default_rng(0).normal(120, 20, (300, 400, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)


def changed(change) -> tuple[dict[str, float], dict[str, float]]:
    """Return the descriptors of the surface before and after `change`."""
    return describe(SURFACE), describe(np.clip(change(SURFACE.astype(float)), 0, 255).astype(np.uint8))


def test_describe_when_called_then_gives_each_descriptor_as_a_float():
    values = describe(SURFACE)
    assert tuple(values) == DESCRIPTORS
    assert all(type(value) is float for value in values.values())
    assert (values["width"], values["height"]) == (400, 300)
    assert describe(SURFACE.copy()) == values


def test_describe_when_one_property_changes_then_its_descriptor_follows():
    before, after = changed(lambda pixels: pixels + 60)
    assert after["brightness"] == pytest.approx(before["brightness"] + 60 / 255, abs=0.01)
    before, after = changed(lambda pixels: 120 + (pixels - 120) * 0.3)
    assert after["contrast"] < before["contrast"] * 0.4
    assert after["entropy"] < before["entropy"]
    assert after["sharpness"] < before["sharpness"] * 0.5
    before, after = changed(lambda pixels: pixels * [1.0, 0.5, 0.2])
    assert after["saturation"] > before["saturation"] + 0.5
    assert after["warmth"] > before["warmth"] + 0.2
    before, after = changed(lambda pixels: pixels * 0)
    assert after["shadows"] == 1
    before, after = changed(lambda pixels: pixels * 0 + 255)
    assert after["highlights"] == 1


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
def test_describe_when_noise_is_known_then_estimates_it(sigma: float):
    rng = np.random.default_rng(1)
    smooth = np.tile(np.linspace(60, 180, 500), (400, 1))
    grey = np.clip(np.rint(smooth + rng.normal(0, sigma, smooth.shape)), 0, 255).astype(np.uint8)
    estimated = describe(np.repeat(grey[:, :, None], 3, axis=2))["noise"] * 255
    assert estimated == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("shape", [(64, 64), (192, 192), (50, 70), (3, 3), (700, 130)])
def test_describe_when_taken_tile_by_tile_then_sharpness_and_noise_are_the_same(shape: tuple[int, int]):
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    rows, columns = (sorted({*np.linspace(0, max(0, side - 64), min(4, -(-side // 64)), dtype=int)}) for side in shape)
    laplacians, responses = [], []
    for row in rows:
        for column in columns:
            tile = pixels[row : row + 64, column : column + 64].astype(int) @ [77, 150, 29] // 32  # eighths of a level
            down = tile[:-2] + tile[2:] - 2 * tile[1:-1]
            across = tile[:, :-2] + tile[:, 2:] - 2 * tile[:, 1:-1]
            laplacians.append(down[:, 1:-1] + across[1:-1])
            responses.append(down[:, :-2] + down[:, 2:] - 2 * down[:, 1:-1])
    values = describe(pixels)
    assert values["sharpness"] == pytest.approx(np.std(laplacians) / (8 * 255), rel=1e-5)
    assert values["noise"] == pytest.approx(np.sqrt(np.pi / 2) / 6 * np.abs(responses).mean() / (8 * 255), rel=1e-9)


def test_describe_when_image_is_uniform_then_has_no_contrast_noise_or_entropy():
    values = describe(np.full((50, 50, 3), 128, np.uint8))
    for name in ("contrast", "sharpness", "noise", "entropy", "saturation"):
        assert values[name] == pytest.approx(0, abs=1e-6)


def test_describe_when_image_is_large_then_takes_milliseconds():
    pixels = np.random.default_rng(0).integers(0, 255, (4000, 5000, 3), dtype=np.uint8)
    describe(pixels)
    started = time.process_time()
    for _ in range(5):
        describe(pixels)
    assert (time.process_time() - started) / 5 < 0.1  # 10 ms on an idle core


@settings(max_examples=60)
@given(arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 90), st.just(3))))
def test_describe_when_image_is_any_then_every_value_is_finite_and_in_range(pixels: np.ndarray):
    values = describe(pixels)
    assert np.isfinite(list(values.values())).all()
    for name in ("brightness", "saturation", "shadows", "highlights"):
        assert -1e-6 <= values[name] <= 1 + 1e-6
    assert 0 <= values["entropy"] <= 8
    assert values["contrast"] <= 0.5 + 1e-6
