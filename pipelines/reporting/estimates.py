"""A mean over cases and seeds with its standard error and interval."""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import special

from pipelines.measure import statistics

__all__ = [
    "Estimate", "Z", "compare", "estimate", "mean_of", "over_cases", "pm", "ratio",
    "student",
]  # fmt: skip

Z = 1.96
"""Of a normal distribution, two-sided 95 %."""


@dataclass(frozen=True)
class Estimate:
    """A mean over cases and seeds; see `estimate`."""

    mean: float
    standard_error: float
    ci_low: float
    ci_high: float
    n: int
    seeds: int
    n_undefined: int


def estimate(values: npt.ArrayLike) -> Estimate:
    """Estimate the mean of a measure over cases and seeds.

    Each case is averaged over seeds, and these means are bootstrapped over cases: SE_c
    and its interval. With S > 1 seeds, s the standard deviation (S - 1) of the seeds'
    own means, the seeds add SE_s = s / sqrt(S):

        SE = sqrt(SE_c^2 + SE_s^2)
        ci = mean -+ sqrt((distance to the bootstrap's limit)^2 + (t SE_s)^2)

    with t the 97.5 % quantile of Student's distribution for S - 1 degrees of freedom:
    4.3 for three seeds, whose spread is known that badly.

    Args:
        values: (seeds, cases); NaN where undefined.

    Returns:
        The estimate. `n` counts cases with a value for at least one seed,
        `n_undefined` the undefined values of all seeds. Nothing defined: NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    cases = over_cases(mean_of(values, axis=0).tobytes())
    seed_means = mean_of(values, axis=1)
    seed_means = seed_means[~np.isnan(seed_means)]
    n_seeds, seed_error, extra = len(values), 0.0, 0.0
    if len(seed_means) > 1:
        seed_error = float(seed_means.std(ddof=1)) / math.sqrt(len(seed_means))
        extra = student(len(seed_means) - 1) * seed_error
    mean = cases.mean
    return Estimate(
        mean=mean,
        standard_error=math.hypot(cases.standard_error, seed_error),
        ci_low=mean - math.hypot(mean - cases.ci_low, extra),
        ci_high=mean + math.hypot(cases.ci_high - mean, extra),
        n=cases.n,
        seeds=n_seeds,
        n_undefined=int(np.isnan(values).sum()),
    )


def ratio(a: npt.ArrayLike, b: npt.ArrayLike) -> Estimate:
    """Estimate the ratio of two means over the same cases and seeds, paired.

    Of the logarithm of the ratio, linear in the means: log(mean a / mean b) is the mean
    of itself + a / mean a - b / mean b, and that is what `estimate` is put to.

    Args:
        a: (seeds, cases), positive mean; NaN where undefined.
        b: the same of the other.

    Returns:
        The estimate of the ratio; its `standard_error` is that of the logarithm.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (a, b))
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b = (np.where(both, values, np.nan) for values in (a, b))
    mean_a, mean_b = (
        float(mean_of(mean_of(values, axis=0), axis=0)) for values in (a, b)
    )
    found = estimate(math.log(mean_a / mean_b) + a / mean_a - b / mean_b)
    return replace(
        found,
        mean=math.exp(found.mean),
        ci_low=math.exp(found.ci_low),
        ci_high=math.exp(found.ci_high),
    )


@cache
def over_cases(values: bytes) -> statistics.Estimate:
    """Bootstrap once what several tables show."""
    return statistics.bootstrap(np.frombuffer(values, dtype=np.float64))


def student(df: int) -> float:
    """The 97.5 % quantile of Student's distribution for `df` degrees of freedom."""
    return float(special.stdtrit(df, 0.975))


def compare(test: str, a: npt.ArrayLike, b: npt.ArrayLike) -> statistics.Comparison:
    """Test two samples once, whatever tables show it.

    Args:
        test: "rank_sum" or "signed_rank": a function of `statistics`.
        a: one value per image, (n,).
        b: the same of the other.
    """
    samples = (np.asarray(values, dtype=np.float64).tobytes() for values in (a, b))
    return _compared(test, *samples)


@cache
def _compared(test: str, a: bytes, b: bytes) -> statistics.Comparison:
    found: statistics.Comparison = getattr(statistics, test)(
        np.frombuffer(a, dtype=np.float64), np.frombuffer(b, dtype=np.float64)
    )
    return found


def pm(mean: float, error: float, digits: int = 3) -> str:
    """A mean and its standard error in print, such as "0.300 ± 0.078"."""
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.{digits}f}" + (
        "" if math.isnan(error) else f" ± {error:.{digits}f}"
    )


def mean_of(values: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Mean over what is defined; NaN where nothing is (numpy's nanmean warns)."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
