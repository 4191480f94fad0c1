"""Regions of an image: written, read again, checked, drawn as masks and turned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.images.region_pixels import rasterise, turned, union
from pipelines.images.regions import (
    BadRegions,
    Region,
    bounds,
    box_region,
    check_fit,
    dumps,
    from_json,
    loads,
    mask_region,
    polygon_region,
    types_of,
)

SIZE = (40, 30)
coordinates = st.tuples(st.floats(0, 40, width=32), st.floats(0, 30, width=32))


@given(st.lists(coordinates, min_size=3, max_size=12, unique_by=lambda point: (round(point[0], 3), round(point[1], 3))))
def test_polygon_when_written_and_read_then_is_the_same(points):
    region = polygon_region("scratch", [points], {"severity": "minor", "score": 0.5, "seen": True})
    assert loads(dumps([region])) == (region,)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 30))
def test_mask_when_written_and_read_then_marks_the_same(seed: int, width: int, height: int):
    marked = np.random.default_rng(seed).random((height, width)) < 0.4
    (region,) = loads(dumps([mask_region(None, marked)]))
    assert (rasterise(region) == marked).all()


def test_rasterise_when_whole_pixels_then_marks_exactly_these():
    square = polygon_region("a", [[(10, 5), (20, 5), (20, 15), (10, 15)]])
    expected = np.zeros((30, 40), dtype=bool)
    expected[5:15, 10:20] = True
    assert (rasterise(square, SIZE) == expected).all()
    assert (rasterise(box_region("a", (10, 5, 10, 10)), SIZE) == expected).all()
    assert bounds(mask_region("a", expected)) == (10, 5, 20, 15)


def test_union_when_a_box_is_among_them_then_there_is_no_exact_mask():
    triangle, box = polygon_region("a", [[(0, 0), (9, 0), (0, 9)]]), box_region("b", (1, 1, 2, 2))
    assert union([triangle, box], SIZE) is None
    assert union([], SIZE) is None
    both = union([triangle, polygon_region("b", [[(20, 20), (30, 20), (30, 29)]])], SIZE)
    assert both is not None
    assert both.sum() > rasterise(triangle, SIZE).sum()
    assert types_of([triangle, box, box]) == "a+b"


@pytest.mark.parametrize(
    "content",
    [
        "x",
        {"regions": "x"},
        {"regions": [{}]},
        {"regions": [{"type": "a"}]},
        {"regions": [{"type": "a", "box": [1, 2, 3]}]},
        {"regions": [{"type": "a", "box": [1, 2, 0, 3]}]},
        {"regions": [{"type": "a", "box": [1, 2, float("nan"), 3]}]},
        {"regions": [{"type": "a", "box": [1, 2, True, 3]}]},
        {"regions": [{"type": "a", "polygons": [[[1, 1], [2, 2]]]}]},
        {"regions": [{"type": "a", "polygons": [[[1, 1, 1], [2, 2], [3, 1]]]}]},
        {"regions": [{"type": "a", "polygons": 5}]},
        {"regions": [{"type": 7, "box": [1, 2, 3, 4]}]},
        {"regions": [{"type": "a", "box": [1, 2, 3, 4], "polygons": [[[1, 1], [2, 2], [3, 1]]]}]},
        {"regions": [{"type": "a", "mask": {"size": [4, 4], "counts": "~~~"}}]},
        {"regions": [{"type": "a", "mask": {"size": [4, 10**9], "counts": "4"}}]},
        {"regions": [{"type": "a", "mask": {"size": [4, 4], "counts": [3, 99]}}]},
        {"regions": [{"type": "a", "box": [1, 2, 3, 4], "attributes": {"a": [1]}}]},
        {"regions": [{"type": "a", "box": [1, 2, 3, 4]}] * 10_001},
    ],
)
def test_from_json_when_something_is_no_region_then_refuses_in_one_line(content):
    with pytest.raises(BadRegions) as caught:
        from_json(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b"null"])
def test_loads_when_the_file_is_damaged_then_refuses(data: bytes):
    with pytest.raises(BadRegions):
        loads(data)


@pytest.mark.parametrize(
    "region",
    [
        box_region("a", (35, 5, 10, 10)),
        polygon_region("a", [[(-5, 0), (10, 0), (10, 10)]]),
        mask_region("a", np.ones((40, 30), dtype=bool)),
    ],
)
def test_check_fit_when_outside_the_image_then_refuses(region: Region):
    check_fit([box_region("a", (39, 29, 2, 2))], SIZE)
    with pytest.raises(BadRegions):
        check_fit([region], SIZE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_when_any_orientation_then_all_shapes_agree(orientation: int):
    polygon = polygon_region("a", [[(10, 5), (25, 5), (25, 12), (10, 12)]])
    shapes = [polygon, box_region("a", (10, 5, 15, 7)), mask_region("a", rasterise(polygon, SIZE))]
    upright = SIZE[::-1] if orientation >= 5 else SIZE
    drawn = [rasterise(turned(shape, orientation, SIZE), upright) for shape in shapes]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] == drawn[2]).all()
    assert drawn[0].sum() == 105
