"""What is usual of good images, place by place: what is odd at one is not to hide behind what is usual at another.

Where images show something in one place, the logarithm of the relative error has a usual value and a usual width at
every place of the error map; a long image, cut into tiles, has them for each tile. Which tile it is, the network tells
by what it looks like: by the nearest of the tiles' mean patterns. Where images show a surface, all places are alike.
Middle and width are the median and half the distance between the quantiles of one deviation, so that a few odd images
among the good ones change neither.

The pieces of evidence depend on how rough a surface is: of good solar cells, those of many crystals show more of
everything than those of one, and a crack in one of these would go unseen. So each piece is compared with what is usual
of images as smooth. Of rougher ones than most, no more is excused: what is rougher than usual may be so because it is
damaged. numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipelines.models.masks import Floats
from pipelines.models.rows import spread

PATTERN = 8  # fields a side by which a part of an image is recognised
# For a map of its own a part must be shown by so many images, and by this share of those that show the commonest part:
# of a few odd images, odd things would be usual. Rarer parts take the map of the part that they look most like.
LEAST_SHOWN = 8
LEAST_SHARE = 0.25
LOOKED_AT, MOST_LOOKED_AT = 256, 1024  # images of each part, and of all
ONE_DEVIATION = 0.16, 0.5, 0.84  # the quantiles of a normal distribution at -1, 0 and 1
BLUR = 1.0  # pixels of the error map
# How much of the variance over all places every place has at least, and how many images' worth of it is mixed in.
LEAST_VARIANCE = 0.05
SHRINKAGE = 8
LEAST_WIDTH = 0.05  # of a logarithm: where images are all the same, 5 % more error is a deviation
# Of evidence, the least spread that counts, as a share of the mean.
LEAST_SPREAD = 0.02
# From which quantile of the good images' roughness to which their evidence is taken to follow it.
SMOOTH = 0.05, 0.5
# The share of evidence's variance that roughness must explain for half of its slope to count, and how much more it must
# be of few images, times their number, by chance alone.
EXPLAINED, BY_CHANCE = 0.02, 2.0


@dataclass(frozen=True)
class Usual:
    """`patterns` [P, 64] tells the parts of images apart; `middles` and `widths` [P, h, w] are of the logarithm of the
    relative error of each. Of each piece of evidence, `slopes` say how it follows the roughness of images between
    `smoothest` and `middling` ones, `means` and `spreads` what is usual of the rest. `surface`: the images show one, so
    that paths across it count, too.
    """

    patterns: Floats
    middles: Floats
    widths: Floats
    smoothest: float
    middling: float
    slopes: Sequence[float]
    means: Sequence[float]
    spreads: Sequence[float]
    surface: bool

    @classmethod
    def of_maps(cls, patterns: Floats, middles: Floats, widths: Floats, *, pieces: int, surface: bool) -> Usual:
        """Return one by which the evidence, of so many pieces, is told as it is."""
        nothing, one = [0.0] * pieces, [1.0] * pieces
        return cls(patterns, middles, widths, 0.0, 0.0, nothing, nothing, one, surface)

    def with_evidence(self, found: Floats, roughness: Floats, parts: NDArray[np.int64]) -> Usual:
        """Return the same with what is usual of the evidence [n, pieces] of good images of this roughness [n]; `parts`
        [n] says which part of its image each shows.
        """
        smoothest, middling = (float(one) for one in np.quantile(roughness, SMOOTH))
        beyond = np.clip(roughness, smoothest, middling) - middling
        slopes = usual_slopes(found, beyond, parts)
        means, spreads = usual_evidence(found - np.outer(beyond, slopes))
        return replace(
            self, smoothest=smoothest, middling=middling, slopes=slopes.tolist(), means=means, spreads=spreads
        )


def shown_places(images: Any, aligned: bool) -> NDArray[np.int64]:
    """Return which part of its image each shows, by a number; 0 where all show the whole, or a surface."""
    shown = getattr(images, "places", None)
    return np.zeros(len(images), np.int64) if not aligned or shown is None else shown


def shown_parts(images: Any, aligned: bool) -> list[NDArray[np.int64]]:
    """Return which images to look at, a list of places for each part that they show; one for all of a surface."""
    everything = np.arange(len(images))
    if not aligned or getattr(images, "places", None) is None:
        parts = [everything]
    else:
        shown = shown_places(images, aligned)
        numbers, counts = np.unique(shown, return_counts=True)
        most = numbers[np.argsort(-counts, kind="stable")][: MOST_LOOKED_AT // LEAST_SHOWN]
        parts = [np.flatnonzero(shown == number) for number in most]
        least = max(LEAST_SHOWN, LEAST_SHARE * counts.max())
        parts = [part for part in parts if len(part) >= least] or [everything]
    share = min(LOOKED_AT, MOST_LOOKED_AT // len(parts))
    return [part[spread(len(part), share)] for part in parts]


def usual_pattern(images: NDArray[np.uint8]) -> Floats:
    """Return the mean pattern [64] of images [n, S, S, 3] uint8: grey in 8 x 8 fields, 0 to 1, less its mean."""
    side = images.shape[1] // PATTERN
    grey = images.mean(axis=(0, 3), dtype=np.float32) / 255
    fields = grey.reshape(PATTERN, side, PATTERN, side).mean(axis=(1, 3))
    return (fields - fields.mean()).ravel()


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


def usual_evidence(found: NDArray[np.float32]) -> tuple[list[float], list[float]]:
    """Return mean and spread of each piece of evidence of good images, from [n, pieces]."""
    means, deviations = found.mean(axis=0, dtype=np.float64), found.std(axis=0, dtype=np.float64)
    return means.tolist(), np.maximum(deviations, LEAST_SPREAD * np.abs(means) + 1e-6).tolist()


def usual_slopes(found: Floats, beyond: Floats, parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return by how much each piece of the evidence [n, pieces] grows with `beyond` [n], the more of it counting, the
    more of the variance it explains; how parts differ from each other tells nothing of it.
    """
    differs, smoother = (_within(one.astype(np.float64), parts) for one in (found, beyond[:, None]))
    varies = np.square(smoother).sum()
    if varies < 1e-12:
        return np.zeros(found.shape[1])
    slopes = (smoother * differs).sum(axis=0) / varies
    explained = np.square(slopes) * varies / np.maximum(np.square(differs).sum(axis=0), 1e-12)
    return slopes * explained / (explained + EXPLAINED + BY_CHANCE / len(found))


def _within(values: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return values [n, d] less the mean of those of the same part."""
    numbers, part = np.unique(parts, return_inverse=True)
    sums = np.zeros((len(numbers), values.shape[1]))
    np.add.at(sums, part, values)
    return values - (sums / np.bincount(part)[:, None])[part]
