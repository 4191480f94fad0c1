"""Shapes that other tools draw and regions do not have: ellipses and turned boxes, as polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence

_ELLIPSE_POINTS = 64


def ellipse_points(centre: Sequence[float], radii: Sequence[float], degrees: float = 0.0) -> list[tuple[float, float]]:
    """Return an ellipse of radii (x, y) in pixels, turned clockwise, as 64 points."""
    angles = [2 * math.pi * number / _ELLIPSE_POINTS for number in range(_ELLIPSE_POINTS)]
    corners = [(radii[0] * math.cos(angle), radii[1] * math.sin(angle)) for angle in angles]
    return turned_points(corners, centre, degrees)


def box_points(box: Sequence[float], degrees: float) -> list[tuple[float, float]]:
    """Return the corners of a box (x, y, width, height), turned clockwise about its centre."""
    x, y, width, height = box
    corners = [(-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2)]
    return turned_points(corners, (x + width / 2, y + height / 2), degrees)


def turned_points(
    points: Sequence[Sequence[float]], origin: Sequence[float], degrees: float
) -> list[tuple[float, float]]:
    """Return points turned clockwise about (0, 0), then moved to `origin`; y points down."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(origin[0] + x * cos - y * sin, origin[1] + x * sin + y * cos) for x, y in points]
