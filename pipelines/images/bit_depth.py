"""Scale samples of more than eight bits to eight.

Cameras of 10, 12 or 14 bits mostly save 16-bit files that do not say so, so the file alone does not tell which value is
white. A project fixes it once for all its images (`image.bits`; see `pipelines.datasets.sample_bits`): with `bits` = b,
samples span 0 … 2^b - 1, and b = 1 stands for floating-point samples of 0 to 1. Then no pixel of an image changes what
its other pixels become. An image with a sample beyond that range is refused, never clipped. What a file does declare
counts before the project: samples of eight bits or less, and a TIFF of 9 to 15 bits, span their own range.

Without `bits` (a project of eight-bit images, and models of before) each image's own largest sample decides: up to
4,095 it has 12 bits, else 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadImage
from pipelines.images.raw_samples import RawSamples

BITS = (8, 10, 12, 14, 16)
UNIT = 1  # bits of floating-point samples from 0 to 1
_STRIP = 1 << 19  # pixels


@dataclass(frozen=True)
class SampleDepth:
    """What the samples of an image show of its bit depth.

    Attributes:
        bits: bits of a sample in the file, 8 or less for most images.
        low: the least sample of a visible pixel; 0 for eight bits or less.
        high: the greatest sample of a visible pixel; 2^bits - 1 for eight bits or less.
        is_float: whether samples are floating-point numbers.
    """

    bits: int = 8
    low: float = 0.0
    high: float = 255.0
    is_float: bool = False

    @property
    def is_declared(self) -> bool:
        """Whether the file itself says which range its samples span."""
        return self.bits < 16


EIGHT_BITS = SampleDepth()


def depth_of(samples: RawSamples) -> SampleDepth:
    """Return what deep samples show; pixels that are fully transparent say nothing."""
    values = samples.values
    if samples.alpha is not None and samples.alpha.any():
        values = values[samples.alpha > 0]
    return SampleDepth(samples.bits, float(values.min()), float(values.max()), values.dtype.kind == "f")


def check_range(depth: SampleDepth) -> None:
    """Refuse an image whose samples fit no bit depth that a project can have.

    Raises:
        BadImage: it has negative samples, or samples beyond 16 bits.
    """
    if depth.low < 0 or depth.high > 65535:
        raise BadImage(
            f"the image has samples from {depth.low:,.6g} to {depth.high:,.6g}, outside 0 to 65,535: save it in 8 or "
            "16 bits"
        )


def to_eight_bits(samples: RawSamples, bits: int | None, depth: SampleDepth) -> NDArray[np.uint8]:
    """Scale deep samples to uint8 [H, W] (grey), [H, W, 3] (RGB), or with alpha as a last channel [H, W, 4].

    Args:
        samples: samples of more than eight bits.
        bits: the project's bit depth, 1 to 16. None: the image's own.
        depth: what the samples show.

    Raises:
        BadImage: a sample is beyond the project's range, or the image is of another kind than the project's.
    """
    black, white = _own_range(samples, depth) if bits is None else sample_range(depth, bits)
    shown = _scaled(samples.values, black, white)
    if samples.inverted:
        shown = 255 - shown
    if samples.alpha is None:
        return shown
    opaque = float(samples.opaque)
    if opaque > 255 and samples.alpha.any() and samples.alpha.max() <= white:
        opaque = white  # a camera of 12 bits stores 4,095 for opaque, too
    alpha = _scaled(samples.alpha, 0.0, opaque)
    colours = shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)
    if samples.premultiplied and alpha.any():
        colours = _divided(colours, alpha)
    return np.concatenate([colours, alpha[..., None]], axis=2)


def sample_range(depth: SampleDepth, bits: int) -> tuple[float, float]:
    """Return the samples that map to black and to white in a project of `bits`.

    Raises:
        BadImage: a sample is beyond them, or the samples are of another kind than the project's.
    """
    if depth.is_declared:
        return 0.0, max(2.0**depth.bits - 1, depth.high)
    if bits == UNIT and not depth.is_float:
        raise BadImage(
            "the image has whole numbers as samples, and the project's images have 0 to 1 (image.bits): save it in "
            "eight bits, or as floating-point numbers from 0 to 1"
        )
    if depth.is_float and bits != UNIT and 0 < depth.high <= 1:
        raise BadImage(
            f"the image has floating-point samples from 0 to 1, and the project's images have {bits} bits "
            "(image.bits): save it in 16 bits"
        )
    white = 2.0**bits - 1
    if depth.low < 0 or depth.high > white:
        needed = next((each for each in BITS if depth.high < 2**each), None)
        way = f"set image.bits to {needed} and train again, or save it" if needed and depth.low >= 0 else "save it"
        raise BadImage(
            f"the image has samples from {depth.low:,.6g} to {depth.high:,.6g}, and those of the project's images go "
            f"from 0 to {white:,.0f} (image.bits): {way} in that range"
        )
    return 0.0, white


def _own_range(samples: RawSamples, depth: SampleDepth) -> tuple[float, float]:
    """Return the samples that map to black and to white, from the image alone."""
    if depth.low >= 0:
        if 0 < samples.declared_white < 2**31 and depth.high <= samples.declared_white:
            return 0.0, samples.declared_white
        if not depth.is_float and 8 < depth.bits < 16 and depth.high < 2**depth.bits:
            return 0.0, 2.0**depth.bits - 1
        ranges: tuple[float, ...] = (4095.0, 65535.0)
        if depth.is_float:
            ranges = (1.0, 255.0, *ranges)
        elif samples.values.dtype.kind == "i":
            ranges = (255.0, *ranges)
        for brightest in ranges:
            if depth.high <= brightest:
                return 0.0, brightest
    return depth.low, max(depth.high, depth.low + 1)  # no customary range: use the image's own


def _scaled(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    """Map black … white linearly to 0 … 255; strips bound the memory that this takes."""
    if values.dtype == np.uint16:
        table = np.arange(65536, dtype=np.float64)
        table = np.clip(np.rint((table - black) * (255 / (white - black))), 0, 255)
        return table.astype(np.uint8)[values]
    shown = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP // values.shape[1])
    for top in range(0, len(values), rows):
        scaled = (values[top : top + rows].astype(np.float64) - black) * (255 / (white - black))
        shown[top : top + rows] = np.clip(np.rint(scaled), 0, 255)
    return shown


def _divided(colours: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo the multiplication of colours by alpha."""
    divided = colours.astype(np.uint16) * 255 // np.maximum(alpha, 1)[..., None]
    return np.minimum(divided, 255).astype(np.uint8)
