"""Tests and intervals over images: rank-sum as published, and what should stand by it.

Every function takes one value per image. An undefined value (NaN: see
`metrics.case_metrics`) is left out. Where there are several seeds, average
each image over them first: two trainings are not two patients.
"""

import gc
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special, stats

_Floats = npt.NDArray[np.float64]

# Up to here the exact distribution of the signed-rank statistic is used, as in scipy.
_EXACT_PAIRS = 50

# Means of resamples are rounded to 12 digits: what is closer is the same.
_EQUAL = 1e-12

# Of more images nothing is drawn: memory would grow with their number, 0.3 MB each.
_DRAWN = 250


class Comparison(NamedTuple):
    """The outcome of a test of two samples.

    Attributes:
        statistic: rank-sum: z, positive where the first sample is higher; signed-rank:
            the smaller of the two rank sums. NaN where there is nothing to compare.
        p: two-sided p value; NaN where there is nothing to compare.
    """

    statistic: float
    p: float


class ImageMean(NamedTuple):
    """A mean over images and how well it is known.

    Attributes:
        mean: mean of the values used; NaN where there is none.
        standard_error: bootstrap standard error of the mean; NaN below two values.
        ci_low: lower end of the interval; NaN below two values.
        ci_high: upper end of the interval; NaN below two values.
        n: values used; those that are NaN are left out.
    """

    mean: float
    standard_error: float
    ci_low: float
    ci_high: float
    n: int


def rank_sum(a: npt.ArrayLike, b: npt.ArrayLike) -> Comparison:
    """Compare two samples as the paper does (section 2.7): Wilcoxon rank-sum.

    Two independent samples, two-sided, normal approximation without correction for
    continuity or ties (`scipy.stats.ranksums`). 20 values against 20, fully separated,
    give p = 6.3e-8: the paper's 6e-8 for DRIVE. The images are in fact the same in
    both samples, which `signed_rank` makes use of.

    Returns:
        The comparison of a, (n,), and b, (m,). Equal samples: z = 0, p = 1. A sample
        without a defined value: z and p are NaN.

    Raises:
        ValueError: not one-dimensional, or infinite values.
    """
    a, b = _values("a", a), _values("b", b)
    used_a, used_b = a[~np.isnan(a)], b[~np.isnan(b)]
    if not used_a.size or not used_b.size:
        return Comparison(np.nan, np.nan)
    return Comparison(*map(float, stats.ranksums(used_a, used_b)))


def signed_rank(a: npt.ArrayLike, b: npt.ArrayLike) -> Comparison:
    """Compare two models on the same images: Wilcoxon's paired signed-rank test.

    Two-sided (`scipy.stats.wilcoxon`). Differences of 0 are left out (Wilcoxon's own
    rule). The distribution is exact up to 50 differences that are all distinct in size;
    else the normal approximation with correction for ties, not for continuity.

    Returns:
        The comparison of a and b, (n,), in the same order. All differences 0: statistic
        0, p = 1. No pair with both values defined: statistic and p are NaN.

    Raises:
        ValueError: not one-dimensional, unequal lengths, or infinite values.
    """
    a, b = _values("a", a), _values("b", b)
    if a.shape != b.shape:
        raise ValueError(
            f"b: expected {a.size} values, paired with a, received {b.size}."
        )
    difference = a - b
    difference = difference[~np.isnan(difference)]
    if not difference.size:
        return Comparison(np.nan, np.nan)
    difference = difference[difference != 0]
    n = difference.size
    if not n:
        return Comparison(0.0, 1.0)
    exact = n <= _EXACT_PAIRS and np.unique(np.abs(difference)).size == n
    method = "exact" if exact else "asymptotic"
    return Comparison(*map(float, stats.wilcoxon(difference, method=method)))


def holm(p_values: npt.ArrayLike) -> _Floats:
    """Adjust p values for their number, by Holm's step-down method.

    Args:
        p_values: p values of one family of tests, (n,), in [0, 1]; NaN is a test that
            could not be made.

    Returns:
        Adjusted p values, (n,), in [0, 1]. NaN stays NaN and is not counted in the
        family. An empty family gives an empty array.

    Raises:
        ValueError: not one-dimensional, or values outside [0, 1].
    """
    # Imported here: it brings pandas, half a second that no other function needs.
    from statsmodels.stats.multitest import multipletests

    p = _values("p_values", p_values)
    defined = ~np.isnan(p)
    if np.any((p[defined] < 0) | (p[defined] > 1)):
        raise ValueError(f"p_values: expected values in [0, 1], received {p}.")
    adjusted = np.full(p.shape, np.nan)
    if defined.any():
        # multipletests collects garbage each time: none of what is there now.
        gc.freeze()
        try:
            adjusted[defined] = multipletests(p[defined], method="holm")[1]
        finally:
            gc.unfreeze()
    return adjusted


def bootstrap(
    values: npt.ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> ImageMean:
    """Estimate the mean over images, its standard error and an interval.

    Images are drawn with replacement, as `scipy.stats.bootstrap` draws them; its
    numbers come out, without drawing anew for each measure. The interval is the
    bias-corrected and accelerated one (BCa), which covers a skewed measure such as NLL
    better than percentiles do. The paper does not name its kind. Of more than 250
    images nothing is drawn; the ends come from three moments: see `_abc`.

    Args:
        values: one value per image, (n,).
        level: coverage aimed at, in (0, 1).
        n_resamples: resamples to draw.
        seed: seed of the draws; the same seed and values give the same result.

    Returns:
        The estimate. No defined value: all NaN. One: the mean alone, since one image
        says nothing about the spread. All equal: standard error 0, interval of width 0.

    Raises:
        ValueError: not one-dimensional, or infinite values.
    """
    values = _values("values", values)
    used = values[~np.isnan(values)]
    n, nan = used.size, float("nan")
    mean = float(used.mean()) if n else nan
    if n < 2:
        return ImageMean(mean, nan, nan, nan, n)
    scale = float(np.abs(used).max())
    # Equal but for the last bits: BCa would divide noise by noise.
    if np.ptp(used) <= _EQUAL * scale:
        return ImageMean(mean, 0.0, mean, mean, n)
    if n > _DRAWN:
        return ImageMean(mean, *_abc(used, (1 - level) / 2), n)
    # Not by BLAS, whose threads wait for one another on so little.
    drawn = np.einsum("i,ij->j", used, _shares(n, n_resamples, seed))
    means = np.sort(_rounded(drawn, scale))
    places = (n_resamples - 1) * _bca(used, means, (1 - level) / 2, scale)
    low, high = map(float, np.interp(places, np.arange(n_resamples), means))
    return ImageMean(mean, float(means.std(ddof=1)), low, high, n)


@lru_cache(maxsize=8)
def _shares(n: int, n_resamples: int, seed: int) -> _Floats:
    """Draw the share of each of n images in each resample, (n, n_resamples)."""
    # The draws of `scipy.stats.bootstrap`; all measures of the same images share them.
    drawn = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    drawn += n * np.arange(n_resamples)[:, np.newaxis]
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * n)
    return np.ascontiguousarray(counts.reshape(n_resamples, n).T / n)


def _bca(used: _Floats, means: _Floats, tail: float, scale: float) -> _Floats:
    """Compute the interval's ends, as shares of the sorted resampled means: (2,).

    Efron and Tibshirani, An Introduction to the Bootstrap, Eqs. 14.10, 14.14 and 14.15.
    """
    mean = _rounded(used.mean(), scale)
    below = sum(means.searchsorted(mean, side) for side in ("left", "right"))
    bias = special.ndtri(below / (2 * means.size))
    without = _rounded((used.sum() - used) / (used.size - 1), scale)
    spread = without.mean() - without
    skew = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    ends = bias + special.ndtri([tail, 1 - tail])
    return np.asarray(special.ndtr(bias + ends / (1 - skew * ends)))


def _abc(used: _Floats, tail: float) -> tuple[float, float, float]:
    """Compute standard error and BCa interval of infinitely many resamples.

    With a = skewness / (6 sqrt(n)), which for a mean is both BCa's acceleration and
    its bias, w = a + (a + z) / (1 - a (a + z)) for each quantile z, and the resampled
    means' quantile by Cornish and Fisher:

        end = mean + SE (w + a (w^2 - 1))

    The error is of the order 1 / n (DiCiccio and Efron 1992: ABC). From BCa with
    20,000 resamples the ends differed by at most 0.02 standard errors for lognormal
    values of sigma 1 and 0.11 of sigma 2 (n = 251), but by 0.3 for three ones among
    300 values.
    """
    spread = used - used.mean()
    deviation = float(spread.std())
    error = deviation / np.sqrt(used.size)
    a = float(((spread / deviation) ** 3).mean()) / (6 * np.sqrt(used.size))
    shifted = a + special.ndtri([tail, 1 - tail])
    w = a + shifted / (1 - a * shifted)
    ends = used.mean() + error * (w + a * (w**2 - 1))
    # No mean of resamples lies outside the values.
    low, high = map(float, np.clip(ends, used.min(), used.max()))
    return float(error), low, high


def _rounded(means: npt.ArrayLike, scale: float) -> _Floats:
    """Round means of resamples to 12 digits of `scale`."""
    # BCa counts the resamples below the sample's mean. A resample of the same values in
    # another order ties with it, but its sum may differ in the last bit, and the bit
    # depends on the processor. With few images there are many: 4 % of them with five.
    return np.asarray(np.round(np.asarray(means) / scale, 12) * scale)


def _values(name: str, values: npt.ArrayLike) -> _Floats:
    """Return values as float64, (n,), after checking them."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(
            f"{name}: expected one value per image, (n,), received shape {array.shape}."
        )
    if np.isinf(array).any():
        raise ValueError(f"{name}: expected finite values or NaN, received inf.")
    return array
