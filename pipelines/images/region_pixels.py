"""The pixels of regions: polygons and boxes drawn as masks, masks of one image united, shapes turned by EXIF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.images.orientation import turned as turned_pixels
from pipelines.images.regions import Points, Region, bounds, box_region, mask_of, mask_region, polygon_region


def rasterise(region: Region, size: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Return the region as bool [height, width] in an image of `size` (width, height; default that of its mask)."""
    from faster_coco_eval.core import mask as coco

    if region.mask:
        return mask_of(region)
    assert size is not None
    width, height = size
    if region.box:
        marked = np.zeros((height, width), dtype=bool)
        left, top, right, bottom = bounds(region)
        marked[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = True
        return marked
    rings = [[value for point in _clipped(polygon, size) for value in point] for polygon in region.polygons]
    # COCO's rasteriser: a pixel belongs to a polygon if its centre does.
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(rings, height, width)))).astype(bool)


def union(regions: Sequence[Region], size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return all regions as one mask, bool [height, width]; None if one of them is a box, which is not exact."""
    if not regions or not all(region.exact for region in regions):
        return None
    width, height = size
    marked = np.zeros((height, width), dtype=bool)
    for region in regions:
        marked |= rasterise(region, size)
    return marked


def turned(region: Region, orientation: int, stored: tuple[int, int]) -> Region:
    """Return a region drawn on the stored pixels in pixels of the upright image.

    Args:
        region: the region in pixels as stored.
        orientation: EXIF orientation of the image, 1 to 8 (EXIF 2.32, tag 0x0112).
        stored: width and height of the stored pixels.
    """
    width, height = stored
    move = {
        2: lambda x, y: (width - x, y),
        3: lambda x, y: (width - x, height - y),
        4: lambda x, y: (x, height - y),
        5: lambda x, y: (y, x),
        6: lambda x, y: (height - y, x),
        7: lambda x, y: (height - y, width - x),
        8: lambda x, y: (y, width - x),
    }.get(orientation)
    if move is None:
        return region
    if region.mask:
        upright = turned_pixels(mask_of(region), orientation)
        return mask_region(region.type, upright, region.attributes)
    if region.box:
        left, top, right, bottom = bounds(region)
        (x1, y1), (x2, y2) = move(left, top), move(right, bottom)
        return box_region(region.type, (min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)), region.attributes)
    polygons = [[move(x, y) for x, y in polygon] for polygon in region.polygons]
    return polygon_region(region.type, polygons, region.attributes)


def _clipped(polygon: Points, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Return the polygon with its points moved into the image, which COCO's rasteriser requires."""
    width, height = size
    return [(min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))) for x, y in polygon]
