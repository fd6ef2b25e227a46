"""What claims are decided from: our runs, or what the paper's own tables print."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from data_io.errors import InputError
from pipelines.measure import histograms, metrics, statistics
from pipelines.reporting import estimates
from pipelines.reporting.estimates import Contrast, Estimate, Spread, contrast, mean_of
from pipelines.reporting.frame import Study
from pipelines.reporting.published import STANDARD_GAMMA, Paper, Variant, each_cell

__all__ = [
    "EXTREMES", "THRESHOLDS", "Figure", "Pair", "Printed", "Quantity", "Runs",
    "estimated", "training_spread",
]  # fmt: skip

_Floats = npt.NDArray[np.float64]
_QUANTITY = re.compile(
    r"(?P<loss>.+?)(?: g=(?P<gamma>[\d.]+))?"
    r"(?: \+ (?P<method>\w+))?(?:@(?P<at>[\d.]+))?"
)
EXTREMES = "extremes"
"""A measure of confidence: the share of voxels with p < 0.05 or p >= 0.95."""

THRESHOLDS = [round(float(one), 9) for one in histograms.THRESHOLDS]
"""Softmax thresholds that are measured."""


@dataclass(frozen=True)
class Quantity:
    """A trained variant, as it is (argmax) or at one of `histograms.THRESHOLDS`."""

    variant: Variant
    threshold: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "DSC", "DSC++ g=2.5", "DSC++@0.8" or "DSC + temperature".

        Raises:
            InputError: written otherwise, or a threshold that is not measured.
        """
        found = _QUANTITY.fullmatch(text)
        threshold = float(found["at"]) if found and found["at"] else None
        if found is None or (threshold is not None and threshold not in THRESHOLDS):
            raise InputError(
                f"{text!r}: expected a loss such as DSC, DSC++ g=2.5 or DSC++@0.8 "
                "(thresholds 0.05 to 0.95 in steps of 0.05); correct claims.csv"
            )
        variant = Variant.standard(
            found["loss"], float(found["gamma"] or STANDARD_GAMMA)
        )
        return cls(replace(variant, method=found["method"] or ""), threshold)

    @property
    def label(self) -> str:
        """As `parse` reads it."""
        at = "" if self.threshold is None else f"@{self.threshold:g}"
        return self.variant.label + at


@dataclass(frozen=True)
class Pair:
    """Two quantities on the same test cases and seeds: those that both have.

    Attributes:
        metric: the paper's word.
        seeds: number of seeds that both have; of the one with fewer where none is.
        effect: what these two are of: the ratio of NLL and Brier, else the difference.
        difference: mean of a - b.
        p_rank_sum: of the paper's own test; it decides nothing.
        p_holm: `p_seeds`, corrected for the number of pairs that are compared at once.
    """

    a: Quantity
    b: Quantity
    metric: str
    seeds: int
    effect: Contrast
    difference: Contrast
    p_rank_sum: float
    p_holm: float

    @property
    def p_seeds(self) -> float:
        """Of no difference over seeds and cases (Student's t, two-sided)."""
        return self.effect.p

    @property
    def p_same(self) -> float:
        """Of two one-sided tests against the metric's margin; NaN without one."""
        margin = estimates.MARGINS.get(self.metric)
        return self.effect.p_same(margin) if margin else math.nan

    @property
    def columns(self) -> dict[str, object]:
        """Its columns in `claims.csv`."""
        own = ("seeds", "p_seeds", "p_holm", "p_same", "p_rank_sum")
        of_difference = ("ci_low", "ci_high", "n")
        return {
            **{name: getattr(self, name) for name in own},
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

    def has(self, quantity: Quantity) -> bool:
        """Whether it was run."""
        known = self.target in self.study.targets
        return known and self.study.standing_in(quantity.variant) is not None

    def estimate(self, quantity: Quantity, metric: str) -> Estimate:
        """Mean over cases and seeds, as in the tables."""
        variant, at = self._variant(quantity), quantity.threshold
        return estimated(self.study, variant, self.target, self._column(metric), at)

    def means(
        self, quantities: Sequence[Quantity], metric: str
    ) -> dict[Quantity, float]:
        """Means of those that were run."""
        each = {q: self._values(q, metric) for q in quantities if self.has(q)}
        return {q: float(mean_of(mean_of(v, 0), 0)) for q, v in each.items()}

    def pair(self, a: Quantity, b: Quantity, metric: str) -> Pair:
        """Compare two quantities that were run, over the cases defined for both."""
        rows = self.study.shared(*(self._variant(one) for one in (a, b)))
        one, other = map(self._values, (a, b), (metric, metric), rows)
        difference, effect = (
            contrast(one, other, self._spreads(a, b, metric, ratio), ratio)
            for ratio in (False, estimates.is_ratio(metric))
        )
        means = [mean_of(values, axis=0) for values in (one, other)]
        both = ~np.isnan(means).any(axis=0)
        ranks = statistics.rank_sum(*(values[both] for values in means))
        fewer = min(len(one), len(other))
        return Pair(a, b, metric, fewer, effect, difference, ranks.p, effect.p)

    def spread(self, quantity: Quantity, metric: str) -> Spread:
        """What two seeds of one loss differ by, pooled over the losses."""
        return self._spread(metric, quantity.variant.method, quantity.threshold)

    def _spread(self, metric: str, method: str, *at: float | None) -> Spread:
        column = self._column(metric)
        return training_spread(self.study, self.target, column, at, method)

    def _spreads(
        self, a: Quantity, b: Quantity, metric: str, ratio: bool
    ) -> list[Spread]:
        """That of each; one alone, of the effect, for two of the same trainings."""
        one, other = a.variant, b.variant
        if one == other:
            return [self._spread(metric, one.method, a.threshold, b.threshold)]
        if replace(one, method="") == replace(other, method=""):
            column, method = self._column(metric), one.method or other.method
            return [method_spread(self.study, self.target, column, method, ratio)]
        return [self.spread(a, metric), self.spread(b, metric)]

    def _variant(self, quantity: Quantity) -> Variant:
        variant = self.study.standing_in(quantity.variant)
        if variant is None:
            raise KeyError(quantity.label)
        return variant

    def _column(self, metric: str) -> str:
        return metric if self.corrected else metrics.PAPER_COLUMN.get(metric, metric)

    def _values(
        self, quantity: Quantity, metric: str, rows: Sequence[int] | None = None
    ) -> _Floats:
        """One value a seed and case, (seeds, cases); of these trainings alone."""
        variant, at = self._variant(quantity), quantity.threshold
        column = self._column(metric)
        return _measured(self.study, variant, self.target, column, at, rows)


def estimated(
    study: Study, variant: Variant, target: str, column: str, at: float | None = None
) -> Estimate:
    """Mean of a variant, the spread being that of all losses; see `training_spread`."""
    spread = training_spread(study, target, column, (at,), variant.method)
    found = _measured(study, variant, target, column, at)
    return estimates.estimate(found, spread)


@lru_cache(maxsize=4096)
def training_spread(
    study: Study,
    target: str,
    column: str,
    at: tuple[float | None, ...] = (None,),
    method: str = "",
) -> Spread:
    """What two seeds of one loss differ by, pooled over the losses of a study.

    `column` is of `cases.csv`, or `EXTREMES`; `at` a softmax threshold, None for argmax
    (of two of them it is that of the difference); `method` that of the losses, "" for
    those as they were trained.
    """
    each = (
        [_measured(study, variant, target, column, one) for one in at]
        for variant in study.runs
        if variant.method == method
    )
    found = (v[0] if len(v) == 1 else v[0] - v[1] for v in each)
    return estimates.pooled(found, estimates.is_ratio(column))


@lru_cache(maxsize=4096)
def method_spread(
    study: Study, target: str, column: str, method: str, ratio: bool
) -> Spread:
    """What the effect of a method differs by between seeds, pooled over losses.

    The effect is what the scaled form of a training differs by from the training, in a
    `column` of `cases.csv`: their `ratio`, else the difference.
    """
    found = []
    for plain in (variant for variant in study.runs if not variant.method):
        scaled = replace(plain, method=method)
        if scaled in study.runs:
            rows = study.shared(plain, scaled)
            before, after = (
                study.measures(one, target, column, own)
                for one, own in zip((plain, scaled), rows, strict=True)
            )
            found.append(estimates.effects(after, before, ratio))
    return estimates.pooled(found, ratio)


def _measured(
    study: Study,
    variant: Variant,
    target: str,
    column: str,
    at: float | None = None,
    rows: Sequence[int] | None = None,
) -> _Floats:
    """A column of `cases.csv`, `EXTREMES` or an overlap measure, (seeds, cases)."""
    if column == EXTREMES:
        return study.by_seed(variant, _extremes(study, variant, target), rows)
    if at is None:
        return study.measures(variant, target, column, rows)
    each = _at_thresholds(study, variant, target)[column]
    return study.by_seed(variant, each[:, :, THRESHOLDS.index(at)], rows)


@lru_cache(maxsize=256)
def _at_thresholds(study: Study, variant: Variant, target: str) -> dict[str, _Floats]:
    """Overlap measures at `THRESHOLDS`, each (trainings, cases, thresholds)."""
    counts = study.counts(variant, target)
    return histograms.threshold_metrics(counts, edges=study.edges)


@lru_cache(maxsize=256)
def _extremes(study: Study, variant: Variant, target: str) -> _Floats:
    """`EXTREMES` of each training and case, (trainings, cases), from histograms."""
    by_bin, low = study.counts(variant, target).sum(axis=2), study.edges[:-1]
    between = (low >= THRESHOLDS[0]) & (low < THRESHOLDS[-1])
    shares: _Floats = by_bin[..., ~between].sum(axis=-1) / by_bin.sum(axis=-1)
    return shares


class Figure(NamedTuple):
    """A printed mean and its standard error; NaN where none is printed."""

    mean: float
    standard_error: float


class Printed:
    """The paper's own tables and thresholds."""

    def __init__(self, paper: Paper) -> None:
        self._values: dict[tuple[str, str, Quantity, str], Figure] = {}
        for cell in each_cell(paper.cells):
            key = (cell.dataset, cell.target, Quantity(cell.variant), cell.metric)
            self._values.setdefault(key, Figure(cell.value, cell.judged_error))
        for row in paper.thresholds:
            quantity = Quantity.parse(f"{row['loss']}@{row['threshold']}")
            key = (row["dataset"], "", quantity, row["metric"])
            self._values[key] = Figure(float(row["value"]), float("nan"))

    def figures(
        self, dataset: str, target: str, quantities: Sequence[Quantity], metric: str
    ) -> dict[Quantity, Figure]:
        """Those that are printed; with two classes argmax is threshold 0.5."""
        found, column = {}, metrics.PAPER_COLUMN.get(metric, metric)
        for one in quantities:
            plain = Quantity(one.variant) if one.threshold == 0.5 else one
            key = (dataset, target, plain, column)
            if key in self._values:
                found[one] = self._values[key]
        return found
