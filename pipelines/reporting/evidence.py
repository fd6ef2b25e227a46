"""What claims are decided from: two losses compared, in our runs of one class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipelines.measure import metrics, statistics
from pipelines.reporting import estimates
from pipelines.reporting.estimates import Contrast, Estimate, Spread, contrast, mean_of
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Variant


@dataclass(frozen=True)
class Pair:
    """Two variants on the same test cases and seeds: those that both have.

    Attributes:
        metric: the paper's word.
        seeds: number of seeds that both have; of the one with fewer where none is.
        effect: what these two are of: the ratio of NLL and Brier, else the difference.
        difference: mean of a - b.
        p_rank_sum: of the paper's own test; it decides nothing.
        p_holm: `p_seeds`, corrected for the number of pairs that are compared at once.
    """

    a: Variant
    b: Variant
    metric: str
    seeds: int
    effect: Contrast
    difference: Contrast
    p_rank_sum: float
    p_holm: float

    @property
    def p_seeds(self) -> float:
        """Return p of no difference over seeds and cases (Student's t, two-sided)."""
        return self.effect.p

    @property
    def p_same(self) -> float:
        """Return p of two one-sided tests against the margin; NaN without one."""
        return self.effect.p_same(estimates.margin_of(self.metric))

    @property
    def columns(self) -> dict[str, object]:
        """Return its columns in `claims.csv`."""
        names = ("seeds", "p_seeds", "p_holm", "p_same", "p_rank_sum")
        of_difference = ("ci_low", "ci_high", "n")
        return {
            **{name: getattr(self, name) for name in names},
            **{name: getattr(self.difference, name) for name in of_difference},
            "a": self.a.label,
            "b": self.b.label,
            # Rounded, as the last bits differ between machines and might have a sign.
            "difference": round(self.difference.mean, 12) + 0.0,
        }


@dataclass(frozen=True, eq=False)
class Runs:
    """Our runs of one data set at one preset, as evidence on one class.

    Attributes:
        name: the class; "" for the only one.
        corrected: take the corrected NLL and Brier, not the published forms.
    """

    study: Study
    name: str = ""
    corrected: bool = False

    @property
    def target(self) -> str:
        """The class."""
        return self.name or self.study.targets[0]

    def has(self, variant: Variant) -> bool:
        """Whether a variant was run on this class."""
        known = self.target in self.study.targets
        return known and self.study.same_training(variant) is not None

    def means(self, variants: Sequence[Variant], metric: str) -> dict[Variant, float]:
        """Return the means of the variants that were run."""
        at, known = (self.target, self.column(metric)), filter(self.has, variants)
        values = {variant: self.study.measures(variant, *at) for variant in known}
        return {
            variant: float(mean_of(mean_of(v, 0), 0)) for variant, v in values.items()
        }

    def pair(self, a: Variant, b: Variant, metric: str) -> Pair:
        """Compare two variants that were run, over the cases defined for both."""
        column = self.column(metric)
        values_a, values_b = self.study.paired(a, b, self.target, column)
        difference, effect = (
            contrast(values_a, values_b, self._spreads(a, b, column, ratio), ratio)
            for ratio in (False, estimates.is_ratio(metric))
        )
        means = [mean_of(values, axis=0) for values in (values_a, values_b)]
        both = ~np.isnan(means).any(axis=0)
        ranks = statistics.rank_sum(*(values[both] for values in means))
        fewer = min(len(values_a), len(values_b))
        return Pair(a, b, metric, fewer, effect, difference, ranks.p, effect.p)

    def _spreads(
        self, a: Variant, b: Variant, column: str, ratio: bool
    ) -> list[Spread]:
        """Return a spread for each; of the same trainings one alone, of the effect."""
        of = self.study, self.target, column
        if replace(a, threshold=None) == replace(b, threshold=None):
            return [training_spread(*of, (a.threshold, b.threshold), a.method)]
        if a.trained == b.trained:
            return [method_spread(*of, a.method or b.method, ratio)]
        return [training_spread(*of, (one.threshold,), one.method) for one in (a, b)]

    def column(self, metric: str) -> str:
        """Return the column of `cases.csv` for the paper's word of a metric."""
        return metric if self.corrected else metrics.PAPER_COLUMN.get(metric, metric)


def estimated(study: Study, variant: Variant, target: str, column: str) -> Estimate:
    """Mean of a variant, the spread being that of all losses; see `training_spread`."""
    at = (variant.threshold,)
    spread = training_spread(study, target, column, at, variant.method)
    return estimates.estimate(study.measures(variant, target, column), spread)


@lru_cache(maxsize=4096)
def training_spread(
    study: Study,
    target: str,
    column: str,
    at: tuple[float | None, ...] = (None,),
    method: str = "",
) -> Spread:
    """Pool the spread over seeds of one loss over the paper's losses in a study.

    `column` as in `Study.measures`; `at` a softmax threshold, None for argmax
    (of two of them it is that of the difference); `method` that of the losses, "" for
    those as they were trained.
    """
    values = (
        [study.measures(replace(variant, threshold=one), target, column) for one in at]
        for variant in study.runs
        if variant.method == method and variant.is_of_the_family
    )
    spread_of = (v[0] if len(v) == 1 else v[0] - v[1] for v in values)
    return estimates.pooled(spread_of, estimates.is_ratio(column))


@lru_cache(maxsize=4096)
def method_spread(
    study: Study, target: str, column: str, method: str, ratio: bool
) -> Spread:
    """Pool the spread over seeds of the effect of a method over losses.

    The effect is what the scaled form of a training differs by from the training, in a
    `column` of `cases.csv`: their `ratio`, else the difference.
    """
    pairs = (
        (replace(variant, method=method), variant)
        for variant in study.runs
        if not variant.method and variant.is_of_the_family
    )
    values = (
        study.paired(*two, target, column) for two in pairs if two[0] in study.runs
    )
    return estimates.pooled([estimates.effects(*v, ratio) for v in values], ratio)
