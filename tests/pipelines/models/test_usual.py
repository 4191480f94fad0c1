"""What is usual of good images: a map for each part that is shown often enough, robust against a few odd images."""

import numpy as np
import pytest

from pipelines.models.batches import Selection
from pipelines.models.usual import Usual, shown_parts, usual_evidence, usual_maps, usual_pattern, usual_slopes


@pytest.mark.parametrize("rare", [3, 9])  # fewer than are ever enough, and than a quarter of the commonest
def test_shown_parts_of_tiles_are_each_for_itself_and_rare_ones_left_out(rare):
    places = np.array([1, 2, 3] * 40 + [9] * rare)
    images = Selection(np.zeros((len(places), 32, 32, 3), np.uint8), np.arange(len(places)), places)
    parts = shown_parts(images, aligned=True)
    assert [set(places[part]) for part in parts] == [{1}, {2}, {3}]
    assert [len(part) for part in parts] == [40, 40, 40]
    (whole,) = shown_parts(images, aligned=False)
    assert len(whole) == len(places)


@pytest.mark.parametrize("count", [16, 5000])
def test_shown_parts_of_whole_images_are_one_and_looks_at_so_many_at_most(count):
    (part,) = shown_parts(np.zeros((count, 32, 32, 3), np.uint8), aligned=True)
    assert len(part) == min(count, 256)
    assert (part[0], part[-1]) == (0, count - 1)


def test_shown_parts_when_none_is_shown_often_are_all_together():
    images = Selection(np.zeros((6, 32, 32, 3), np.uint8), np.arange(6), np.arange(6))
    (part,) = shown_parts(images, aligned=True)
    assert part.tolist() == [0, 1, 2, 3, 4, 5]


def test_usual_pattern_is_the_mean_grey_in_fields_whatever_the_light():
    image = np.zeros((2, 32, 32, 3), np.uint8)
    image[:, :16] = 100
    pattern = usual_pattern(image)
    assert pattern.shape == (64,)
    assert pattern.sum() == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(pattern[:32] - pattern[32:], 100 / 255, rtol=1e-5)
    np.testing.assert_allclose(usual_pattern(image + 50), pattern, atol=1e-6)


def test_usual_maps_of_aligned_images_follow_the_place_and_ignore_a_few_odd_images():
    generator = np.random.default_rng(0)
    logs = generator.normal(0, 1, (400, 16, 16)).astype(np.float32)
    logs[:, :8] = 3 + 0.3 * logs[:, :8]
    middle, width = usual_maps(logs, aligned=True)
    assert middle[:6].mean() == pytest.approx(3, abs=0.05)
    assert middle[10:].mean() == pytest.approx(0, abs=0.05)
    assert width[:6].mean() < 0.5 * width[10:].mean()
    logs[:20] += 20
    again, wider = usual_maps(logs, aligned=True)
    assert np.abs(again - middle).max() < 0.3
    assert (wider / width).max() < 1.5


def test_usual_maps_of_a_surface_are_the_same_everywhere():
    logs = np.random.default_rng(0).normal(1, 0.5, (100, 16, 16)).astype(np.float32)
    middle, width = usual_maps(logs, aligned=False)
    assert middle.shape == width.shape == (16, 16)
    assert (np.ptp(middle), np.ptp(width)) == (0, 0)
    assert middle[0, 0] == pytest.approx(1, abs=0.02)
    assert width[0, 0] == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("aligned", [False, True])
def test_usual_maps_of_images_that_are_all_the_same_still_have_a_width(aligned):
    logs = np.tile(np.random.default_rng(0).normal(size=(1, 16, 16)).astype(np.float32), (20, 1, 1))
    middle, width = usual_maps(logs, aligned)
    assert np.isfinite(middle).all()
    assert width.min() == pytest.approx(0.05)


def test_usual_maps_of_few_images_are_drawn_towards_what_is_usual_everywhere():
    logs = np.random.default_rng(0).normal(0, 1, (12, 16, 16)).astype(np.float32)
    logs[:, :8] *= 0.01
    few, many = (usual_maps(one, aligned=True)[1] for one in (logs, np.tile(logs, (50, 1, 1))))
    assert few[:6].mean() > 1.5 * many[:6].mean() > 0


def test_usual_evidence_never_has_a_spread_of_nothing():
    means, spreads = usual_evidence(np.array([[1.0, -5.0], [1.0, -3.0]], np.float32))
    assert means == [1.0, -4.0]
    assert spreads == pytest.approx([0.020001, 1.0])


def test_usual_slopes_follow_what_roughness_explains_and_hardly_what_it_does_not():
    generator = np.random.default_rng(0)
    beyond = generator.uniform(-2, 0, 1000).astype(np.float32)
    found = np.stack([3 * beyond, 3 * beyond, 0 * beyond], axis=1) + generator.normal(0, [0.1, 6, 1], (1000, 3))
    slopes = usual_slopes(found.astype(np.float32), beyond, np.zeros(1000, np.int64))
    assert slopes[0] == pytest.approx(3, rel=0.05)
    assert 1.5 < slopes[1] < 2.9  # of an eleventh of the variance
    assert abs(slopes[2]) < 0.05


def test_usual_slopes_of_a_dozen_images_need_more_than_chance():
    beyond = np.linspace(-1, 0, 12, dtype=np.float32)
    generator = np.random.default_rng(0)
    by_chance = [usual_slopes(generator.normal(size=(12, 1)), beyond, np.zeros(12, np.int64))[0] for _ in range(200)]
    plain = [np.polyfit(beyond, generator.normal(size=12), 1)[0] for _ in range(200)]
    assert np.std(by_chance) < 0.6 * np.std(plain)
    assert usual_slopes(5 * beyond[:, None], beyond, np.zeros(12, np.int64))[0] == pytest.approx(5 / 1.19, rel=0.01)


def test_usual_slopes_when_only_the_parts_differ_are_nothing():
    generator = np.random.default_rng(0)
    parts = np.repeat([3, 8], 500)
    found = np.where(parts == 3, 0, 5)[:, None] + generator.normal(0, 1, (1000, 1))
    beyond = np.where(parts == 3, -2, -0.5) + generator.normal(0, 0.2, 1000)
    assert abs(usual_slopes(found, beyond, parts)[0]) < 0.1
    assert usual_slopes(found, beyond, np.zeros(1000, np.int64))[0] > 1
    assert usual_slopes(found, np.zeros(1000), parts).tolist() == [0]


def test_with_evidence_counts_smooth_images_from_what_is_usual_of_them_and_excuses_no_rough_one():
    generator = np.random.default_rng(0)
    roughness = generator.uniform(-4, 0, 2000).astype(np.float32)
    found = (2 * roughness + generator.normal(0, 0.5, 2000)).astype(np.float32)[:, None]
    maps = np.zeros((1, 4, 4), np.float32)
    usual = Usual.of_maps(np.zeros((1, 64), np.float32), maps, maps + 1, pieces=1, surface=False)
    assert (usual.slopes, usual.means, usual.spreads) == ([0.0], [0.0], [1.0])
    usual = usual.with_evidence(found, roughness, np.zeros(2000, np.int64))
    assert usual.smoothest == pytest.approx(-3.8, abs=0.1)
    assert usual.middling == pytest.approx(-2, abs=0.1)
    beyond = np.clip(roughness, usual.smoothest, usual.middling) - usual.middling
    left = found[:, 0] - beyond * usual.slopes[0]
    smooth, rough = (roughness > -3.5) & (roughness < -2.5), roughness > -2
    assert found[smooth].mean() < found.mean() - 1.8
    assert left[smooth].mean() == pytest.approx(left.mean(), abs=0.6)
    np.testing.assert_allclose(left[rough], found[rough, 0], atol=0.1)
    assert usual.means == pytest.approx([left.mean()], abs=1e-3)
