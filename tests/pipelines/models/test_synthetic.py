"""Synthetic defects: some images get one, the others stay; the mask tells where; the seed decides everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.models.synthetic import add_defects, augment, smooth_noise
from tests.pipelines.models.pictures_of_parts import good_parts


@pytest.mark.parametrize("size", [32, 64, 128])
def test_add_defects_on_many_images_changes_about_half_and_only_where_it_says(size):
    clean = good_parts(60, size).astype(np.float32) / 255
    before = clean.copy()
    damaged, touched = add_defects(clean, np.random.default_rng(0))
    assert np.array_equal(clean, before)
    assert damaged.dtype == np.float32
    assert 0 <= damaged.min() <= damaged.max() <= 1
    changed = np.abs(damaged - clean).max(axis=-1)
    assert 0.4 < np.mean(changed.max(axis=(1, 2)) > 0.02) < 0.8
    # Outside the mask there is no more than the soft foot of a defect.
    assert changed[~touched].max() < 0.15
    assert 0.001 < touched.mean() < 0.3


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.sampled_from([32, 48, 96]), st.integers(0, 10_000))
def test_add_defects_with_one_seed_draws_the_same_in_range(n, size, seed):
    clean = good_parts(n, size).astype(np.float32) / 255
    damaged, touched = add_defects(clean, np.random.default_rng(seed))
    again, _ = add_defects(clean, np.random.default_rng(seed))
    assert np.array_equal(damaged, again)
    assert touched.shape == (n, size, size)
    assert np.isfinite(damaged).all()
    assert 0 <= damaged.min() <= damaged.max() <= 1


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([32, 64, 128]), st.integers(1, 64), st.integers(0, 1000))
def test_smooth_noise_stays_in_range_and_varies_slowly(size, cells, seed):
    noise = smooth_noise(size, cells, np.random.default_rng(seed))
    assert noise.shape == (size, size)
    assert np.abs(noise).max() <= 1
    if cells <= size // 8:
        assert np.abs(np.diff(noise, axis=0)).max() < 3.2 * cells / size


def test_augment_keeps_the_picture_and_its_range():
    images = good_parts(8, 64)
    varied = augment(images, np.random.default_rng(0))
    assert varied.shape == images.shape
    assert 0 <= varied.min() <= varied.max() <= 1
    assert np.abs(varied.mean() - images.mean() / 255) < 0.05
