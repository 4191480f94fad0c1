"""The baselines detect defects, so that they are meaningful references."""

import numpy as np
import pytest

from benchmarks.baselines import BASELINES, Brightness, PcaReconstruction, PlainAutoencoder
from pipelines.evaluation.metrics import delong
from tests.pipelines.tasks.anomaly.pictures_of_parts import defective_parts, good_parts

SIZE = 64


def test_brightness_finds_what_is_darker_or_brighter_and_nothing_else():
    detector = Brightness()
    images = np.full((4, SIZE, SIZE, 3), 100, np.uint8)
    detector.fit(images, 0)
    scores, maps = detector.judge(np.stack([images[0], images[0] + 30, images[0] - 30]))
    assert scores == pytest.approx([0, 30, 30])
    assert maps is None


def test_pca_finds_defects_and_where_they_lie():
    detector = PcaReconstruction()
    detector.fit(good_parts(40, SIZE), 0)
    good, _ = detector.judge(good_parts(12, SIZE, seed=3))
    images = defective_parts(12, SIZE)
    bad, maps = detector.judge(images)
    assert delong(good, bad)[0] > 0.95
    assert maps is not None
    assert maps.shape == (12, 64, 64)
    hurt = (images == 20).all(axis=-1)
    assert maps[hurt].mean() > 5 * maps[~hurt].mean()


def test_pca_of_images_that_it_was_fitted_on_leaves_little():
    images = good_parts(40, SIZE)
    detector = PcaReconstruction()
    detector.fit(images, 0)
    own, _ = detector.judge(images)
    other, _ = detector.judge(255 - images)
    assert own.max() < 0.2 * other.min()


def test_plain_autoencoder_learns_and_two_of_one_seed_agree():
    images = good_parts(32, 32)
    errors = []
    for steps in (0, 25, 25):
        detector = PlainAutoencoder()
        detector.fit(images, 7, steps=steps)
        errors.append(detector.judge(images)[0])
    assert errors[1].mean() < 0.5 * errors[0].mean()
    np.testing.assert_array_equal(errors[1], errors[2])


def test_plain_autoencoder_when_the_time_is_up_stops():
    detector = PlainAutoencoder()
    detector.fit(good_parts(8, 32), 0, seconds=0)
    scores, maps = detector.judge(good_parts(3, 32))
    assert scores.shape == (3,)
    assert maps is not None
    assert maps.shape == (3, 32, 32)


def test_baselines_are_those_that_the_table_names():
    assert list(BASELINES) == ["brightness", "PCA", "plain autoencoder"]
