"""Preprocessing: any shape is resized to the square without shifts, and maps are restored to image coordinates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.images.preprocess import placement, prepare, restore_map, tile_grid

SIDES = st.integers(1, 300)
RESIZES = st.sampled_from(["fit", "stretch", "crop"])


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(SIDES, SIDES, st.sampled_from([8, 32, 128]), RESIZES)
def test_prepare_whatever_the_shape_gives_the_same_square_again(height, width, size, resize):
    image = random_image(height, width)
    prepared = prepare(image, size, resize)
    assert prepared.shape == (1, size, size, 3)
    assert prepared.dtype == np.uint8
    assert np.array_equal(prepare(image.copy(order="F"), size, resize), prepared)


@given(SIDES, SIDES, RESIZES, st.integers(0, 255))
def test_prepare_when_the_image_is_even_keeps_its_value(height, width, resize, value):
    prepared = prepare(np.full((height, width, 3), value, np.uint8), 64, resize)
    assert np.abs(prepared.astype(int) - value).max() <= 1


@given(st.sampled_from([8, 31, 64]), RESIZES, st.integers(0, 1000))
def test_prepare_when_the_image_has_the_size_changes_nothing(size, resize, seed):
    image = random_image(size, size, seed)
    assert np.array_equal(prepare(image, size, resize), image[None])


@given(SIDES, SIDES, st.integers(0, 1000))
def test_prepare_when_fitting_twice_is_the_same_as_once(height, width, seed):
    once = prepare(random_image(height, width, seed), 48, "fit")
    assert np.array_equal(prepare(once[0], 48, "fit"), once)


@given(SIDES, SIDES, st.sampled_from([16, 64, 128]))
def test_placement_when_fitting_keeps_proportions_and_stays_inside(height, width, size):
    top, left, inner_height, inner_width = placement(height, width, size, "fit")
    assert max(inner_height, inner_width) == size
    assert min(inner_height, inner_width) >= 1
    assert 0 <= top <= size - inner_height
    assert 0 <= left <= size - inner_width
    assert abs(inner_height / size - height / max(height, width)) <= 1 / size
    assert abs(inner_width / size - width / max(height, width)) <= 1 / size


def test_prepare_when_a_long_image_is_fitted_mirrors_it_into_the_margins():
    image = random_image(40, 80)
    (prepared,) = prepare(image, 80, "fit")
    assert np.array_equal(prepared[20:60], image)
    assert np.array_equal(prepared[:20], image[:20][::-1])
    assert np.array_equal(prepared[60:], image[20:][::-1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (3000, 1), (2, 500)])
@pytest.mark.parametrize("resize", ["fit", "stretch"])
def test_prepare_when_an_image_is_a_pixel_wide_still_gives_the_square(shape, resize):
    assert prepare(random_image(*shape), 128, resize).shape == (1, 128, 128, 3)


@pytest.mark.parametrize(
    ("height", "width", "same_as"), [(96, 96, "tile"), (192, 600, "tile"), (1, 4000, "tile"), (193, 600, "tile2")]
)
def test_prepare_auto_lays_two_tiles_along_the_shorter_side_of_large_images_alone(height, width, same_as):
    image = random_image(height, width)
    np.testing.assert_array_equal(prepare(image, 128, "auto"), prepare(image, 128, same_as))


def test_prepare_when_reducing_averages_instead_of_skipping_pixels():
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255
    prepared = prepare(stripes, 128, "fit")[0, 8:-8, 8:-8]
    assert np.abs(prepared.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))],
)
def test_prepare_when_given_something_else_says_what_it_expects(bad):
    with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\]"):
        prepare(bad, 16, "fit")


@pytest.mark.parametrize("unknown", ["cut", "tile5", "tile1", "tiles"])
def test_prepare_when_the_resize_is_unknown_names_the_allowed_ones(unknown):
    with pytest.raises(ValueError, match="allowed are auto, fit, stretch, crop, tile, tile2"):
        prepare(random_image(4, 5), 16, unknown)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(60, 90), (200, 50), (128, 128)])
@pytest.mark.parametrize("resize", ["fit", "stretch"])
def test_restore_map_when_laid_back_finds_the_spot_where_it_was_in_the_image(height, width, resize):
    image = np.zeros((height, width, 3), np.uint8)
    row, column = height // 3, 2 * width // 3
    image[row - 3 : row + 4, column - 3 : column + 4] = 255
    error_map = prepare(image, 128, resize)[0, ..., 0].astype(np.float32)
    restored = restore_map(error_map, height, width, resize)
    assert restored.shape == (height, width)
    peak = np.unravel_index(np.argmax(Image.fromarray(restored)), restored.shape)
    assert abs(peak[0] - row) <= 4
    assert abs(peak[1] - column) <= 4


@pytest.mark.parametrize(("height", "width"), [(60, 90), (230, 565), (900, 120), (128, 128), (1, 3000)])
@pytest.mark.parametrize("resize", ["auto", "tile", "tile2", "tile4"])
def test_restore_map_of_tiles_when_stitched_finds_the_spot_where_it_was_in_the_image(height, width, resize):
    image = np.zeros((height, width, 3), np.uint8)
    row, column = height // 3, 2 * width // 3
    reach = max(1, min(height, width) // 20)
    image[max(0, row - reach) : row + reach + 1, column - reach : column + reach + 1] = 255
    tiles = prepare(image, 64, resize)
    grid = tile_grid(height, width, 64, resize)
    assert grid is not None
    assert tiles.shape == (len(grid), 64, 64, 3)
    # An error map has half the side of a tile.
    maps = tiles[..., 0].reshape(len(tiles), 32, 2, 32, 2).mean(axis=(2, 4), dtype=np.float32)
    restored = restore_map(grid.stitch(maps), height, width, resize)
    assert restored.shape == (height, width)
    peak = np.unravel_index(np.argmax(restored), restored.shape)
    assert abs(peak[0] - row) <= max(4, height // 16)
    assert abs(peak[1] - column) <= max(4, width // 16)
