"""Draws a sheet of example images with their restorations and error maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.tasks.anomaly.synthetic.defects import Floats

GAP = 4


def reconstruction_sheet(clean: Floats, damaged: Floats, restored: Floats, errors: Floats) -> Image.Image:
    """Return a sheet with a row for each image: clean, with synthetic defects, restored, and the error map.

    `clean`, `damaged` and `restored` are [n, S, S, 3] in 0 to 1; `errors` [n, S, S] are coloured from 0 to
    their largest value in the sheet.
    """
    heat = heat_colours(errors / max(float(errors.max()), 1e-9))
    columns = [np.pad(part, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=1.0) for part in (clean, damaged)]
    columns += [np.pad(part, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=1.0) for part in (restored, heat)]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in zip(*columns, strict=True)], axis=0)
    return Image.fromarray(np.round(np.clip(sheet, 0, 1) * 255).astype(np.uint8))


def heat_colours(values: Floats) -> NDArray[np.float32]:
    """Return values 0 to 1 of any shape [...] as RGB [..., 3]: black, red, yellow, white."""
    return np.stack([np.clip(values * 3 - shift, 0, 1) for shift in (0, 1, 2)], axis=-1).astype(np.float32)
