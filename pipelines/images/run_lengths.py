"""Run-length encodings of masks, as COCO defines them: column by column, background first.

Format: https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def encode(marked: NDArray[np.bool_]) -> str:
    """Return a mask, bool [height, width], as COCO's compressed text."""
    from faster_coco_eval.core import mask as coco

    return str(coco.encode(np.asfortranarray(marked.astype(np.uint8)))["counts"].decode("ascii"))


def decode(size: Sequence[int], counts: str | Sequence[int]) -> NDArray[np.bool_]:
    """Return the mask, bool [height, width], of an encoding of `size` (height, width), compressed (text) or not.

    Raises:
        ValueError: it is damaged, or does not fit the size.
    """
    from faster_coco_eval.core import mask as coco

    try:
        height, width = (int(value) for value in size)
        if not (0 < height <= 1 << 16 and 0 < width <= 1 << 16):
            raise ValueError(f"its size is {width} x {height}")
        if isinstance(counts, str):
            encoded = {"size": [height, width], "counts": counts.encode("ascii")}
        else:
            numbers = [int(count) for count in counts]
            if min(numbers, default=0) < 0 or sum(numbers) != height * width:
                raise ValueError(f"its runs cover {sum(numbers):,} of {height * width:,} pixels")
            encoded = coco.frPyObjects({"size": [height, width], "counts": numbers}, height, width)
        return np.asarray(coco.decode(encoded)).astype(bool)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())[:100]) from None
