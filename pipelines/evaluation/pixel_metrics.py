"""Pixel-level metrics where masks exist: pixel AUROC and AUPRO, at the masks' original size.

Error maps are accumulated image by image into histograms, binned by the leading bits of the floating-point pattern: the
bins are monotonic in the value and at most 0.4 % of it wide at any scale. Curves are cumulative counts, so that memory
does not grow with the number of pixels, and a bootstrap over images is a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.intervals import CONFIDENCE
from pipelines.steps import Estimate

PRO_LIMIT = 0.3
_SHIFT = 15
_BINS = 1 << (32 - _SHIFT)
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class _ImageCounts:
    """The histogram of one image.

    Attributes:
        bins: indices of the non-empty bins, [b].
        normal: normal pixels per bin, [b].
        anomalous: anomalous pixels per bin, [b].
        overlap: anomalous pixels per bin, weighted so that each region adds up to 1, [b].
        regions: number of regions.
    """

    bins: NDArray[np.intp]
    normal: Counts
    anomalous: Counts
    overlap: Counts
    regions: int


@dataclass
class PixelCounts:
    """Histograms of the test images, added one at a time by `add`.

    Attributes:
        images: the histogram of each image.
    """

    images: list[_ImageCounts] = field(default_factory=list)

    def add(self, error_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        """Add one image: its error map [H, W] and its mask [H, W], all False for a good image.

        Regions are the mask's 8-connected components, as in Bergmann et al.'s evaluation code.

        Raises:
            ValueError: map and mask differ in size.
        """
        from scipy.ndimage import label

        if error_map.shape != mask.shape:
            raise ValueError(f"error map {error_map.shape} and mask {mask.shape} differ in size")
        codes = _bin(error_map)
        low, width = int(codes.min()), int(codes.max() - codes.min()) + 1
        flat, inside = (codes - low).ravel(), mask.ravel()
        regions, n_regions = label(mask, structure=_EIGHT_NEIGHBOURS)
        sizes = np.bincount(regions.ravel(), minlength=n_regions + 1)
        weights = 1.0 / sizes[regions.ravel()[inside]]
        normal = np.bincount(flat[~inside], minlength=width)
        anomalous = np.bincount(flat[inside], minlength=width)
        overlap = np.bincount(flat[inside], weights=weights, minlength=width)
        used = np.flatnonzero(normal + anomalous)
        self.images.append(
            _ImageCounts(
                used + low,
                normal[used].astype(float),
                anomalous[used].astype(float),
                overlap[used].astype(float),
                int(n_regions),
            )
        )

    @property
    def usable(self) -> bool:
        """Whether there are both normal and anomalous pixels."""
        return any(len(image.normal) and image.normal.sum() for image in self.images) and any(
            image.regions for image in self.images
        )


@dataclass(frozen=True)
class PixelMetrics:
    """Pixel-level metrics; the intervals are percentiles of a bootstrap over images, whose pixels are not independent.

    Attributes:
        pixel_auroc: area under the pixel-level ROC curve.
        aupro: area under the per-region-overlap curve up to a false-positive rate of 0.3, divided by 0.3.
    """

    pixel_auroc: Estimate
    aupro: Estimate


def measure_pixels(counts: PixelCounts, samples: int = 500, seed: int = 0) -> PixelMetrics:
    """Return the pixel-level metrics of the accumulated images.

    AUPRO is defined as in Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.2: the
    overlap is averaged over all ground-truth regions regardless of size, and the false-positive rate is computed over
    all pixels outside them.

    Args:
        counts: the accumulated images.
        samples: number of bootstrap resamples. Default 500.
        seed: seed of the bootstrap. Default 0.

    Raises:
        ValueError: there are no normal or no anomalous pixels.
    """
    if not counts.usable:
        raise ValueError("pixel metrics need a mask with anomalous pixels and some normal ones")
    normal, anomalous, overlap = _dense(counts.images)
    everything = np.ones((1, len(counts.images)))
    auroc, aupro = (float(values[0]) for values in _areas(everything, normal, anomalous, overlap))

    rng = np.random.default_rng(seed)
    with_regions = np.array([image.regions > 0 for image in counts.images])
    weights = np.zeros((samples, len(counts.images)))
    for stratum in (np.flatnonzero(with_regions), np.flatnonzero(~with_regions)):
        if len(stratum):
            # Stratified resampling keeps images with and without regions in every resample.
            weights[:, stratum] = rng.multinomial(len(stratum), np.full(len(stratum), 1 / len(stratum)), size=samples)
    draws = _areas(weights, normal, anomalous, overlap)
    return PixelMetrics(_percentiles(auroc, draws[0]), _percentiles(aupro, draws[1]))


def _bin(error_map: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the bin index of each value, monotonic in it: IEEE 754 patterns are ordered as sign and magnitude."""
    values = np.ascontiguousarray(error_map, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    pattern = values.view(np.uint32)
    ordered = np.where(pattern >> 31, ~pattern, pattern | np.uint32(1 << 31))
    return (ordered >> _SHIFT).astype(np.int64)


def _dense(images: list[_ImageCounts]) -> tuple[Counts, Counts, Counts]:
    """Return normal pixels, anomalous pixels and overlap, each [images, bins], in descending order of bins.

    Overlap is a sum over regions, not a mean: the curve is normalised by its total, which cancels their number.
    """
    bins = np.unique(np.concatenate([image.bins for image in images]))[::-1]
    place = np.empty(_BINS, dtype=np.intp)
    place[bins] = np.arange(len(bins))
    normal, anomalous, overlap = (np.zeros((len(images), len(bins))) for _ in range(3))
    for row, image in enumerate(images):
        columns = place[image.bins]
        normal[row, columns], anomalous[row, columns], overlap[row, columns] = (
            image.normal,
            image.anomalous,
            image.overlap,
        )
    return normal, anomalous, overlap


def _areas(weights: Counts, normal: Counts, anomalous: Counts, overlap: Counts) -> tuple[Counts, Counts]:
    """Return pixel AUROC and AUPRO [draws] for weights [draws, images]."""
    auroc, aupro = np.empty(len(weights)), np.empty(len(weights))
    for start in range(0, len(weights), 50):
        chunk = weights[start : start + 50]
        rate, recall, per_region = (_curve(chunk @ counts) for counts in (normal, anomalous, overlap))
        for row in range(len(chunk)):
            auroc[start + row] = np.trapezoid(recall[row], rate[row])
            aupro[start + row] = _area_up_to(rate[row], per_region[row], PRO_LIMIT)
    return auroc, aupro


def _curve(counts: Counts) -> Counts:
    """Return cumulative shares [draws, bins + 1] from 0 to 1."""
    total = np.cumsum(counts, axis=1)
    return np.pad(total / total[:, -1:], ((0, 0), (1, 0)))


def _area_up_to(rate: Counts, share: Counts, limit: float) -> float:
    """Return the area under `share` over `rate` from 0 to `limit`, divided by `limit`."""
    end = int(np.searchsorted(rate, limit, side="right"))
    x, y = rate[:end], share[:end]
    if end < len(rate) and x[-1] < limit:
        part = (limit - rate[end - 1]) / (rate[end] - rate[end - 1])
        x = np.append(x, limit)
        y = np.append(y, share[end - 1] + part * (share[end] - share[end - 1]))
    return float(np.trapezoid(y, x)) / limit


def _percentiles(value: float, draws: Counts) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, min(value, float(low)), max(value, float(high)))
