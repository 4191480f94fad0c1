"""Blurs by matrix products equal those of scipy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from pipelines.tasks.anomaly.synthetic.blur import blurred, blurred_part, grown, radius


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, float, tuple[slice, slice]]:
    """Draw an image, a standard deviation of at most a quarter of its side, and a range of rows and of columns."""
    size = draw(st.sampled_from([16, 32, 64, 100]))
    image = np.random.default_rng(draw(st.integers(0, 99))).random((size, size, draw(st.sampled_from([1, 3, 4]))))
    starts = [draw(st.integers(0, size - 1)) for _ in range(2)]
    where = tuple(slice(start, draw(st.integers(start + 1, size))) for start in starts)
    return image.astype(np.float32), draw(st.floats(0.01, size / 4)), where


@given(cases())
def test_blurred_returns_what_scipy_finds_for_these_rows_and_columns(case):
    image, sigma, where = case
    expected = gaussian_filter(image.astype(np.float64), (sigma, sigma, 0))[where]
    actual = blurred(image, sigma, *where)
    assert np.abs(actual - expected).max() < 1e-5
    np.testing.assert_allclose(blurred(image, sigma, *where, often=True), actual, atol=1e-6)


@given(cases())
def test_blurred_part_counts_what_it_is_not_given_as_zero(case):
    image, sigma, where = case
    alone = np.zeros_like(image)
    alone[where] = image[where]
    wide = grown(where[0], radius(sigma), len(image)), grown(where[1], radius(sigma), len(image))
    actual = np.zeros_like(image)
    actual[wide] = blurred_part(image[where], sigma, where, wide, len(image))
    assert np.abs(actual - gaussian_filter(alone.astype(np.float64), (sigma, sigma, 0))).max() < 1e-5
