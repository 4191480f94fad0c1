"""Pixel AUROC and AUPRO, compared with slow references on small maps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score

from pipelines.evaluation.pixel_metrics import PixelCounts, measure_pixels


def maps(seed, images=6, size=24, signal=1.5, quantise=None):
    """Return error maps and masks: blobs of different sizes, two of them touching at a corner, and good images."""
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(images):
        mask = np.zeros((size, size), bool)
        if number % 3:
            for _ in range(rng.integers(1, 4)):
                top, left, side = rng.integers(0, size - 8, 2).tolist() + [rng.integers(1, 8)]
                mask[top : top + side, left : left + side] = True
                mask[min(size - 1, top + side), min(size - 1, left + side)] = True
        error = rng.gamma(2, 0.01, (size, size)) * np.where(mask, signal, 1)
        if quantise:
            error = np.round(error / quantise) * quantise
        pairs.append((error.astype(np.float32), mask))
    return pairs


def slow_aupro(pairs, limit=0.3):
    """Return AUPRO by trying every value as a threshold and every region on its own, as in the paper."""
    thresholds = np.r_[np.inf, np.unique(np.concatenate([error.ravel() for error, _ in pairs]))[::-1]]
    normal = sum(int((~mask).sum()) for _, mask in pairs)
    curve = []
    for threshold in thresholds:
        false, overlaps = 0, []
        for error, mask in pairs:
            flagged = error >= threshold
            false += int((flagged & ~mask).sum())
            regions, n = label(mask, np.ones((3, 3)))
            overlaps += [flagged[regions == region].mean() for region in range(1, n + 1)]
        curve.append((false / normal, np.mean(overlaps)))
    rate, overlap = np.array(curve).T
    grid = np.unique(np.r_[rate[rate < limit], limit])
    return np.trapezoid(np.interp(grid, rate, overlap), grid) / limit


def counted(pairs):
    counts = PixelCounts()
    for error, mask in pairs:
        counts.add(error, mask)
    return counts


@pytest.mark.parametrize("seed", range(4))
def test_measure_pixels_on_small_maps_equal_the_slow_references(seed):
    pairs = maps(seed)
    metrics = measure_pixels(counted(pairs), samples=50)
    errors = np.concatenate([error.ravel() for error, _ in pairs])
    truth = np.concatenate([mask.ravel() for _, mask in pairs])
    assert metrics.pixel_auroc.value == pytest.approx(roc_auc_score(truth, errors), abs=1e-3)
    assert metrics.aupro.value == pytest.approx(slow_aupro(pairs), abs=3e-3)
    for estimate in (metrics.pixel_auroc, metrics.aupro):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.low < estimate.high


@given(st.integers(0, 1000), st.sampled_from([1e-12, 1e-3, 1.0, 1e6]))
@settings(max_examples=25)
def test_measure_pixels_when_the_error_changes_scale_stay_what_they_were(seed, scale):
    pairs = maps(seed, images=3)
    scaled = [((error.astype(np.float64) * scale).astype(np.float32), mask) for error, mask in pairs]
    plain, other = (measure_pixels(counted(some), samples=2) for some in (pairs, scaled))
    assert other.aupro.value == pytest.approx(plain.aupro.value, abs=0.01)
    assert other.pixel_auroc.value == pytest.approx(plain.pixel_auroc.value, abs=0.003)


def test_aupro_counts_a_small_region_as_much_as_a_large_one():
    mask = np.zeros((40, 40), bool)
    mask[2:22, 2:22] = True
    mask[35, 35] = True
    found_large = np.where(mask, 0, 0.5).astype(np.float32)
    found_large[2:22, 2:22] = 1.0
    figures = measure_pixels(counted([(found_large, mask)]), samples=2)
    # The large region is detected first, the single pixel only after every normal one: half the regions.
    assert figures.aupro.value == pytest.approx(0.5, abs=1e-6)
    assert figures.pixel_auroc.value > 0.99


def test_measure_pixels_of_a_perfect_and_of_a_reversed_map_are_one_and_nought():
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    perfect = mask.astype(np.float32)
    assert measure_pixels(counted([(perfect, mask)]), 2).aupro.value == pytest.approx(1)
    assert measure_pixels(counted([(-perfect, mask)]), 2).aupro.value == pytest.approx(0)


def test_measure_pixels_of_a_constant_map_are_those_of_chance():
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    figures = measure_pixels(counted([(np.zeros((16, 16), np.float32), mask)]), 2)
    assert figures.pixel_auroc.value == pytest.approx(0.5)
    assert figures.aupro.value == pytest.approx(0.15)


def test_measure_pixels_without_an_anomalous_pixel_refuse():
    counts = counted([(np.ones((4, 4), np.float32), np.zeros((4, 4), bool))])
    assert not counts.usable
    with pytest.raises(ValueError, match="anomalous pixels"):
        measure_pixels(counts)


def test_add_when_map_and_mask_differ_in_size_refuses():
    with pytest.raises(ValueError, match="differ in size"):
        PixelCounts().add(np.ones((4, 4), np.float32), np.zeros((4, 5), bool))
