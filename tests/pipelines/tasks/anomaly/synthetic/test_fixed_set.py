"""The fixed set of synthetic defects: the same on every run, visible, and within the image."""

from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.tasks.anomaly.synthetic.fixed_set import KINDS, with_defect


def digest(number):
    return sha256(str(number).encode()).hexdigest()


def surface(seed, height=96, width=128):
    rng = np.random.default_rng(seed)
    shade = np.linspace(60, 190, width)[None, :, None]
    return np.clip(shade + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def test_with_defect_on_the_same_image_draws_the_same_whatever_came_before():
    image = surface(0)
    first, kind = with_defect(image, digest(1))
    np.random.default_rng().random(10)
    second, again = with_defect(image.copy(), digest(1))
    assert kind == again
    assert (first == second).all()


def test_with_defect_of_a_fixed_image_never_changes():
    # A change of the defects makes results of different releases incomparable, so that it must be deliberate.
    drawn = [with_defect(np.full((64, 80, 3), 150, np.uint8), digest(number)) for number in range(3)]
    assert [kind for _, kind in drawn] == ["spot", "smear", "scratch"]
    assert [pixels.mean() for pixels, _ in drawn] == pytest.approx([149.159, 149.013, 149.624], abs=0.01)


@given(st.integers(0, 10_000), st.integers(32, 160), st.integers(32, 160))
@settings(max_examples=80)
def test_with_defect_on_any_image_changes_a_visible_small_part_and_not_the_original(number, height, width):
    image = surface(number, height, width)
    kept = image.copy()
    changed, kind = with_defect(image, digest(number))
    difference = np.abs(changed.astype(int) - image).max(axis=2)
    assert kind in KINDS
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert (image == kept).all()
    assert (difference > 15).sum() >= 2
    assert (difference > 0).mean() < 0.12


def test_with_defect_over_many_images_draws_every_kind_about_as_often():
    kinds = [with_defect(surface(0), digest(number))[1] for number in range(200)]
    assert all(25 <= kinds.count(kind) <= 75 for kind in KINDS)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_with_defect_on_a_flat_ground_of_any_brightness_shows(level):
    image = np.full((128, 128, 3), level, np.uint8)
    shown = [np.abs(with_defect(image, digest(n))[0].astype(int) - level).max() for n in range(40)]
    assert min(shown) >= 18
