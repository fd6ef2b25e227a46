"""Means over cases and seeds, and how two of them differ, with their errors.

The seed is the unit: values have a row for each, its replicates averaged (`by_seed`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from pipelines.measure import statistics
from pipelines.reporting import data

ALPHA = 0.05
"""A difference is significant where p is below it (section 2.7)."""

Z = 1.96
"""Of a normal distribution, two-sided 95 %."""

ROUNDING = 0.0005
"""Half a unit of the last digit that the paper prints."""

OWN_SEEDS = 3
"""From so many seeds on a loss has its own spread where two losses are compared."""

_Floats = npt.NDArray[np.float64]


class Margin(NamedTuple):
    """Between which limits two means of a metric are the same, and why."""

    low: float
    high: float
    reason: str


MARGINS: Mapping[str, Margin] = {
    metric: Margin(*row) for metric, row in data("margins").items()
}
"""By metric: of NLL and Brier limits of the ratio, of the others of the difference."""


def is_ratio(metric: str) -> bool:
    """Whether means of a metric are compared by their ratio: any NLL and Brier."""
    return metric.split("_")[0] in ("nll", "brier")


def margin_of(metric: str) -> Margin:
    """Return the margin of a metric or its column, "nll_published"; NaN without one."""
    return MARGINS.get(metric.split("_")[0], Margin(math.nan, math.nan, ""))


class Spread(NamedTuple):
    """What seeds of one loss differ by.

    Attributes:
        s: standard deviation over seeds of the mean over cases; NaN: not known.
        df: its degrees of freedom, seeds less losses; 0 where no loss has two seeds.
        relative: whether `s` is a part of the mean.
    """

    s: float
    df: int
    relative: bool = False

    def of(self, mean: float) -> float:
        """Return the standard deviation over seeds with this mean."""
        return self.s * mean if self.relative else self.s


def by_seed(values: npt.ArrayLike, seeds: Sequence[int]) -> _Floats:
    """Average rows of the same seed: (trainings, ...) to (seeds, ...), in order."""
    rows, seed_of_row = np.asarray(values, dtype=np.float64), np.asarray(seeds)
    if len(set(seeds)) == len(seeds):  # no replicates, as nearly always
        return rows
    return np.stack(
        [mean_of(rows[seed_of_row == seed], 0) for seed in dict.fromkeys(seeds)]
    )


def pooled(losses: Iterable[_Floats], relative: bool = False) -> Spread:
    """Pool the variance over seeds of several losses, (seeds, cases) each.

    `relative` pools the deviations as parts of each loss's own mean.
    """
    df, squares = 0, 0.0
    for values in losses:
        means = mean_of(values, axis=1)
        means = means[~np.isnan(means)]
        if len(means) > 1:
            mean = float(means.mean())
            unit = mean if relative and mean else 1.0
            df += len(means) - 1
            squares += float((((means - mean) / unit) ** 2).sum())
    return Spread(math.sqrt(squares / df) if df else math.nan, df, relative)


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
    case_error: float = math.nan


def estimate(values: npt.ArrayLike, spread: Spread | None = None) -> Estimate:
    """Estimate the mean of a measure over cases and seeds.

    Each case is averaged over seeds, and these means are bootstrapped over cases:
    SE_c and its interval. S seeds that differ by the standard deviation s add
    SE_s = s / sqrt(S):

        SE = sqrt(SE_c^2 + SE_s^2)
        ci = mean -+ sqrt((distance to the bootstrap's limit)^2 + (t SE_s)^2)

    with t the 97.5 % quantile of Student's distribution for the degrees of freedom of
    s. Where s is not known SE_s is left out.

    Args:
        values: (seeds, cases); NaN where undefined.
        spread: what seeds differ by; None: s is that of these alone.

    Returns:
        The estimate. `n` counts cases with a value for at least one seed,
        `n_undefined` the undefined values of all. Nothing defined: NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    cases = over_cases(mean_of(values, axis=0).tobytes())
    mean, between, extra = cases.mean, 0.0, 0.0
    spread = spread or pooled([values])
    trained = int((~np.isnan(mean_of(values, axis=1))).sum())
    if spread.df and trained:
        between = spread.of(mean) / math.sqrt(trained)
        extra = student(spread.df) * between
    return Estimate(
        mean=mean,
        standard_error=math.hypot(cases.standard_error, between),
        ci_low=mean - math.hypot(mean - cases.ci_low, extra),
        ci_high=mean + math.hypot(cases.ci_high - mean, extra),
        n=cases.n,
        seeds=len(values),
        n_undefined=int(np.isnan(values).sum()),
        case_error=cases.standard_error,
    )


def prediction_error(
    ours: Estimate, spread: Spread, published_se: float, same_images: bool
) -> float:
    """Compute the standard error of our mean less that of one more training.

    s sqrt(1 + 1 / S), S our seeds, s their spread. Where the paper measured other
    images, the errors over cases of both sides are added in squares; one that is not
    printed (NaN) is taken to be as large as ours. NaN where `spread` is not known.
    """
    error = spread.of(ours.mean) * math.sqrt(1 + 1 / ours.seeds)
    if same_images:
        return error
    theirs = ours.case_error if math.isnan(published_se) else published_se
    # One image has no standard error: the paper's alone is left.
    error_of_mean = 0.0 if math.isnan(ours.case_error) else ours.case_error
    return math.hypot(error, error_of_mean, theirs)


def prediction_limit(error: float, df: int) -> float:
    """Compute the limit to a published mean: t `prediction_error` + `ROUNDING`."""
    return student(df) * error + ROUNDING


@dataclass(frozen=True)
class Contrast:
    """How the means of two losses differ; see `contrast`.

    Attributes:
        mean: the difference, or the ratio.
        standard_error: over cases and seeds; of a ratio that of its logarithm.
        df: of Student's distribution; NaN where it is not known what seeds differ by:
            then nothing is decided.
        ci_low: lower end of the 95 % interval over cases and seeds; NaN as `df`.
        ci_high: upper end.
        n: cases defined for both.
    """

    mean: float
    standard_error: float
    df: float
    ci_low: float
    ci_high: float
    n: int
    ratio: bool

    def __str__(self) -> str:
        """Write it such as "ratio 0.351 (0.320 to 0.385)"."""
        word, form = ("ratio", ".3f") if self.ratio else ("difference", "+.4f")
        interval = f"{self.ci_low:{form}} to {self.ci_high:{form}}"
        if math.isnan(self.df):
            interval = "no interval: no loss has two seeds"
        return f"{word} {self.mean:{form}} ({interval})"

    def p_above(self, limit: float, below: bool = False) -> float:
        """Return p of "not above this limit", one-sided; `below`: of "not below"."""
        value = math.log(self.mean / limit) if self.ratio else self.mean - limit
        # Rounded, as the last bits differ between machines and might have a sign.
        off = round(value, 12)
        if not off:
            return 0.5
        z = off / self.standard_error if self.standard_error else math.inf * off
        return float(special.stdtr(self.df, z if below else -z))

    @property
    def p(self) -> float:
        """Return the two-sided p of no difference; 1 where there is none at all."""
        none = 1.0 if self.ratio else 0.0
        return 2 * min(self.p_above(none), self.p_above(none, below=True))

    def p_same(self, margin: Margin) -> float:
        """P of two one-sided tests (Schuirmann 1987): below `ALPHA`, it is inside."""
        return max(self.p_above(margin.low), self.p_above(margin.high, below=True))


def contrast(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    spreads: Sequence[Spread],
    ratio: bool = False,
) -> Contrast:
    """Compare the means of two losses on the same cases, by difference or `ratio`.

    The error over cases is that of the paired differences; of a ratio that of its
    logarithm, linear in the means: a / mean a - b / mean b. Those over seeds are added
    in squares, s / sqrt(S) for each loss. s is that of its own `OWN_SEEDS` seeds or
    more, as in Welch's test, since losses may differ in it; of fewer it is pooled. The
    degrees of freedom are Satterthwaite's:

        df = SE^4 / (SE_cases^4 / (n - 1) + sum of SE_loss^4 / df_loss)

    Where a pooled s is among those of two losses they depend on each other, and the sum
    is replaced by its bound, (sum of SE_loss^2 / sqrt(df_loss))^2.

    Args:
        a: (seeds, cases); NaN where undefined.
        b: the same of the other loss; it may have another number of seeds.
        spreads: what seeds differ by, pooled over losses: for a and for b. One alone:
            both are of the same trainings, and it is that of their effect.
        ratio: whether to compare by the ratio.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (a, b))
    by_case_a, by_case_b = (mean_of(values, axis=0) for values in (a, b))
    both = ~np.isnan(by_case_a) & ~np.isnan(by_case_b)
    by_case_a, by_case_b, n = by_case_a[both], by_case_b[both], int(both.sum())
    means = [
        float(values.mean()) if n else math.nan for values in (by_case_a, by_case_b)
    ]
    if n < 2 or (ratio and not min(means) > 0):
        mean = means[0] - means[1]
        return Contrast(math.nan if ratio else mean, *(math.nan,) * 4, n, ratio)
    units = means if ratio else [1.0, 1.0]
    parts = by_case_a / units[0] - by_case_b / units[1]
    effect = math.log(means[0] / means[1]) if ratio else float(parts.mean())
    error, df = float(parts.std(ddof=1)) / math.sqrt(n), float(n - 1)
    measured = [a, b]
    if len(spreads) == 1:
        measured, means, units = [effects(a, b, ratio)], [1.0], [1.0]
    terms, squares = _over_seeds(measured, spreads, means, units)
    squares += error**4 / df
    error = math.hypot(error, *terms)
    df = error**4 / squares if squares else df
    reach = student(df) * error
    ends = (effect, effect - reach, effect + reach)
    mean, low, high = map(math.exp, ends) if ratio else ends
    return Contrast(mean, error, df, low, high, n, ratio)


def effects(a: _Floats, b: _Floats, ratio: bool) -> _Floats:
    """Compare a with b in each seed, (seeds, 1), over the same cases."""
    sides = (np.where(np.isnan(a + b), np.nan, values) for values in (a, b))
    mean_a, mean_b = (mean_of(values, axis=1)[:, np.newaxis] for values in sides)
    return mean_a / mean_b if ratio else mean_a - mean_b


def _over_seeds(
    measured: Sequence[_Floats],
    spreads: Sequence[Spread],
    means: Sequence[float],
    units: Sequence[float],
) -> tuple[list[float], float]:
    """Compute errors over seeds, and their part of Satterthwaite's sum, or NaN."""
    own_spreads = [
        pooled([v], s.relative) for v, s in zip(measured, spreads, strict=True)
    ]
    used = [
        o if o.df >= OWN_SEEDS - 1 else s
        for o, s in zip(own_spreads, spreads, strict=True)
    ]
    if not all(spread.df for spread in used):
        return [], math.nan
    terms = [
        spread.of(mean) / unit / math.sqrt(len(values))
        for spread, mean, unit, values in zip(used, means, units, measured, strict=True)
    ]
    parts = [t**2 / math.sqrt(s.df) for t, s in zip(terms, used, strict=True)]
    alone = all(
        spread_used is mine for spread_used, mine in zip(used, own_spreads, strict=True)
    )
    return terms, math.hypot(*parts) ** 2 if alone else sum(parts) ** 2


@cache
def over_cases(values: bytes) -> statistics.ImageMean:
    """Bootstrap the mean over cases, once for all tables."""
    return statistics.bootstrap(np.frombuffer(values, dtype=np.float64))


def student(df: float) -> float:
    """Return the 97.5 % quantile of Student's t for `df` degrees of freedom."""
    return float(special.stdtrit(df, 0.975))


def pm(mean: float, error: float) -> str:
    """Write a mean and its standard error, such as "0.300 ± 0.078"."""
    if math.isnan(mean):
        return "undefined"
    return f"{mean:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")


def mean_of(values: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """Average what is defined; NaN where nothing is (numpy's nanmean warns)."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=axis)
    total = np.where(defined, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
