"""Estimates the statistics of good images by which errors and evidence are standardised.

For images that show an object in a fixed position, the median and the width of the logarithm of the relative error are
estimated at each pixel of the error map. An image that is cut into tiles has such maps for each tile; the network
recognises the tile by the nearest of the tiles' mean patterns. For images of a surface, the maps are constant. The
width is half the distance between the quantiles at minus and plus one standard deviation, so that a few outliers among
the good images change neither map.

Evidence depends on the roughness of an image: polycrystalline solar cells have more of all evidence than
monocrystalline ones, in which a crack would otherwise be missed. The growth of evidence with roughness is therefore
fitted to the good images, and the evidence of smooth images is raised accordingly. The roughest quarter is not
corrected, since an image may be rougher than usual because it is damaged. Where the parts of an image differ in
roughness, each is compared with its own median.

Each piece of evidence passes through a logistic function centred six standard deviations above the mean of good
images, so that evidence common to all of them has little weight. If the good images contain outliers, the logistic is
centred at the mean and steeper, so that a score is high only where most pieces are. Requires numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import isotonic_regression

from pipelines.tasks.anomaly.synthetic.sampling import spread
from pipelines.tasks.anomaly.synthetic.shapes import Floats

PATTERN = 8  # fields a side by which a part of an image is recognised
# The least number of images for a part to have its own maps, and the least share of the images of the commonest part:
# maps of few images would hold their defects as usual. Rarer parts take the maps of the part with the nearest pattern.
LEAST_SHOWN = 8
LEAST_SHARE = 0.25
LOOKED_AT, MOST_LOOKED_AT = 256, 1024  # images sampled for the maps: at most of each part, and in total
LOOKED_AT_FOR_EVIDENCE = 512  # images sampled for the evidence, of all parts together
ONE_DEVIATION = 0.16, 0.5, 0.84  # the quantiles of a normal distribution at -1, 0 and 1
BLUR = 1.0  # pixels of the error map
# The least variance of a pixel as a share of the mean variance, and the weight of the mean variance in images.
LEAST_VARIANCE = 0.05
SHRINKAGE = 8
LEAST_WIDTH = 0.05  # of a logarithm: where images are all the same, 5 % more error is a deviation
# The least standard deviation of a piece of evidence, as a share of its mean.
LEAST_SPREAD = 0.02
# Centre and scale of the logistic, in standard deviations above the mean of good images.
COUNTS = 6.0, 2.0
# The same where good images have outliers. If it were much steeper, float32 scores of outliers would saturate at 1.
COUNTS_AMONG_OUTLIERS = 0.0, 0.7
# The number of leading pieces of evidence that come from the errors (`anomaly_score.OPINIONS`).
ERRORS = 3
# Quantile above which the mean excess is taken (Embrechts, Klüppelberg and Mikosch, "Modelling extremal events", 1997):
# the mean distance of the highest tenth of good images from this quantile, in units of its distance from the median.
HIGHEST = 0.9
# The mean excess of a normal distribution and its weight as a prior, in images. An exponential distribution has 0.62.
NORMAL_EXCESS, NORMAL_IMAGES = 0.37, 8
# The mean excess at which outliers begin to count and at which they count fully, and the least number of images.
FIRST_OUTLIERS, OUTLIERS = 0.5, 0.65
LEAST_IMAGES = 64
# Good images are grouped by roughness: the most groups, the least images of a group, and the least difference in
# (logarithmic) roughness between groups. Smaller differences come from the camera's rounding.
GROUPS, LEAST_GROUP, LEAST_APART = 8, 16, 0.05
# Evidence is corrected for roughness below this quantile of the good images' roughness.
EXCUSED = 0.75
# The share of evidence's variance explained by roughness at which half of the correction applies; and its increment for
# each group, divided by the number of images, since groups explain some variance by chance.
EXPLAINED, BY_CHANCE = 0.02, 2.0


@dataclass(frozen=True)
class Usual:
    """The statistics of good images by which a network standardises its errors and its evidence.

    Attributes:
        patterns: mean pattern of each part of an image, by which parts are recognised, [P, 64].
        middles: median of the logarithm of the relative error of each part, [P, h, w].
        widths: standard deviation of that logarithm, [P, h, w], positive.
        roughness: median roughness of each part (`anomaly_score.roughness`), [P].
        knots: roughness relative to that median, ascending, [K].
        levels: evidence of good images at each knot, relative to rough ones, [K, pieces], at most 0; interpolated
            linearly between the knots and constant beyond them.
        locations: centre of the logistic function of each piece of evidence less its level, [pieces].
        scales: scale of that function, [pieces], positive.
        surface: whether the images show a surface, so that paths are part of the evidence.
    """

    patterns: Floats
    middles: Floats
    widths: Floats
    roughness: NDArray[np.float64]
    knots: NDArray[np.float64]
    levels: NDArray[np.float64]
    locations: Sequence[float]
    scales: Sequence[float]
    surface: bool

    @classmethod
    def of_maps(cls, patterns: Floats, middles: Floats, widths: Floats, *, pieces: int, surface: bool) -> Usual:
        """Return statistics with these maps that leave the evidence, of `pieces` pieces, as it is."""
        knots, levels = np.zeros(1), np.zeros((1, pieces))
        zeros, ones = [0.0] * pieces, [1.0] * pieces
        return cls(patterns, middles, widths, np.zeros(len(patterns)), knots, levels, zeros, ones, surface)

    def with_evidence(self, evidence: Floats, roughness: Floats, parts: NDArray[np.int64]) -> Usual:
        """Return a copy that standardises evidence by the `evidence` [n, pieces] of good images with this `roughness`
        [n]; `parts` [n] is the index of the part that each shows.
        """
        usual = np.full(len(self.patterns), np.median(roughness), np.float64)
        for part in np.unique(parts):
            usual[part] = np.median(roughness[parts == part])
        rougher = roughness - usual[parts]
        knots, levels = usual_levels(evidence, rougher, parts)
        left = evidence - interpolated(rougher, knots, levels)
        locations, scales = counted(left, outlying(_within(left, parts)[:, :ERRORS]))
        return replace(self, roughness=usual, knots=knots, levels=levels, locations=locations, scales=scales)


def shown_parts(images: Any, aligned: bool) -> list[NDArray[np.int64]]:
    """Return the indices of the images to sample for the maps, an array for each part; a single array for surfaces."""
    everything = np.arange(len(images))
    shown = getattr(images, "places", None)
    if not aligned or shown is None:
        parts = [everything]
    else:
        numbers, counts = np.unique(shown, return_counts=True)
        most = numbers[np.argsort(-counts, kind="stable")][: MOST_LOOKED_AT // LEAST_SHOWN]
        parts = [np.flatnonzero(shown == number) for number in most]
        least = max(LEAST_SHOWN, LEAST_SHARE * counts.max())
        parts = [part for part in parts if len(part) >= least] or [everything]
    share = min(LOOKED_AT, MOST_LOOKED_AT // len(parts))
    return [part[spread(len(part), share)] for part in parts]


def usual_pattern(images: NDArray[np.uint8]) -> Floats:
    """Return the mean pattern [64] of images [n, S, S, 3] uint8: grey in 8 x 8 fields, 0 to 1, less its mean."""
    fields = _fields(images).mean(axis=0)
    return fields - fields.mean()


def nearest_parts(images: NDArray[np.uint8], patterns: Floats) -> NDArray[np.int64]:
    """Return the index [n] of the part whose pattern, of `patterns` [P, 64], is nearest to each image [n, S, S, 3]."""
    nearness = _fields(images) @ patterns.T - 0.5 * np.square(patterns).sum(axis=1)
    return nearness.argmax(axis=1)


def _fields(images: NDArray[np.uint8]) -> Floats:
    side = images.shape[1] // PATTERN
    fields = images.reshape(len(images), PATTERN, side, PATTERN, side * 3).mean(axis=(2, 4), dtype=np.float32)
    return fields.reshape(len(images), -1) / np.float32(255)


def usual_maps(logs: Floats, aligned: bool) -> tuple[Floats, Floats]:
    """Return the median and the width [h, w] of the logarithms [n, h, w] of relative errors; constant maps unless the
    images are `aligned`.
    """
    low, middle, high = np.quantile(logs, ONE_DEVIATION, axis=0).astype(np.float32)
    variance = np.square((high - low) / 2)
    overall = float(variance.mean())
    if not aligned:
        return np.full_like(middle, middle.mean()), np.full_like(middle, max(np.sqrt(overall), LEAST_WIDTH))
    count = len(logs)
    variance = (count * gaussian_filter(variance, BLUR) + SHRINKAGE * overall) / (count + SHRINKAGE)
    width = np.sqrt(np.maximum(variance + LEAST_VARIANCE * overall, LEAST_WIDTH**2))
    return gaussian_filter(middle, BLUR), width.astype(np.float32)


def counted(evidence: NDArray[np.floating], odd: float) -> tuple[list[float], list[float]]:
    """Return location and scale [pieces] of the logistic function of each piece, fitted to the `evidence` [n, pieces]
    of good images; `odd`, 0 to 1, is the degree to which these have outliers.
    """
    means, deviations = evidence.mean(axis=0, dtype=np.float64), evidence.std(axis=0, dtype=np.float64)
    deviations = np.maximum(deviations, _least_spread(means))
    half, by = (1 - odd) * np.array(COUNTS) + odd * np.array(COUNTS_AMONG_OUTLIERS)
    return (means + half * deviations).tolist(), (by * deviations).tolist()


def outlying(evidence: NDArray[np.floating]) -> float:
    """Return the degree, 0 to 1, to which the `evidence` [n, pieces] of good images has outliers.

    A single outlier, which may be a wrong label, does not count, nor do outliers that are more than a tenth of the
    images. 0 for fewer than 64 images.
    """
    if len(evidence) < LEAST_IMAGES:
        return 0.0
    middle = np.median(evidence, axis=0)
    above = np.sort(evidence - middle, axis=0)[:-1]
    limit = np.maximum(np.quantile(above, HIGHEST, axis=0), _least_spread(middle))
    beyond, count = np.maximum(above - limit, 0).sum(axis=0) / limit, (above > limit).sum(axis=0)
    excess = (beyond + NORMAL_IMAGES * NORMAL_EXCESS) / (count + NORMAL_IMAGES)
    return float(np.interp(excess.mean(), (FIRST_OUTLIERS, OUTLIERS), (0, 1)))


def _least_spread(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return LEAST_SPREAD * np.abs(values) + 1e-6


def usual_levels(
    evidence: Floats, rougher: NDArray[np.floating], parts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `knots` [K] and `levels` [K, pieces] of a `Usual` from the `evidence` [n, pieces] of good images.

    `rougher` [n] is the roughness of each image less the median of its part. Evidence is fitted as non-decreasing in
    roughness (isotonic regression, Barlow et al., 1972) and the fit shrunk by the share of variance that it explains.
    Differences between `parts` [n] are removed first.
    """
    groups = _grouped(rougher)
    if len(groups) < 2:
        return np.zeros(1), np.zeros((1, evidence.shape[1]))
    differs = _within(evidence.astype(np.float64), parts)
    sizes = np.array([len(group) for group in groups], np.float64)
    means = np.stack([differs[group].mean(axis=0) for group in groups])
    grown = np.stack([isotonic_regression(piece, weights=sizes).x for piece in means.T], axis=1)
    varies = np.average(np.square(grown - np.average(grown, axis=0, weights=sizes)), axis=0, weights=sizes)
    explained = varies / np.maximum(differs.var(axis=0), 1e-12)
    counts = explained / (explained + EXPLAINED + BY_CHANCE * len(groups) / len(evidence))
    knots = np.array([rougher[group].mean() for group in groups], np.float64)
    highest = interpolated(np.quantile(rougher, [EXCUSED]), knots, grown)
    return knots, np.minimum(grown - highest, 0) * counts


def interpolated(
    rougher: NDArray[np.floating], knots: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the levels [n, pieces] of images whose roughness exceeds the median of their part by `rougher` [n]."""
    return np.stack([np.interp(rougher, knots, level) for level in levels.T], axis=1)


def _grouped(rougher: NDArray[np.floating]) -> list[NDArray[np.int64]]:
    """Return groups of equal size by ascending roughness; a group that hardly differs from its predecessor joins it."""
    count = max(1, min(GROUPS, len(rougher) // LEAST_GROUP))
    groups: list[NDArray[np.int64]] = []
    for group in np.array_split(np.argsort(rougher, kind="stable"), count):
        if groups and rougher[group].mean() < rougher[groups[-1]].mean() + LEAST_APART:
            groups[-1] = np.concatenate([groups[-1], group])
        else:
            groups.append(group)
    return groups


def _within(values: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return values [n, d] less the mean of the same part."""
    numbers, part = np.unique(parts, return_inverse=True)
    sums = np.zeros((len(numbers), values.shape[1]))
    np.add.at(sums, part, values)
    return values - (sums / np.bincount(part)[:, None])[part]
