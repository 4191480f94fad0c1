"""Drift comparison by Evidently: detects what moved, and raises no alarm where nothing did."""

import numpy as np
import pytest

from monitoring.drift.report import SCORE, FalseAlarms, Observed, compare
from pipelines.images.descriptors import DESCRIPTORS, describe
from tests.monitoring.conftest import surface

COMPONENTS = 16


def observed_surfaces(generator: np.random.Generator, count: int, brighter: float = 0.0) -> Observed:
    """Return `count` surfaces with real descriptors, and embeddings and scores derived from these."""
    images = [surface(generator, brighter) for _ in range(count)]
    values = np.array([list(describe(image).values()) for image in images])
    light = values[:, DESCRIPTORS.index("brightness"), None]
    embedding = generator.normal(size=(count, COMPONENTS)) + 20 * light * np.linspace(0, 1, COMPONENTS)
    score = generator.gamma(3, 0.0004, count) + 0.002 * np.abs(light[:, 0] - 0.43)
    return Observed(score, embedding.astype(np.float32), values, DESCRIPTORS)


@pytest.mark.slow
def test_compare_when_nothing_changed_then_twenty_seeds_raise_no_alarm():
    alarms = {}
    for seed in range(20):
        generator = np.random.default_rng(seed)
        comparison, _ = compare(observed_surfaces(generator, 60), observed_surfaces(generator, 60))
        if comparison.drifted:
            alarms[seed] = comparison.reasons
    assert not alarms


@pytest.mark.parametrize("seed", range(3))
def test_compare_when_light_is_two_deviations_brighter_then_drift(seed: int):
    generator = np.random.default_rng(seed)
    assert compare(observed_surfaces(generator, 60), observed_surfaces(generator, 60, brighter=16))[0].drifted


def test_compare_when_light_is_brighter_then_says_what_moved_and_how_much():
    generator = np.random.default_rng(5)
    comparison, html = compare(observed_surfaces(generator, 80), observed_surfaces(generator, 100, brighter=40))
    moved = {column.name: column for column in comparison.descriptors if column.drifted}
    assert "brightness" in moved
    assert moved["brightness"].shift == pytest.approx(40 / 8, rel=0.5)
    assert moved["brightness"].distance > moved["brightness"].threshold
    assert any("descriptors drifted" in reason and "brightness" in reason for reason in comparison.reasons)
    assert comparison.embedding is not None
    assert comparison.embedding.components == COMPONENTS
    assert comparison.left_out["width"] == "always 64"
    assert "brightness" in html
    assert html.lstrip().startswith("<!DOCTYPE html>")


def test_compare_when_camera_sends_another_size_then_the_constant_column_drifts():
    generator = np.random.default_rng(6)
    reference, current = observed_surfaces(generator, 40), observed_surfaces(generator, 60)
    widths = current.descriptors.copy()
    widths[:30, DESCRIPTORS.index("width")] = 1280
    comparison, _ = compare(reference, Observed(current.score, current.embedding, widths, DESCRIPTORS))
    width = next(column for column in comparison.descriptors if column.name == "width")
    assert (width.method, width.drifted, width.shift) == ("hellinger", True, None)
    assert not comparison.drifted  # one descriptor of ten does not make a drift


def test_compare_when_values_are_missing_then_the_rest_is_compared_and_the_gap_reported():
    generator = np.random.default_rng(7)
    reference, current = observed_surfaces(generator, 30), observed_surfaces(generator, 60)
    holes = current.descriptors.copy()
    holes[:, DESCRIPTORS.index("noise")] = np.nan
    holes[:5, DESCRIPTORS.index("contrast")] = np.nan
    names = tuple(name if name != "warmth" else "tint" for name in DESCRIPTORS)
    comparison, _ = compare(reference, Observed(current.score, current.embedding, holes, names))
    assert comparison.left_out["noise"] == "only 0 of 60 current images have a value"
    assert comparison.left_out["warmth"] == "not measured when serving"
    assert "contrast" in {column.name for column in comparison.descriptors}
    assert not comparison.drifted


def test_compare_when_nothing_varies_then_no_drift_and_everything_is_reported_as_left_out():
    flat = Observed(np.zeros(30), np.zeros((30, 4), np.float32), np.ones((30, 2)), ("brightness", "contrast"))
    comparison, html = compare(flat, flat)
    assert not comparison.drifted
    assert comparison.score is None
    assert comparison.embedding is None
    assert set(comparison.left_out) == {SCORE, "brightness", "contrast", "embedding"}
    assert html


def test_compare_when_only_the_score_moved_then_that_is_drift():
    generator = np.random.default_rng(8)
    reference, current = observed_surfaces(generator, 60), observed_surfaces(generator, 60)
    comparison, _ = compare(
        reference, Observed(current.score + 0.003, current.embedding, current.descriptors, DESCRIPTORS)
    )
    assert comparison.reasons == ["the anomaly score drifted"]


def test_compare_when_the_camera_is_stuck_far_away_then_drift_and_a_report():
    generator = np.random.default_rng(9)
    reference = observed_surfaces(generator, 40)
    first = np.full(50, 0)
    stuck = Observed(
        np.full(50, 9.0), np.full((50, COMPONENTS), 1e6, np.float32), reference.descriptors[first] + 7, DESCRIPTORS
    )
    comparison, html = compare(reference, stuck)
    assert comparison.drifted
    assert comparison.embedding is not None
    assert comparison.embedding.share == 1
    assert html


def test_compare_when_the_promise_is_broken_then_drift_although_nothing_else_moved():
    generator = np.random.default_rng(5)
    reference, current = observed_surfaces(generator, 60), observed_surfaces(generator, 100)
    # Of a hundred images, above the largest of sixty scores: 7 at the 97.5 % point, 13 at the 99.9 % point.
    kept = FalseAlarms.of(7, 100, 1 / 61, n=60, rank=60)
    assert (kept.allowed, kept.limit, kept.broken) == (7, 13, False)
    calm, _ = compare(reference, current, kept)
    assert (calm.drifted, calm.reasons) == (False, [])
    promise = (
        "of 100 images are called anomalous and known to be good: the promised false-positive rate of 1.64 % allows "
        "for at most 7"
    )
    broken, _ = compare(reference, current, FalseAlarms.of(13, 100, 1 / 61, n=60, rank=60))
    assert (broken.drifted, broken.reasons) == (False, [f"13 {promise}"])
    comparison, _ = compare(reference, current, FalseAlarms.of(14, 100, 1 / 61, n=60, rank=60))
    assert (comparison.drifted, comparison.reasons) == (True, [f"14 {promise}"])
    assert comparison.as_dict()["false_alarms"] == {
        "images": 100,
        "found": 14,
        "allowed": 7,
        "limit": 13,
        "promised": 1 / 61,
        "broken": True,
        "drifted": True,
    }


def test_compare_when_the_promise_is_broken_then_a_descriptor_alone_is_no_further_reason():
    generator = np.random.default_rng(6)
    reference, current = observed_surfaces(generator, 60), observed_surfaces(generator, 100)
    moved = current.descriptors + 9 * (np.arange(len(DESCRIPTORS)) == 0)
    current = Observed(current.score, current.embedding, moved, DESCRIPTORS)
    alarms = FalseAlarms.of(14, 100, 1 / 61, n=60, rank=60)
    comparison, _ = compare(reference, current, alarms)
    assert [column.name for column in comparison.descriptors if column.drifted] == [DESCRIPTORS[0]]
    assert comparison.reasons == [alarms.reason()]
