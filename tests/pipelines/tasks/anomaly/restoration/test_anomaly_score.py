"""Error map and score: zero for a perfect restoration, highest where it differs, the same at any position."""

import numpy as np
import pytest
from keras import ops

from pipelines.tasks.anomaly.predict import fused_score as merged_score
from pipelines.tasks.anomaly.restoration.anomaly_score import (
    OPINIONS,
    along_paths,
    embedding,
    evidence,
    excess,
    fused_score,
    gradient_magnitude,
    pieces,
    reconstruction_score,
    relative_error,
    roughness,
    shares,
    shown_excess,
    weighted_error,
)
from tests.pipelines.tasks.anomaly.pictures_of_parts import good_parts


@pytest.fixture
def image() -> np.ndarray:
    return good_parts(1, 64).astype(np.float32) / 255


def verdict(logit: float) -> np.ndarray:
    return np.array([[logit]], np.float32)


def map_of(image: np.ndarray, restored: np.ndarray, expected: float | np.ndarray = 0.0) -> np.ndarray:
    expected = np.broadcast_to(np.asarray(expected, np.float32), (len(image), 32, 32, 1))
    error = relative_error(*(ops.convert_to_tensor(part) for part in (image, restored, expected)))
    return ops.convert_to_numpy(error)[..., 0]


def test_relative_error_when_restored_exactly_is_zero(image):
    assert np.abs(map_of(image, image)).max() < 1e-6


def test_relative_error_when_a_spot_is_not_restored_is_largest_there(image):
    damaged = image.copy()
    damaged[:, 20:26, 40:46] = 0
    errors = map_of(damaged, image)
    assert errors.shape == (1, 32, 32)
    row, column = np.unravel_index(np.argmax(errors[0]), (32, 32))
    assert 8 <= row <= 14
    assert 18 <= column <= 24
    assert errors[0, 25:, :10].max() < 0.1 * errors.max()


def test_relative_error_when_only_the_outermost_pixels_are_not_restored_stays_zero(image):
    restored = image.copy()
    restored[:, :2], restored[:, -2:], restored[:, :, :2], restored[:, :, -2:] = 1, 0, 1, 0
    assert np.abs(map_of(image, restored)).max() < 1e-6


def test_relative_error_is_mirrored_at_the_edge(image):
    noise = np.random.default_rng(0).normal(0, 0.1, image.shape).astype(np.float32)
    error = map_of(image, image + noise)
    np.testing.assert_array_equal(error, np.pad(error[:, 2:-2, 2:-2], ((0, 0), (2, 2), (2, 2)), mode="symmetric"))
    assert (error[:, 0] != error[:, 1]).any()  # and not the last place repeated


def test_relative_error_when_a_spot_reaches_the_edge_is_largest_there(image):
    damaged = image.copy()
    damaged[:, :8, 30:38] = 1 - damaged[:, :8, 30:38].round()
    row, column = np.unravel_index(np.argmax(map_of(damaged, image)[0]), (32, 32))
    assert row <= 5
    assert 14 <= column <= 20


def test_reconstruction_score_when_a_spot_grows_or_darkens_rises(image):
    def of(side: int, depth: float) -> float:
        damaged = image.copy()
        damaged[:, 20 : 20 + side, 30 : 30 + side] *= 1 - depth
        return float(ops.convert_to_numpy(reconstruction_score(map_of(damaged, image)[..., None]))[0])

    assert of(2, 0.5) < of(4, 0.5) < of(8, 0.5)
    assert of(4, 0.2) < of(4, 0.5) < of(4, 0.9)


def test_relative_error_when_only_the_colour_is_wrong_rises_too(image):
    tinted = image.copy()
    # The same grey value in another colour.
    tinted[:, 20:30, 30:40] += np.array([0.1, -0.1, 0.0], np.float32)
    assert map_of(tinted, image).max() > 10 * map_of(image + 0.001, image).max()


def test_gradient_magnitude_of_a_ramp_is_its_slope():
    ramp = np.broadcast_to(np.linspace(0, 1, 33, dtype=np.float32)[None, None, :, None], (1, 16, 33, 1))
    magnitude = ops.convert_to_numpy(gradient_magnitude(ops.convert_to_tensor(ramp)))
    assert magnitude.shape == (1, 16, 33, 1)
    np.testing.assert_allclose(magnitude[0, :, 1:-1, 0], 2 / 32, rtol=1e-2)


def test_embedding_is_the_mean_over_the_image():
    features = np.random.default_rng(0).normal(size=(2, 4, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(ops.convert_to_numpy(embedding(features)), features.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_relative_error_where_more_error_was_expected_is_lower(image):
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 0.1, image.shape), 0, 1).astype(np.float32)
    expected = np.zeros((1, 32, 32, 1), np.float32)
    expected[:, :, 16:] = 0.5
    errors = map_of(image, noisy, expected)
    assert errors[0, :, 20:].mean() < 0.3 * errors[0, :, :12].mean()


def test_evidence_of_a_defect_that_both_see_is_more_in_every_part(image):
    damaged = image.copy()
    damaged[:, 20:26, 40:46] = 0
    logits = np.full((1, 32, 32, 1), -4.0, np.float32)
    marked = logits.copy()
    marked[:, 10:13, 20:23] = 3
    expected = np.full((1, 32, 32, 1), 0.05, np.float32)
    good = ops.convert_to_numpy(
        evidence(relative_error(image, image, expected), logits, np.array([[-2.0]], np.float32))
    )
    bad = ops.convert_to_numpy(
        evidence(relative_error(damaged, image, expected), marked, np.array([[1.0]], np.float32))
    )
    assert good.shape == bad.shape == (1, 7)
    assert (bad > good).all()
    # Maximum, mean of the highest 5 %, mean.
    assert (np.diff(bad[0, :3]) < 0).all()
    assert (np.diff(bad[0, 3:6]) < 0).all()
    assert ops.convert_to_numpy(fused_score(bad))[0] > ops.convert_to_numpy(fused_score(good))[0] >= 0


def test_weighted_error_when_either_sees_nothing_still_shows_what_the_other_sees(image):
    error = np.zeros((1, 8, 8, 1), np.float32)
    error[0, 2, 2] = 3
    logits = np.full((1, 8, 8, 1), -9.0, np.float32)
    assert ops.convert_to_numpy(weighted_error(error, logits)).argmax() == 2 * 8 + 2
    logits[0, 4:8, 4:8] = 9
    shown = ops.convert_to_numpy(weighted_error(np.zeros_like(error), logits))
    assert np.unravel_index(shown.argmax(), shown.shape)[1] in (5, 6)


def test_fused_score_of_one_tile_is_that_of_the_graph_and_of_several_counts_the_worst_place_and_the_mean():
    for count in (9, 7):
        logits = np.random.default_rng(0).normal(0, 2, (5, count)).astype(np.float32)
        inside = ops.convert_to_numpy(fused_score(logits))
        for row, value in zip(logits, inside, strict=True):
            assert merged_score(row[None], shares(count)[None]) == pytest.approx(value, abs=1e-6)
            # Graphs exported by older versions have no `shares`.
            assert merged_score(row[None]) == pytest.approx(np.mean(1 / (1 + np.exp(-row))), abs=1e-6)
    spoilt = logits.copy()
    spoilt[2, [0, 3]] += 10
    assert merged_score(spoilt) > merged_score(logits)
    # The order of tiles does not matter, and one anomalous place scores below an image that is anomalous throughout.
    assert merged_score(spoilt[::-1]) == pytest.approx(merged_score(spoilt))
    odd_place, odd_throughout = np.zeros((4, 7), np.float32), np.full((4, 7), 3, np.float32)
    odd_place[0, [0, 3]] = 1e6
    assert 0.5 < merged_score(odd_place) < merged_score(odd_throughout) < 1


@pytest.mark.parametrize(("surface", "say"), [(False, [0.5, 0.5]), (True, [0.25, 0.25, 0.5])])
def test_shares_of_errors_and_second_opinion_are_the_same_and_of_paths_as_much_as_both(surface, say):
    weights = shares(pieces(surface))
    assert len(weights) == (9 if surface else 7)
    together = [part.sum() for part in np.split(weights, np.cumsum(OPINIONS[: len(say) - 1]))]
    np.testing.assert_allclose(together, say, rtol=1e-6)


def test_roughness_follows_the_grain_and_neither_the_light_nor_a_defect():
    grain = np.random.default_rng(0).normal(0, 0.02, (1, 64, 64, 1)).astype(np.float32)
    smooth, rough = 0.5 + grain * np.ones(3, np.float32), 0.5 + 3 * grain * np.ones(3, np.float32)
    lit = smooth + np.linspace(-0.2, 0.2, 64, dtype=np.float32)[:, None, None]
    damaged = smooth.copy()
    damaged[:, :40, :32] = np.random.default_rng(1).random((1, 40, 32, 3), np.float32)
    plain = np.full((1, 64, 64, 3), 0.5, np.float32)
    rough_values = ops.convert_to_numpy(roughness(np.concatenate([smooth, rough, lit, damaged, plain])))
    assert rough_values.shape == (5, 1)
    assert rough_values[1, 0] - rough_values[0, 0] == pytest.approx(np.log(3), abs=0.25)
    assert rough_values[2, 0] == pytest.approx(rough_values[0, 0], abs=0.05)
    # A third is damaged, so that the smoothest quarter is a larger share of the rest and therefore slightly rougher.
    assert 0 <= rough_values[3, 0] - rough_values[0, 0] < 0.15
    assert rough_values[4, 0] == pytest.approx(np.log(0.002), abs=1e-3)


def test_excess_is_counted_from_the_usual_in_its_widths_and_shown_as_at_least_nothing():
    error = np.array([0.08, 0.48, 0.98], np.float32).reshape(1, 3, 1, 1)
    middle, width = np.log(np.float32(0.5)), np.float32(0.25)
    signed = ops.convert_to_numpy(excess(error, middle, width)).ravel()
    np.testing.assert_allclose(signed, [np.log(0.2) / 0.25, 0, np.log(2) / 0.25], atol=1e-5)
    shown = ops.convert_to_numpy(shown_excess(signed))
    assert 0 <= shown[0] < 0.01
    assert shown[1] == pytest.approx(np.log(2))
    assert shown[2] == pytest.approx(signed[2], abs=0.1)


def paths_of(values):
    return ops.convert_to_numpy(along_paths(np.asarray(values, np.float32)[None, ..., None]))[0]


@pytest.mark.parametrize("course", ["across", "down", "slanting", "bent"])
def test_along_paths_finds_a_faint_line_that_no_spot_of_the_same_strength_matches(course):
    line, spot = (np.full((32, 32), -4.0) for _ in range(2))
    along = np.arange(4, 28)
    bent = np.concatenate([np.full(12, 9), 9 + np.arange(12)])
    rows, columns = {"across": (17, along), "down": (along, 9), "slanting": (along, along), "bent": (bent, along)}[
        course
    ]
    line[rows, columns] = -1
    spot[12:17, 12:17] = -1  # as many pixels
    assert (paths_of(line) > paths_of(spot) + 0.1).all()
    np.testing.assert_allclose(paths_of(np.full((32, 32), -4.0)), -4, atol=1e-4)


def test_along_paths_is_the_best_of_all_paths_tried_one_by_one():
    values = np.random.default_rng(0).normal(-3, 2, (6, 6))
    ways = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]

    def best(row, column, way, left):
        """Return the largest sum over the next `left` pixels, by brute force; -4 beyond the border."""
        if not left:
            return 0.0
        sums = []
        for turn in (-1, 0, 1):
            down, right = ways[(way + turn) % 8]
            at = row + down, column + right
            inside = 0 <= at[0] < 6 and 0 <= at[1] < 6
            sums.append((values[at] if inside else -4.0) - 0.5 * abs(turn) + best(*at, way, left - 1))
        return max(sums)

    expected = [
        max(
            values[row, column] + best(row, column, way, reach) + best(row, column, way + 4, reach)
            for row in range(6)
            for column in range(6)
            for way in range(4)
        )
        / (2 * reach + 1)
        for reach in (1, 2)
    ]
    np.testing.assert_allclose(paths_of(values), expected, rtol=1e-4)


def test_evidence_with_paths_has_two_pieces_more_and_the_others_as_before():
    generator = np.random.default_rng(0)
    error, defect = (generator.normal(size=(2, 64, 64, 1)).astype(np.float32) for _ in range(2))
    plain = ops.convert_to_numpy(evidence(error, defect, np.zeros((2, 1), np.float32)))
    with_paths = ops.convert_to_numpy(evidence(error, defect, np.zeros((2, 1), np.float32), paths=True))
    assert with_paths.shape == (2, 9)
    np.testing.assert_array_equal(with_paths[:, :7], plain)
    assert (with_paths[:, 7] > with_paths[:, 8]).all()  # the longer the path, the less of it is noise
