"""Statistics of good images: maps of each frequent part, robust to outliers, and the correction for roughness."""

import numpy as np
import pytest

from pipelines.tasks.anomaly.fitting.batches import Selection
from pipelines.tasks.anomaly.restoration.anomaly_score import OPINIONS
from pipelines.tasks.anomaly.restoration.normality import (
    ERRORS,
    Usual,
    counted,
    interpolated,
    nearest_parts,
    outlying,
    shown_parts,
    usual_levels,
    usual_maps,
    usual_pattern,
)


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
    few, many = (usual_maps(sample, aligned=True)[1] for sample in (logs, np.tile(logs, (50, 1, 1))))
    assert few[:6].mean() > 1.5 * many[:6].mean() > 0


@pytest.mark.parametrize(
    ("odd", "half", "by"), [(0.0, 6, 2), (1.0, 0, 0.7), (0.5, 3, 1.35)], ids=["none", "outliers", "between"]
)
def test_counted_is_where_evidence_counts_half_and_how_soon_wholly(odd, half, by):
    evidence = np.random.default_rng(0).normal([2, -1, 0, 5], [1, 0.5, 3, 1], (2000, 4)).astype(np.float32)
    locations, scales = counted(evidence, odd)
    means, deviations = evidence.mean(axis=0), evidence.std(axis=0)
    assert locations == pytest.approx(means + half * deviations, abs=1e-3)
    assert scales == pytest.approx(by * deviations, rel=1e-3)


def test_counted_of_evidence_that_never_changes_still_has_a_scale():
    locations, scales = counted(np.array([[1.0, -5.0], [1.0, -3.0]], np.float32), 0.0)
    assert locations == pytest.approx([1 + 6 * 0.020001, -4 + 6])
    assert scales == pytest.approx([2 * 0.020001, 2])


def alike(values):
    """Return evidence [n, 3] of errors: three pieces that are highly correlated, as real ones are."""
    noise = np.random.default_rng(1).normal(0, 0.1, (len(values), 3))
    return np.asarray(values)[:, None] + noise


@pytest.mark.parametrize("count", [1, 2, 16, 32, 128, 512])
def test_outlying_sees_hardly_an_outlier_in_normal_images_however_few(count):
    generator = np.random.default_rng(0)
    degrees = [outlying(alike(generator.normal(0, 1, count))) for _ in range(300)]
    assert np.mean(degrees) < 0.01
    assert max(degrees) < 0.7


@pytest.mark.parametrize("share", [0.03, 0.08])
@pytest.mark.parametrize("count", [100, 512])
def test_outlying_sees_outliers_of_a_few_in_a_hundred(count, share):
    values = np.random.default_rng(0).normal(0, 1, count)
    values[: round(share * count)] += 8
    assert outlying(alike(values)) == 1


@pytest.mark.parametrize("count", [16, 64, 512])
def test_outlying_does_not_see_a_single_odd_image(count):
    values = np.random.default_rng(0).normal(0, 1, count)
    before = outlying(alike(values))
    values[3] += 20
    assert outlying(alike(values)) == pytest.approx(before, abs=0.15) == pytest.approx(0, abs=0.15)


def test_outlying_is_between_for_exponential_tails_and_nothing_for_rounding():
    assert 0.2 < outlying(np.random.default_rng(0).exponential(1, (100_000, 3))) < 0.9
    same = np.full((100, 3), 0.7)
    same[::20] += 3e-7
    assert outlying(same) == 0


def test_outlying_parts_of_images_are_none():
    """One of eleven parts has more of all evidence, in every image."""
    generator = np.random.default_rng(0)
    parts = np.tile(np.arange(11), 40)
    evidence = generator.normal(0, 1, (440, 7)) + 8 * (parts == 3)[:, None]
    maps, patterns = np.zeros((11, 4, 4), np.float32), np.zeros((11, 64), np.float32)
    usual = Usual.of_maps(patterns, maps, maps + 1, pieces=7, surface=False)
    usual = usual.with_evidence(evidence.astype(np.float32), np.zeros(440, np.float32), parts)
    assert usual.scales == pytest.approx(2 * evidence.std(axis=0), rel=0.01)


def test_errors_are_the_first_pieces_of_evidence():
    assert OPINIONS[0] == ERRORS


def test_usual_levels_follow_what_roughness_explains_and_hardly_what_it_does_not():
    generator = np.random.default_rng(0)
    rougher = generator.uniform(-1, 1, 1000)
    evidence = np.stack([3 * rougher, 3 * rougher, 0 * rougher, -3 * rougher], axis=1)
    evidence += generator.normal(0, [0.1, 6, 1, 0.1], (1000, 4))
    knots, levels = usual_levels(evidence.astype(np.float32), rougher, np.zeros(1000, np.int64))
    assert len(knots) == 8
    # Levels are relative to the 0.75 quantile of roughness, where evidence is 1.5.
    near = interpolated(np.array([-0.75, 0, 0.5, 0.9]), knots, levels)
    np.testing.assert_allclose(near[:, 0], [-3.75, -1.5, 0, 0], atol=0.25)
    assert -3.6 < near[0, 1] < -1.5  # a twelfth of its variance, so most of it counts
    np.testing.assert_allclose(near[:, 2], 0, atol=0.05)
    # Evidence that decreases with roughness is not corrected.
    assert levels[:, 3].tolist() == pytest.approx([0.0] * 8)


def test_usual_levels_between_two_kinds_of_images_do_not_depend_on_how_smooth_the_smooth_ones_are():
    generator = np.random.default_rng(0)
    smooth = np.arange(1000) < 700
    rougher = np.where(smooth, generator.uniform(-1, -0.5, 1000), generator.uniform(1.5, 2, 1000))
    evidence = (np.where(smooth, 0, 8) + generator.normal(0, 1, 1000))[:, None]
    knots, levels = usual_levels(evidence, rougher, np.zeros(1000, np.int64))
    smooth_levels = interpolated(np.array([-1.0, -0.7, -0.55]), knots, levels)[:, 0]
    assert np.ptp(smooth_levels) < 0.5
    assert -8.5 < smooth_levels.mean() < -7
    # Rough images are not corrected.
    assert interpolated(np.array([1.6, 3.0]), knots, levels)[:, 0].tolist() == pytest.approx([0, 0], abs=0.25)


@pytest.mark.parametrize("count", [1, 16, 31])
def test_usual_levels_of_few_images_are_nothing(count):
    rougher = np.linspace(-1, 1, count)
    assert usual_levels(5 * rougher[:, None], rougher, np.zeros(count, np.int64))[1].tolist() == [[0.0]]


def test_usual_levels_of_some_dozen_images_need_more_than_chance():
    rougher = np.linspace(-1, 1, 40)
    generator = np.random.default_rng(0)
    parts = np.zeros(40, np.int64)
    by_chance = [usual_levels(generator.normal(size=(40, 1)), rougher, parts)[1].min() for _ in range(200)]
    assert -0.2 < np.mean(by_chance) <= 0
    assert usual_levels(5 * rougher[:, None], rougher, parts)[1].min() < -2.5


@pytest.mark.parametrize("apart", [0.0, 1e-5, 0.02])
def test_usual_levels_when_all_images_are_as_rough_but_for_rounding_are_nothing(apart):
    generator = np.random.default_rng(0)
    rougher = generator.uniform(0, apart, 500)
    evidence = (rougher / (apart or 1) + generator.normal(0, 0.1, 500))[:, None]
    assert usual_levels(evidence, rougher, np.zeros(500, np.int64))[1].tolist() == [[0.0]]


def test_with_evidence_corrects_smooth_images_for_roughness_but_not_rough_ones():
    generator = np.random.default_rng(0)
    roughness = generator.uniform(-4, 0, 2000).astype(np.float32)
    evidence = (2 * roughness + generator.normal(0, 0.5, 2000)).astype(np.float32)[:, None]
    maps = np.zeros((1, 4, 4), np.float32)
    usual = Usual.of_maps(np.zeros((1, 64), np.float32), maps, maps + 1, pieces=1, surface=False)
    assert (usual.levels.tolist(), usual.locations, usual.scales) == ([[0.0]], [0.0], [1.0])
    usual = usual.with_evidence(evidence, roughness, np.zeros(2000, np.int64))
    assert usual.roughness == pytest.approx([-2], abs=0.1)
    left = (evidence - interpolated(roughness + 2, usual.knots, usual.levels))[:, 0]
    smooth, rough = (roughness > -3.5) & (roughness < -2.5), (roughness > -1.5) & (roughness < -1)
    assert left[smooth].mean() == pytest.approx(left[rough].mean(), abs=0.3)
    assert left[roughness > -0.5].mean() > left[rough].mean() + 1
    assert usual.locations == pytest.approx([left.mean() + 6 * left.std()], abs=0.1)


def test_with_evidence_of_parts_that_differ_leaves_them_as_they_are():
    generator = np.random.default_rng(0)
    parts = np.repeat([0, 2], 1000)
    own = generator.uniform(-0.5, 0.5, 2000)
    roughness = np.where(parts == 0, -5, -2.5) + own
    evidence = (np.where(parts == 0, 0, 3) + 2 * own + generator.normal(0, 0.2, 2000))[:, None]
    maps = np.zeros((3, 4, 4), np.float32)
    usual = Usual.of_maps(np.zeros((3, 64), np.float32), maps, maps + 1, pieces=1, surface=False)
    usual = usual.with_evidence(evidence, roughness, parts)
    assert usual.roughness[[0, 2]] == pytest.approx([-5, -2.5], abs=0.1)
    left = (evidence - interpolated(roughness - usual.roughness[parts], usual.knots, usual.levels))[:, 0]
    for part in (0, 2):
        before, after = evidence[parts == part, 0], left[parts == part]
        assert after.std() < 0.5 * before.std()
        assert after.mean() - before.mean() == pytest.approx(0.6, abs=0.1)


def test_nearest_parts_are_those_that_each_looks_like_whatever_the_light():
    generator = np.random.default_rng(0)
    shown = generator.integers(0, 120, (3, 32, 32, 3)).astype(np.uint8)
    patterns = np.stack([usual_pattern(image[None]) for image in shown])
    brighter = np.clip(shown[[2, 0, 1, 1]].astype(np.int64) + 60, 0, 255).astype(np.uint8)
    assert nearest_parts(brighter, patterns).tolist() == [2, 0, 1, 1]
