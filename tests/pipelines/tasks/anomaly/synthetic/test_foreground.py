"""Objects on a plain background are segmented, and defects lie on them."""

import numpy as np
import pytest

from pipelines.images.preprocess import prepare
from pipelines.tasks.anomaly.synthetic.defects import Painter
from pipelines.tasks.anomaly.synthetic.foreground import moved_onto, object_of, on_plain_ground
from pipelines.tasks.anomaly.synthetic.shapes import MaskBank
from tests.pipelines.tasks.anomaly.pictures_of_parts import good_parts

SIDE = 64


def screws(n: int, ground: float = 0.1, noise: float = 0.01) -> np.ndarray:
    """Return uint8 [n, S, S, 3]: a metal bar at a random place on a plain, noisy background."""
    generator = np.random.default_rng(1)
    images = np.full((n, SIDE, SIDE, 3), ground) + generator.normal(0, noise, (n, SIDE, SIDE, 3))
    for image in images:
        top, left = generator.integers(8, 40), generator.integers(4, 24)
        image[top : top + 8, left : left + 32] = 0.6 + generator.normal(0, 0.05, (8, 32, 1))
    return (np.clip(images, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("ground", [0.0, 0.1, 0.95])
def test_on_plain_ground_when_objects_lie_on_one_colour_then_they_are_segmented(ground):
    images = screws(12, ground)
    assert on_plain_ground(images)
    mask = object_of(images[0].astype(np.float32) / 255)
    assert 0.7 * 8 * 32 < mask.sum() < 1.1 * 8 * 32


@pytest.mark.parametrize("reach", [0.2, 0.3, 0.4])
def test_on_plain_ground_when_objects_are_cut_into_tiles_then_their_parts_are_segmented(reach):
    rows, columns = np.mgrid[:256, :256] / 256 - 0.5
    disc = np.hypot(rows, columns) < reach
    images = np.where(disc, 170, 12)[..., None].repeat(3, axis=-1).astype(np.uint8)
    tiles = np.tile(prepare(images, 128, "auto"), (5, 1, 1, 1))
    assert len(tiles) == 20
    assert on_plain_ground(tiles)
    cut = prepare(disc[..., None].repeat(3, axis=-1).astype(np.uint8) * 255, 128, "auto")[..., 0] > 127
    for tile, where in zip(tiles[:4], cut, strict=True):
        assert np.mean(object_of(tile.astype(np.float32) / 255) == where) > 0.97


def test_object_of_an_image_without_a_plain_ground_is_everywhere():
    texture = np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)
    assert object_of(texture).all()


def test_on_plain_ground_when_the_image_is_full_or_empty_then_not():
    generator = np.random.default_rng(0)
    texture = generator.integers(0, 255, (8, SIDE, SIDE, 3), np.uint8)
    assert not on_plain_ground(texture)
    assert not on_plain_ground(np.full((8, SIDE, SIDE, 3), 90, np.uint8))
    assert not on_plain_ground(good_parts(8, SIDE))


def grainy(n: int, share: float) -> np.ndarray:
    """Return a smooth surface of which a share has another colour, in grains of one or two pixels."""
    generator = np.random.default_rng(0)
    images = np.full((n, SIDE, SIDE, 3), 120, np.uint8)
    grain = generator.random((n, SIDE, SIDE)) < share
    grain[:, 1:] |= grain[:, :-1] & (generator.random((n, SIDE - 1, SIDE)) < 0.5)
    images[grain] = 60
    return images


def test_on_plain_ground_when_a_smooth_surface_has_sparse_grain_then_not():
    images = grainy(12, 0.04)
    assert not on_plain_ground(images)
    # Images without grain are not evidence of objects.
    assert not on_plain_ground(np.concatenate([np.full((12, SIDE, SIDE, 3), 120, np.uint8), grainy(8, 0.05)]))
    images[:, 20:40, 10:50] = 200
    assert on_plain_ground(images)


def test_on_plain_ground_when_many_tiles_show_but_dust_then_the_object_in_the_others_counts():
    images = np.full((24, SIDE, SIDE, 3), 20, np.uint8)
    images[:10, 10:50, 10:50] = 180
    images[10:, [5, 30, 60], [40, 20, 10]] = 90
    assert on_plain_ground(images)


@pytest.mark.parametrize("wide", [1, 2, 5])
def test_on_plain_ground_when_the_object_is_a_wire_then_it_is_segmented(wide):
    images = np.full((6, SIDE, SIDE, 3), 20, np.uint8)
    images[:, 30 : 30 + wide, 6:58] = 200
    assert on_plain_ground(images)


def test_moved_onto_when_there_is_an_object_then_the_shape_reaches_it():
    bank, generator = MaskBank(SIDE, 0), np.random.default_rng(0)
    where = np.zeros((SIDE, SIDE), bool)
    where[50:60, 5:15] = True
    shapes = [bank.shape(generator) for _ in range(200)]
    shapes = [shape for shape in shapes if (shape > 0.3).any()]
    assert all((moved_onto(shape, where, generator)[where] > 0.3).any() for shape in shapes)
    assert moved_onto(shapes[0], np.zeros_like(where), generator) is shapes[0]


def test_add_defects_with_objects_then_most_changed_pixels_lie_on_them():
    images = screws(60).astype(np.float32) / 255

    def share(objects: bool) -> float:
        damaged = Painter(SIDE, 0, objects=objects).add_defects(images, np.random.default_rng(0))
        changed = np.abs(damaged - images).max(axis=(1, 2, 3)) > 0.05
        on = [
            (np.abs(damaged[index] - images[index]).max(axis=-1) > 0.05)[object_of(images[index])].any()
            for index in np.flatnonzero(changed)
        ]
        return float(np.mean(on))

    assert share(True) > 0.85 > share(False) + 0.2
