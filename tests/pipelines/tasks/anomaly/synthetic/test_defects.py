"""Synthetic defects: half of the images get some, the others stay unchanged; all are determined by the seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.tasks.anomaly.synthetic import defects, fills
from pipelines.tasks.anomaly.synthetic.defects import Painter, augment, is_aligned
from pipelines.tasks.anomaly.synthetic.shapes import MaskBank, smooth_noise
from tests.pipelines.tasks.anomaly.pictures_of_parts import good_parts


@pytest.mark.parametrize("size", [32, 64, 128])
def test_add_defects_on_many_images_changes_about_half_and_a_small_part_of_each(size):
    clean = good_parts(120, size).astype(np.float32) / 255
    before = clean.copy()
    damaged = Painter(size, 0).add_defects(clean, np.random.default_rng(0))
    assert np.array_equal(clean, before)
    assert damaged.dtype == np.float32
    assert 0 <= damaged.min() <= damaged.max() <= 1
    changed = np.abs(damaged - clean).max(axis=-1)
    assert 0.35 < np.mean(changed.max(axis=(1, 2)) > 0.02) < 0.6
    assert 0.002 < (changed > 0.02).mean() < 0.2


def test_add_defects_leaves_hardly_an_edge_sharper_than_a_lens_draws(monkeypatch: pytest.MonkeyPatch):
    """With the strongest blur, the finest structure of defects is a fraction of that of unblurred ones."""

    monkeypatch.setattr(defects, "FAINTEST", np.inf)  # what covers wholly has the hardest edges

    def sharpness(softest: float) -> float:
        monkeypatch.setattr(defects, "SOFTEST", softest)
        plain = np.full((100, 128, 128, 3), 0.5, np.float32)
        change = Painter(128, 0).add_defects(plain, np.random.default_rng(0)) - plain
        change = change.mean(axis=-1)
        fine = np.square(np.diff(change, 2, axis=1)).mean()
        return float(fine / np.square(change).mean())

    assert sharpness(defects.SOFTEST) < 0.8 * sharpness(0.0)


def test_add_defects_of_one_colour_keep_some_grain_of_what_they_cover(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(defects, "FAINTEST", np.inf)
    monkeypatch.setattr(defects, "SOFTEST", 0.0)
    grainy = (0.5 + 0.05 * np.random.default_rng(0).normal(size=(60, 64, 64, 3))).astype(np.float32)
    full = np.ones((64, 64), np.float32)
    painter = Painter(64, 0, turns=True)
    monkeypatch.setattr(painter, "_fillings", (fills.TONED,))
    monkeypatch.setattr(painter._shapes, "shape", lambda *_: full)
    left = painter.add_defects(grainy, np.random.default_rng(0)).std(axis=(1, 2, 3)) / grainy.std(axis=(1, 2, 3))
    covered = left < 0.95
    assert covered.any()
    assert left[covered].min() < 0.3
    assert left[covered].max() > 0.5


@pytest.mark.parametrize(("grain", "least", "at_most"), [(0.002, 0.03, 0.045), (0.02, 0.05, 0.068)])
def test_add_defects_are_as_faint_as_the_grain_lets_them_be_seen(
    monkeypatch: pytest.MonkeyPatch, grain: float, least: float, at_most: float
):
    monkeypatch.setattr(defects, "SOFTEST", 0.0)
    noise = np.random.default_rng(0).normal(0, grain, (300, 64, 64, 1))
    clean = (0.5 + noise * np.ones(3)).astype(np.float32)
    painter = Painter(64, 0, turns=True)
    monkeypatch.setattr(painter, "_fillings", (fills.SHADED,))
    shape = np.zeros((64, 64), np.float32)
    shape[20:40, 20:40] = 1
    monkeypatch.setattr(painter._shapes, "shape", lambda *_: shape)
    change = np.abs(painter.add_defects(clean, np.random.default_rng(0)) - clean)[:, 20:40, 20:40].mean(axis=(1, 2, 3))
    drawn = change[change > 1e-4]
    assert len(drawn) > 100
    # Without a limit it would be 0.024, and 0.072 at full opacity. Overlapping defects may cancel, so that the minimum
    # is not meaningful.
    assert least < np.quantile(drawn, 0.1) < at_most


def test_add_defects_that_dent_move_what_is_there_and_shade_it_where_they_lie(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(defects, "_cover", lambda *_: 1.0)
    stripes = np.broadcast_to(((np.arange(64) // 8) % 2).astype(np.float32)[:, None], (64, 64))
    images = np.repeat((0.3 + 0.4 * stripes)[None, ..., None], 3, axis=-1).repeat(60, axis=0)
    rows, columns = np.mgrid[:64, :64]
    bump = np.exp(-((rows - 32) ** 2 + (columns - 32) ** 2) / 100).astype(np.float32) * (np.abs(columns - 32) < 20)
    painter = Painter(64, 0)
    monkeypatch.setattr(painter, "_fillings", (fills.DENTED,))
    monkeypatch.setattr(painter._shapes, "shape", lambda *_: bump)
    change = np.abs(painter.add_defects(images, np.random.default_rng(0)) - images).max(axis=-1)
    dented = change.max(axis=(1, 2)) > 0.02
    assert 15 < dented.sum() < 45
    # Edges move by a few pixels, and nothing changes far from the dent.
    assert np.median(change[dented].max(axis=(1, 2))) > 0.15
    assert change[:, :, [0, 1, 2, 61, 62, 63]].max() < 0.02
    # On a plain image only the shading is visible, lighter and darker.
    plain = np.full((60, 64, 64, 3), 0.5, np.float32)
    shade = painter.add_defects(plain, np.random.default_rng(0)) - plain
    assert shade.max() > 0.05
    assert shade.min() < -0.05


@settings(max_examples=25)
@given(st.integers(1, 5), st.sampled_from([32, 48, 96]), st.integers(0, 10_000))
def test_add_defects_with_one_seed_draws_the_same_whatever_was_drawn_before(n, size, seed):
    clean = good_parts(n, size).astype(np.float32) / 255
    painter = Painter(size, 1)
    painter.add_defects(clean, np.random.default_rng(seed + 1))
    damaged = painter.add_defects(clean, np.random.default_rng(seed))
    assert np.array_equal(damaged, Painter(size, 1).add_defects(clean, np.random.default_rng(seed)))
    assert np.isfinite(damaged).all()
    assert 0 <= damaged.min() <= damaged.max() <= 1


@pytest.mark.parametrize("size", [32, 128])
def test_mask_bank_gives_shapes_of_many_extents_in_range(size):
    bank, generator = MaskBank(size, 0), np.random.default_rng(0)
    shapes = np.stack([bank.shape(generator) for _ in range(300)])
    assert 0 <= shapes.min() <= shapes.max() <= 1
    covered = (shapes > 0.2).mean(axis=(1, 2))
    assert np.mean(covered > 0) > 0.85
    assert covered.max() < 0.7
    assert np.quantile(covered, 0.9) > 8 * np.quantile(covered[covered > 0], 0.1)
    areas = np.stack([bank.shape(generator, area=True) for _ in range(300)])
    assert (areas > 0.2).mean() > 1.2 * covered.mean()


@settings(max_examples=25)
@given(st.sampled_from([32, 64, 128]), st.integers(1, 64), st.integers(0, 1000))
def test_smooth_noise_stays_in_range_and_varies_slowly(size, cells, seed):
    noise = smooth_noise(size, cells, np.random.default_rng(seed))
    assert noise.shape == (size, size)
    assert np.abs(noise).max() <= 1
    if cells <= size // 8:
        assert np.abs(np.diff(noise, axis=0)).max() < 3.2 * cells / size


@pytest.mark.parametrize("turns", [False, True])
def test_augment_keeps_the_picture_and_its_range(turns):
    images = good_parts(8, 64)
    varied = augment(images, np.random.default_rng(0), turns)
    assert varied.shape == images.shape
    assert 0 <= varied.min() <= varied.max() <= 1
    assert np.abs(varied.mean() - images.mean() / 255) < 0.05


@pytest.mark.parametrize("count", [16, 24, 300])
def test_is_aligned_tells_an_object_in_its_place_from_a_surface(count):
    generator = np.random.default_rng(0)
    surface = np.stack([smooth_noise(64, 16, generator) for _ in range(count)])[..., None].repeat(3, axis=-1)
    surface = (128 + 60 * surface).clip(0, 255).astype(np.uint8)
    assert not is_aligned(surface)
    part = surface // 4
    part[:, 16:48, 16:48] += 120
    assert is_aligned(part)
