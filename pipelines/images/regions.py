"""Regions of an image: what somebody marked, each with a type and a shape (polygons, a box or a mask).

An image may hold several regions of several types. Coordinates are pixels of the upright image, x to the right and y
down, with the origin at the upper left corner of the first pixel; they are kept to a thousandth of a pixel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InspectlineError
from pipelines.images import run_lengths

DIGITS = 3  # decimals of a coordinate
MOST_REGIONS = 10_000
MOST_POINTS = 200_000
_OUTSIDE = 2.0  # pixels by which a shape may leave its image; tools draw borders a little outside

Points = tuple[tuple[float, float], ...]
Value = str | int | float | bool


class BadRegions(InspectlineError):
    """Regions cannot be used: a shape is incomplete or lies outside its image."""


@dataclass(frozen=True)
class Region:
    """One marked region. Exactly one of `polygons`, `box` and `mask` is set.

    Attributes:
        type: what it shows, such as scratch. None: not given.
        polygons: one or more polygons of at least 3 points (x, y) in pixels; the region is their union.
        box: (x, y, width, height) in pixels.
        mask: (height, width, counts), a run-length encoding as COCO compresses it.
        attributes: what else was said of the region, such as {"severity": "minor"}.
    """

    type: str | None = None
    polygons: tuple[Points, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: tuple[int, int, str] | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Return whether the shape follows the region, which a box does not."""
        return self.box is None

    def to_json(self) -> dict[str, Any]:
        """Return the region as JSON: `type`, then `polygons`, `box` or `mask`, and `attributes` where there are any."""
        content: dict[str, Any] = {"type": self.type}
        if self.polygons:
            content["polygons"] = [[list(point) for point in polygon] for polygon in self.polygons]
        elif self.box:
            content["box"] = list(self.box)
        elif self.mask:
            height, width, counts = self.mask
            content["mask"] = {"size": [height, width], "counts": counts}
        return content | ({"attributes": dict(self.attributes)} if self.attributes else {})


def polygon_region(
    kind: str | None, polygons: Sequence[Sequence[Sequence[float]]], attributes: Mapping[str, Value] | None = None
) -> Region:
    """Return a region of polygons, each a sequence of (x, y).

    Raises:
        BadRegions: a polygon has fewer than three points, or a coordinate is not finite.
    """
    rings = tuple(tuple(_point(point) for point in polygon) for polygon in polygons)
    if not rings or any(len(set(ring)) < 3 for ring in rings):
        raise BadRegions("a polygon needs three points or more that differ: draw it again")
    if sum(map(len, rings)) > MOST_POINTS:
        raise BadRegions(f"a region has more than {MOST_POINTS:,} points: save it as a mask")
    return Region(kind, polygons=rings, attributes=attributes or {})


def box_region(kind: str | None, box: Sequence[float], attributes: Mapping[str, Value] | None = None) -> Region:
    """Return a region of a box (x, y, width, height).

    Raises:
        BadRegions: it does not have four finite numbers, or width or height is not positive.
    """
    if len(box) != 4:
        raise BadRegions(f"a box has {len(box)} numbers instead of x, y, width, height")
    x, y, width, height = (_number(value) for value in box)
    if width <= 0 or height <= 0:
        raise BadRegions(f"a box is {width:g} x {height:g} pixels: both sides must be longer than 0")
    return Region(kind, box=(x, y, width, height), attributes=attributes or {})


def mask_region(kind: str | None, marked: NDArray[np.bool_], attributes: Mapping[str, Value] | None = None) -> Region:
    """Return a region of a mask, bool [height, width]."""
    height, width = marked.shape
    return Region(kind, mask=(height, width, run_lengths.encode(marked)), attributes=attributes or {})


def encoded_region(
    kind: str | None, size: Sequence[int], counts: str | Sequence[int], attributes: Mapping[str, Value] | None = None
) -> Region:
    """Return a region of a COCO run-length encoding of `size` (height, width), compressed (text) or not (numbers).

    Raises:
        BadRegions: the encoding is damaged, or does not fit the size.
    """
    return mask_region(kind, _decoded(size, counts), attributes)


def from_json(content: Any) -> tuple[Region, ...]:
    """Return the regions of `{"regions": […]}` or of the list alone.

    Raises:
        BadRegions: something in it is not a region; says which.
    """
    entries = content.get("regions") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise BadRegions('the regions are not a list: write {"regions": [{"type": …, "polygons": […]}]}')
    if len(entries) > MOST_REGIONS:
        raise BadRegions(f"there are {len(entries):,} regions, more than {MOST_REGIONS:,}")
    regions = []
    for number, entry in enumerate(entries, start=1):
        try:
            regions.append(_region(entry))
        except BadRegions as error:
            raise BadRegions(f"region {number}: {error}") from None
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            raise BadRegions(
                f"region {number} needs a type and one of polygons [[[x, y], …]], box [x, y, width, height] or mask"
            ) from None
    return tuple(regions)


def to_json(regions: Sequence[Region]) -> dict[str, Any]:
    """Return what `from_json` reads."""
    return {"regions": [region.to_json() for region in regions]}


def dumps(regions: Sequence[Region]) -> bytes:
    """Return `to_json` as UTF-8 bytes, always the same for the same regions."""
    return json.dumps(to_json(regions), ensure_ascii=False, separators=(",", ":")).encode()


def loads(data: bytes) -> tuple[Region, ...]:
    """Return the regions of a file.

    Raises:
        BadRegions: it is not JSON in UTF-8, or not regions.
    """
    try:
        return from_json(json.loads(data.decode("utf-8-sig")))
    except (ValueError, RecursionError):
        raise BadRegions("the file is no JSON in UTF-8: save it again") from None


def check_fit(regions: Sequence[Region], size: tuple[int, int]) -> None:
    """Refuse regions that do not lie in an image of `size` (width, height).

    Raises:
        BadRegions: a shape lies outside the image by more than two pixels, or a mask has another size.
    """
    width, height = size
    for number, region in enumerate(regions, start=1):
        if region.mask:
            if region.mask[:2] != (height, width):
                raise BadRegions(
                    f"region {number} is a mask of {region.mask[1]} x {region.mask[0]} pixels and its image is "
                    f"{width} x {height}: draw it at the image's size"
                )
            continue
        left, top, right, bottom = bounds(region)
        if min(left, top) < -_OUTSIDE or right > width + _OUTSIDE or bottom > height + _OUTSIDE:
            raise BadRegions(
                f"region {number} reaches from ({left:g}, {top:g}) to ({right:g}, {bottom:g}), outside its image of "
                f"{width} x {height} pixels: give pixels of this image"
            )


def mask_of(region: Region) -> NDArray[np.bool_]:
    """Return the pixels of a region with a mask, bool [height, width].

    Raises:
        BadRegions: it has none, or its encoding is damaged.
    """
    if not region.mask:
        raise BadRegions("the region has no mask: give polygons a size first")
    height, width, counts = region.mask
    return _decoded((height, width), counts)


def bounds(region: Region) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a region in pixels."""
    if region.box:
        x, y, width, height = region.box
        return x, y, x + width, y + height
    if region.polygons:
        xs = [x for polygon in region.polygons for x, _ in polygon]
        ys = [y for polygon in region.polygons for _, y in polygon]
        return min(xs), min(ys), max(xs), max(ys)
    rows, columns = np.nonzero(mask_of(region))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def plain_values(attributes: Mapping[str, Any]) -> dict[str, Value]:
    """Return those of the attributes that a region can keep: texts, numbers, true and false."""
    return {str(name): value for name, value in attributes.items() if isinstance(value, str | int | float | bool)}


def types_of(regions: Sequence[Region]) -> str | None:
    """Return the types in alphabetical order, joined by `+`; None if no region has a type."""
    return "+".join(sorted({region.type for region in regions if region.type})) or None


def _region(entry: Mapping[str, Any]) -> Region:
    kind = entry.get("type")
    if kind is not None and not (isinstance(kind, str) and 0 < len(kind.strip()) <= 100):
        raise BadRegions("its type is no short text")
    kind = kind.strip() if kind else None
    attributes = _attributes(entry.get("attributes") or {})
    shapes = [name for name in ("polygons", "box", "mask") if entry.get(name)]
    if len(shapes) != 1:
        raise BadRegions("it needs exactly one of polygons, box and mask")
    if shapes == ["polygons"]:
        return polygon_region(kind, entry["polygons"], attributes)
    if shapes == ["box"]:
        return box_region(kind, entry["box"], attributes)
    return encoded_region(kind, entry["mask"]["size"], entry["mask"]["counts"], attributes)


def _attributes(attributes: Mapping[str, Any]) -> dict[str, Value]:
    kept = plain_values(attributes)
    if len(kept) != len(attributes):
        raise BadRegions("its attributes must be texts, numbers or true and false")
    return kept


def _point(point: Sequence[float]) -> tuple[float, float]:
    if len(point) != 2:
        raise BadRegions(f"a point has {len(point)} numbers instead of x and y")
    return _number(point[0]), _number(point[1])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRegions(f"{value!r} is no finite number")
    return round(float(value), DIGITS) + 0.0  # adding 0 turns -0.0 into 0.0


def _decoded(size: Sequence[int], counts: str | Sequence[int]) -> NDArray[np.bool_]:
    try:
        return run_lengths.decode(size, counts)
    except ValueError as error:
        raise BadRegions(f"a run-length encoding is damaged ({error})") from None
