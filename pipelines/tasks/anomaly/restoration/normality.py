"""What is usual of good images, place by place: what is odd at one is not to hide behind what is usual at another.

Where images show something in one place, the logarithm of the relative error has a usual value and a usual width at
every place of the error map; a long image, cut into tiles, has them for each tile. Which tile it is, the network tells
by what it looks like: by the nearest of the tiles' mean patterns. Where images show a surface, all places are alike.
Middle and width are the median and half the distance between the quantiles of one deviation, so that a few odd images
among the good ones change neither of these maps.

The pieces of evidence depend on how rough an image is: of good solar cells, those of many crystals show more of
everything than those of one, and a crack in one of these would go unseen. So how evidence grows with roughness is
learnt from the good images, and what smooth ones show is told as if they were rougher. The roughest quarter is not
excused for what it shows: what is rougher than usual may be so because it is damaged. Where parts of an image differ in
roughness, each is compared with itself.

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
# For a map of its own a part must be shown by so many images, and by this share of those that show the commonest part:
# of a few odd images, odd things would be usual. Rarer parts take the map of the part that they look most like.
LEAST_SHOWN = 8
LEAST_SHARE = 0.25
LOOKED_AT, MOST_LOOKED_AT = 256, 1024  # images of each part, and of all
LOOKED_AT_FOR_EVIDENCE = 512  # of all, whichever part they show
ONE_DEVIATION = 0.16, 0.5, 0.84  # the quantiles of a normal distribution at -1, 0 and 1
BLUR = 1.0  # pixels of the error map
# How much of the variance over all places every place has at least, and how many images' worth of it is mixed in.
LEAST_VARIANCE = 0.05
SHRINKAGE = 8
LEAST_WIDTH = 0.05  # of a logarithm: where images are all the same, 5 % more error is a deviation
# Of evidence, the least spread that counts, as a share of the mean.
LEAST_SPREAD = 0.02
# Centre and scale of the logistic, in standard deviations above the mean of good images.
COUNTS = 6.0, 2.0
# The same where good images have outliers. Much steeper, a score of outliers would be 1 to the last bit.
COUNTS_AMONG_OUTLIERS = 0.0, 0.7
# How many pieces of evidence, the first, are of the errors (`scoring.OPINIONS`).
ERRORS = 3
# The mean excess (Embrechts, Klüppelberg and Mikosch, "Modelling extremal events", 1997): how far the highest tenth of
# good images lies beyond where it begins, on average, in distances from there to the median.
HIGHEST = 0.9
# Of a normal distribution it is 0.37, and so many images' worth of that is mixed in; of an exponential one it is 0.62.
NORMAL_EXCESS, NORMAL_IMAGES = 0.37, 8
# From where on it tells of outliers, and from where on of nothing else; of how many images at least.
FIRST_OUTLIERS, OUTLIERS = 0.5, 0.65
LEAST_IMAGES = 64
# Good images are grouped by roughness: so many groups at most, of so many images at least, whose roughness, which is a
# logarithm, differs by so much at least. What differs by less does so by a camera's rounding.
GROUPS, LEAST_GROUP, LEAST_APART = 8, 16, 0.05
# Up to which quantile of the good images' roughness evidence is told as if they were rougher.
EXCUSED = 0.75
# The share of evidence's variance that roughness must explain for half of that to count; and, divided by the number of
# images, what each group adds to it, since it explains some by chance.
EXPLAINED, BY_CHANCE = 0.02, 2.0


@dataclass(frozen=True)
class Usual:
    """`patterns` [P, 64] tells the parts of images apart; `middles` and `widths` [P, h, w] are of the logarithm of the
    relative error of each, `roughness` [P] is the usual one of each (`scoring.roughness`).

    `levels` [K, pieces], at most 0, say how much less each piece of evidence is of good images whose roughness differs
    from that by `knots` [K], ascending; between them it changes evenly, and beyond them it does not. `locations` and
    `scales` are of the logistic function by which each piece of evidence, less that, counts. `surface`: the images show
    one, so that paths across it count, too.
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
        """Return one by which the evidence, of so many pieces, is told as it is."""
        knots, levels = np.zeros(1), np.zeros((1, pieces))
        nothing, one = [0.0] * pieces, [1.0] * pieces
        return cls(patterns, middles, widths, np.zeros(len(patterns)), knots, levels, nothing, one, surface)

    def with_evidence(self, found: Floats, roughness: Floats, parts: NDArray[np.int64]) -> Usual:
        """Return the same with what is usual of the evidence [n, pieces] of good images of this roughness [n]; `parts`
        [n] says which of the parts each shows.
        """
        usual = np.full(len(self.patterns), np.median(roughness), np.float64)
        for part in np.unique(parts):
            usual[part] = np.median(roughness[parts == part])
        rougher = roughness - usual[parts]
        knots, levels = usual_levels(found, rougher, parts)
        left = found - interpolated(rougher, knots, levels)
        locations, scales = counted(left, outlying(_within(left, parts)[:, :ERRORS]))
        return replace(self, roughness=usual, knots=knots, levels=levels, locations=locations, scales=scales)


def shown_parts(images: Any, aligned: bool) -> list[NDArray[np.int64]]:
    """Return which images to look at, a list of places for each part that they show; one for all of a surface."""
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
    """Return which of the parts with these `patterns` [P, 64] each image [n, S, S, 3] shows: that of the nearest."""
    nearness = _fields(images) @ patterns.T - 0.5 * np.square(patterns).sum(axis=1)
    return nearness.argmax(axis=1)


def _fields(images: NDArray[np.uint8]) -> Floats:
    side = images.shape[1] // PATTERN
    fields = images.reshape(len(images), PATTERN, side, PATTERN, side * 3).mean(axis=(2, 4), dtype=np.float32)
    return fields.reshape(len(images), -1) / np.float32(255)


def usual_maps(logs: Floats, aligned: bool) -> tuple[Floats, Floats]:
    """Return middle and width [h, w] of the logarithms [n, h, w] of relative errors; the same everywhere unless the
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


def counted(found: NDArray[np.floating], odd: float) -> tuple[list[float], list[float]]:
    """Return location and scale of the logistic function by which each piece of evidence counts, from those of good
    images [n, pieces]; `odd`, 0 to 1, says whether these have outliers.
    """
    means, deviations = found.mean(axis=0, dtype=np.float64), found.std(axis=0, dtype=np.float64)
    deviations = np.maximum(deviations, _least_spread(means))
    half, by = (1 - odd) * np.array(COUNTS) + odd * np.array(COUNTS_AMONG_OUTLIERS)
    return (means + half * deviations).tolist(), (by * deviations).tolist()


def outlying(found: NDArray[np.floating]) -> float:
    """Return whether good images, of this evidence [n, pieces], have outliers among themselves: 0, if not, to 1.

    One alone, which may be labelled wrong, is none. Neither are those of a kind that more than a tenth belongs to.
    """
    if len(found) < LEAST_IMAGES:
        return 0.0
    middle = np.median(found, axis=0)
    above = np.sort(found - middle, axis=0)[:-1]
    limit = np.maximum(np.quantile(above, HIGHEST, axis=0), _least_spread(middle))
    beyond, count = np.maximum(above - limit, 0).sum(axis=0) / limit, (above > limit).sum(axis=0)
    excess = (beyond + NORMAL_IMAGES * NORMAL_EXCESS) / (count + NORMAL_IMAGES)
    return float(np.interp(excess.mean(), (FIRST_OUTLIERS, OUTLIERS), (0, 1)))


def _least_spread(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return LEAST_SPREAD * np.abs(values) + 1e-6


def usual_levels(
    found: Floats, rougher: NDArray[np.floating], parts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `knots` and `levels` of a `Usual` from the evidence [n, pieces] of good images that are so much `rougher`
    [n] than is usual of the part that each shows.

    Evidence grows with roughness or stays (isotonic regression, Barlow et al., 1972), as far as that explains it; how
    parts differ from each other tells nothing of it.
    """
    groups = _grouped(rougher)
    if len(groups) < 2:
        return np.zeros(1), np.zeros((1, found.shape[1]))
    differs = _within(found.astype(np.float64), parts)
    sizes = np.array([len(group) for group in groups], np.float64)
    means = np.stack([differs[group].mean(axis=0) for group in groups])
    grown = np.stack([isotonic_regression(piece, weights=sizes).x for piece in means.T], axis=1)
    varies = np.average(np.square(grown - np.average(grown, axis=0, weights=sizes)), axis=0, weights=sizes)
    explained = varies / np.maximum(differs.var(axis=0), 1e-12)
    counts = explained / (explained + EXPLAINED + BY_CHANCE * len(groups) / len(found))
    knots = np.array([rougher[group].mean() for group in groups], np.float64)
    highest = interpolated(np.quantile(rougher, [EXCUSED]), knots, grown)
    return knots, np.minimum(grown - highest, 0) * counts


def interpolated(
    rougher: NDArray[np.floating], knots: NDArray[np.float64], levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the levels [n, pieces] of images that are so much `rougher` [n] than usual."""
    return np.stack([np.interp(rougher, knots, level) for level in levels.T], axis=1)


def _grouped(rougher: NDArray[np.floating]) -> list[NDArray[np.int64]]:
    """Return groups of equal size by roughness, ascending; those that hardly differ from the one before are joined."""
    count = max(1, min(GROUPS, len(rougher) // LEAST_GROUP))
    groups: list[NDArray[np.int64]] = []
    for group in np.array_split(np.argsort(rougher, kind="stable"), count):
        if groups and rougher[group].mean() < rougher[groups[-1]].mean() + LEAST_APART:
            groups[-1] = np.concatenate([groups[-1], group])
        else:
            groups.append(group)
    return groups


def _within(values: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return values [n, d] less the mean of those of the same part."""
    numbers, part = np.unique(parts, return_inverse=True)
    sums = np.zeros((len(numbers), values.shape[1]))
    np.add.at(sums, part, values)
    return values - (sums / np.bincount(part)[:, None])[part]
