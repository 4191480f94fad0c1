"""Check the regions that came with an image, and store the mask that they amount to."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.project import Project
from pipelines.errors import BadImage
from pipelines.images.region_pixels import union
from pipelines.images.regions import BadRegions, Region, check_fit, loads, to_json, types_of
from pipelines.storage import keys
from pipelines.storage.s3 import Storage


@dataclass(frozen=True)
class StoredRegions:
    """The regions of one image.

    Attributes:
        content: the regions as JSON for the annotation; None where the mask alone says the same.
        mask_key: key of their mask among the samples in S3; None if one of them is a box.
        type: their types, joined by `+`; None if they have none.
    """

    content: dict[str, Any] | None
    mask_key: str | None
    type: str | None


def store_regions(data: bytes, size: tuple[int, int], project: Project) -> StoredRegions:
    """Store the mask of the regions in a file, of an image of `size` (width, height in pixels).

    Raises:
        BadImage: the file holds no regions of such an image.
        StorageError: S3 failed.
    """
    try:
        regions = loads(data)
        check_fit(regions, size)
        if not regions:
            raise BadRegions("there are no regions: put an image without any into good/")
    except BadRegions as error:
        raise BadImage(str(error)) from None
    marked = union(regions, size)
    mask_key = None if marked is None else put_mask(mask_file(marked), project)
    content = None if _is_one_mask(regions) else to_json(regions)
    return StoredRegions(content, mask_key, types_of(regions))


def put_mask(data: bytes, project: Project) -> str:
    """Write the file of a mask among the samples in S3, by its content, and return its key."""
    key = keys.mask(project.name, hashlib.sha256(data).hexdigest())
    Storage(project.bucket).put(key, data, "image/png")
    return key


def mask_file(marked: NDArray[np.bool_]) -> bytes:
    """Return a mask, bool [height, width], as a PNG with 255 where it marks."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.where(marked, 255, 0).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def _is_one_mask(regions: Sequence[Region]) -> bool:
    """Return whether the regions say no more than their union and type: one mask without attributes."""
    return len(regions) == 1 and regions[0].mask is not None and not regions[0].attributes
