"""Tiling: tiles cover every pixel, are limited in number, preserve the aspect ratio, and their maps can be merged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.images.tiling import HARDLY, MOST_TILES, STRIDE, grid, parts

SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, st.sampled_from([32, 64, 128]), st.integers(1, 4))
def test_grid_whatever_the_shape_covers_the_canvas_with_tiles_that_overlap(height, width, size, across):
    tiles = grid(height, width, size, across)
    assert across**2 <= len(tiles) <= MOST_TILES
    for places, side in ((tiles.rows, tiles.height), (tiles.columns, tiles.width)):
        assert places[0] == 0
        assert places[-1] + size == side
        gaps = np.diff(places)
        assert (gaps > 0).all()
        # Rounded to steps of four pixels.
        assert (gaps <= STRIDE * size + 4).all()
        assert not np.any(np.array(places) % 4)


@given(st.integers(100, 2000), st.integers(100, 2000), st.integers(1, 4))
def test_grid_when_it_is_not_too_long_keeps_proportions(height, width, across):
    ratio = max(height, width) / min(height, width)
    tiles = grid(height, width, 128, across)
    kept = max(tiles.height, tiles.width) / min(tiles.height, tiles.width)
    if across == 1 and ratio <= HARDLY:
        assert len(tiles) == 1
    elif ratio < 4:
        assert kept == pytest.approx(ratio, rel=0.04)
    assert (tiles.height > tiles.width) <= (height >= width)


def test_grid_of_known_shapes_has_as_many_tiles_as_they_need():
    assert len(grid(230, 565, 128)) == 3
    assert len(grid(565, 230, 128)) == 3
    assert len(grid(480, 640, 128)) == 1
    assert len(grid(1080, 1920, 128)) == 2
    assert len(grid(480, 640, 128, across=2)) == 2 * 3
    assert len(grid(1, 10_000, 128)) == MOST_TILES


@given(st.integers(20, 400), st.integers(20, 400), st.integers(1, 3), st.integers(0, 99))
def test_stitch_when_tiles_are_cut_from_one_map_gives_it_back(height, width, across, seed):
    layout = grid(height, width, 32, across)
    whole = np.random.default_rng(seed).random((layout.height, layout.width, 3), np.float32)
    tiles = layout.cut(whole)
    np.testing.assert_allclose(layout.stitch(tiles[..., 0]), whole[..., 0], rtol=1e-5)


def test_parts_when_images_have_different_numbers_of_tiles_tells_them_apart():
    sizes = np.array([[64, 64], [64, 160], [64, 64], [64, 160], [200, 80], [80, 200]])
    shown = parts(np.array([1, 3, 1, 3, 3, 3]), sizes)
    assert len(shown) == 14
    assert shown[0] == shown[4]
    np.testing.assert_array_equal(shown[1:4], shown[5:8])
    np.testing.assert_array_equal(shown[1:4], shown[11:14])
    assert len(set(shown.tolist())) == 1 + 3 + 3
    # As many tiles in other places show other parts.
    assert not set(parts(np.array([4]), np.array([[100, 350]]))) & set(parts(np.array([4]), np.array([[100, 100]])))
    assert len(parts(np.array([], dtype=np.int64), np.empty((0, 2), dtype=np.int64))) == 0


@given(st.integers(100, 600), st.integers(100, 600), st.integers(1, 4))
def test_parts_of_any_grid_are_told_by_its_rows_and_columns(height, width, across):
    tiles = grid(height, width, 128, across)
    first = parts(np.array([len(tiles)]), np.array([[height, width]]))[0]
    assert divmod(first // (MOST_TILES + 1), MOST_TILES + 1) == (len(tiles.rows), len(tiles.columns))
