"""What claims are decided from: our runs, or what the paper's own tables print."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from data_io.errors import InputError
from pipelines.measure import histograms, metrics, statistics
from pipelines.reporting import estimates
from pipelines.reporting.estimates import Contrast, Estimate, Spread, estimate, mean_of
from pipelines.reporting.frame import Study
from pipelines.reporting.published import STANDARD_GAMMA, Paper, Variant, each_cell

__all__ = [
    "EXTREMES", "THRESHOLDS", "Figure", "Pair", "Printed", "Quantity", "Runs",
    "estimated", "training_spread",
]  # fmt: skip

_Floats = npt.NDArray[np.float64]
_QUANTITY = re.compile(r"(?P<loss>.+?)(?: g=(?P<gamma>[\d.]+))?(?:@(?P<at>[\d.]+))?")
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
        """Read "DSC", "DSC++ g=2.5" or "DSC++@0.8".

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
        gamma = float(found["gamma"] or STANDARD_GAMMA)
        return cls(Variant.standard(found["loss"], gamma), threshold)

    @property
    def label(self) -> str:
        """As `parse` reads it."""
        at = "" if self.threshold is None else f"@{self.threshold:g}"
        return self.variant.label + at


@dataclass(frozen=True)
class Pair:
    """Two quantities on the same test cases and trainings: those that both have.

    Attributes:
        metric: the paper's word.
        difference: mean over cases of a - b, with its 95 % interval over cases and
            trainings (`ci_low`, `ci_high`).
        n: cases defined for both.
        seeds: number of trainings that both have; of the one with fewer where none is.
        z: of the rank-sum test, positive where a is higher; its p is `p_rank_sum`.
        p_trainings: of no difference over trainings and cases (Student's t).
        p_same: of two one-sided tests against the metric's margin; NaN without one.
        effect: what these two are of: the ratio of NLL and Brier, else the difference.
    """

    a: Quantity
    b: Quantity
    metric: str
    difference: float
    ci_low: float
    ci_high: float
    n: int
    seeds: int
    z: float
    p_rank_sum: float
    p_trainings: float
    p_same: float
    effect: Contrast


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
        """Mean over cases and trainings, as in the tables."""
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
        found = self._shared(a, b, metric)
        values_a, values_b = (mean_of(values, axis=0) for values in found)
        both = ~np.isnan(values_a) & ~np.isnan(values_b)
        rank_sum = statistics.rank_sum(values_a[both], values_b[both])
        plain = self._contrast(a, b, metric, ratio=False)
        effect = self._contrast(a, b, metric, estimates.is_ratio(metric))
        margin = estimates.MARGINS.get(metric)
        return Pair(
            a=a,
            b=b,
            metric=metric,
            # Rounded, as the last bits differ between machines and might have a sign.
            difference=round(plain.mean, 12) + 0.0,
            ci_low=plain.ci_low,
            ci_high=plain.ci_high,
            n=plain.n,
            seeds=min(map(len, found)),
            z=rank_sum.statistic,
            p_rank_sum=rank_sum.p,
            p_trainings=effect.p,
            p_same=effect.p_same(margin) if margin else math.nan,
            effect=effect,
        )

    def spread(self, quantity: Quantity, metric: str) -> Spread:
        """What two trainings of one loss differ by, pooled over the losses."""
        column, at = self._column(metric), quantity.threshold
        return training_spread(self.study, self.target, column, (at,))

    def _contrast(self, a: Quantity, b: Quantity, metric: str, ratio: bool) -> Contrast:
        together = a.variant == b.variant
        # Thresholds of the same trainings: what these share cancels.
        at = (a.threshold, b.threshold) if together else (a.threshold,)
        spread = training_spread(self.study, self.target, self._column(metric), at)
        one, other = self._shared(a, b, metric)
        return estimates.contrast(one, other, spread, ratio, together)

    def _shared(self, a: Quantity, b: Quantity, metric: str) -> list[_Floats]:
        """Values of two quantities for the trainings that both have."""
        rows = self.study.shared(*(self._variant(one) for one in (a, b)))
        return [
            self._values(quantity, metric)[own]
            for quantity, own in zip((a, b), rows, strict=True)
        ]

    def _variant(self, quantity: Quantity) -> Variant:
        variant = self.study.standing_in(quantity.variant)
        if variant is None:
            raise KeyError(quantity.label)
        return variant

    def _column(self, metric: str) -> str:
        return metric if self.corrected else metrics.PAPER_COLUMN.get(metric, metric)

    def _values(self, quantity: Quantity, metric: str) -> _Floats:
        """One value a training and case, (trainings, cases)."""
        variant, column = self._variant(quantity), self._column(metric)
        return _measured(self.study, variant, self.target, column, quantity.threshold)


def estimated(
    study: Study, variant: Variant, target: str, column: str, at: float | None = None
) -> Estimate:
    """Mean of a variant, the spread being that of all losses; see `training_spread`."""
    spread = training_spread(study, target, column, (at,), variant.method)
    return estimate(_measured(study, variant, target, column, at), spread)


@lru_cache(maxsize=4096)
def training_spread(
    study: Study,
    target: str,
    column: str,
    at: tuple[float | None, ...] = (None,),
    method: str = "",
) -> Spread:
    """What two trainings of one loss differ by, pooled over the losses of a study.

    Args:
        study: the runs.
        target: the class.
        column: of `cases.csv`, or `EXTREMES`.
        at: a softmax threshold, None for argmax; of two of them the difference.
        method: the losses' method; "" for those as they were trained.
    """
    each = (
        [_measured(study, variant, target, column, one) for one in at]
        for variant in study.runs
        if variant.method == method
    )
    found = (v[0] if len(v) == 1 else v[0] - v[1] for v in each)
    return estimates.pooled(found, estimates.is_ratio(column))


@lru_cache(maxsize=4096)
def _measured(
    study: Study, variant: Variant, target: str, column: str, at: float | None
) -> _Floats:
    if column == EXTREMES:
        return _extremes(study, variant, target)
    if at is None:
        return study.measures(variant, target, column)
    return _at_thresholds(study, variant, target)[column][:, :, THRESHOLDS.index(at)]


@lru_cache(maxsize=256)
def _at_thresholds(study: Study, variant: Variant, target: str) -> dict[str, _Floats]:
    """Overlap measures at `THRESHOLDS`, each (trainings, cases, thresholds)."""
    counts = study.counts(variant, target)
    return histograms.threshold_metrics(counts, edges=study.edges)


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
