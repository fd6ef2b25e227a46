"""What claims are decided from: our runs, or what the paper's own tables print."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_io.errors import InputError
from pipelines.measure import histograms, metrics
from pipelines.reporting.estimates import (
    Estimate,
    compare,
    estimate,
    mean_of,
    ratio,
)
from pipelines.reporting.frame import Study
from pipelines.reporting.published import STANDARD_GAMMA, Paper, Variant, each_cell

__all__ = ["EXTREMES", "Figure", "Pair", "Printed", "Quantity", "Runs", "holm_of"]

_Floats = npt.NDArray[np.float64]
_QUANTITY = re.compile(r"(?P<loss>.+?)(?: g=(?P<gamma>[\d.]+))?(?:@(?P<at>[\d.]+))?")
EXTREMES = "extremes"
"""A measure of confidence: the share of voxels with p < 0.05 or p >= 0.95."""

_THRESHOLDS = [round(float(one), 9) for one in histograms.THRESHOLDS]


@dataclass(frozen=True)
class Quantity:
    """What a claim compares: a trained variant, as it is or at a softmax threshold.

    Attributes:
        variant: loss and gamma.
        threshold: softmax threshold, one of `histograms.THRESHOLDS`; None: argmax.
    """

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
        if found is None or (threshold is not None and threshold not in _THRESHOLDS):
            raise InputError(
                f"{text!r}: expected a loss such as DSC, DSC++ g=2.5 or DSC++@0.8 "
                "(thresholds 0.05 to 0.95 in steps of 0.05); correct claims.csv"
            )
        gamma = float(found["gamma"] or STANDARD_GAMMA)
        plus = found["loss"].endswith("++")
        return cls(Variant(found["loss"], gamma if plus else None), threshold)

    @property
    def label(self) -> str:
        """As `parse` reads it."""
        at = "" if self.threshold is None else f"@{self.threshold:g}"
        return self.variant.label + at


@dataclass(frozen=True)
class Pair:
    """Two quantities on the same test cases and seeds: those that both have.

    Attributes:
        a: the first quantity.
        b: the second.
        difference: mean over cases of a - b.
        ci_low: lower end of its 95 % interval: paired bootstrap over cases (BCa), with
            the spread over seeds as in `estimates.estimate`.
        ci_high: upper end.
        n: cases defined for both.
        seeds: number of seeds that both have; of the one with fewer where none is.
        z: of the rank-sum test, positive where a is higher.
        p_rank_sum: of the published test.
        p_signed_rank: of the paired test.
        p_holm: the latter after Holm's correction as in `tests.csv`; NaN where that
            has no such pair.
    """

    a: Quantity
    b: Quantity
    difference: float
    ci_low: float
    ci_high: float
    n: int
    seeds: int
    z: float
    p_rank_sum: float
    p_signed_rank: float
    p_holm: float


_Holm = Mapping[tuple[str, str, frozenset[str]], float]


def holm_of(tests: pd.DataFrame) -> _Holm:
    """Corrected p of the paired test by class, metric and the two losses.

    Args:
        tests: of `tables.comparisons`.
    """
    own = tests[tests["test"].eq("signed_rank")]
    names = ("target", "metric", "loss_a", "loss_b", "p_holm")
    return {
        (target, metric, frozenset((a, b))): p
        for target, metric, a, b, p in zip(
            *(own[n].tolist() for n in names), strict=True
        )
    }


@dataclass(frozen=True, eq=False)
class Runs:
    """Our runs of one data set at one preset, as evidence on one class.

    Attributes:
        study: the runs.
        holm: p after Holm's correction, see `holm_of`; empty for none.
        name: the class; "" for the only one.
        corrected: take the corrected NLL and Brier, not the published forms.
    """

    study: Study
    holm: _Holm = field(default_factory=dict)
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
        return estimate(self._values(quantity, metric))

    def means(
        self, quantities: Sequence[Quantity], metric: str
    ) -> dict[Quantity, float]:
        """Means of those that were run."""
        return {q: self.estimate(q, metric).mean for q in quantities if self.has(q)}

    def pair(self, a: Quantity, b: Quantity, metric: str) -> Pair:
        """Compare two quantities that were run, over the cases defined for both."""
        found = self._shared(a, b, metric)
        values_a, values_b = (mean_of(values, axis=0) for values in found)
        both = ~np.isnan(values_a) & ~np.isnan(values_b)
        sides = values_a[both], values_b[both]
        differences = _difference(*(values[:, both] for values in found))
        rank_sum = compare("rank_sum", *sides)
        trained = (Quantity(self._variant(one), one.threshold) for one in (a, b))
        losses = frozenset(one.label for one in trained)
        key = (self.target, self._column(metric), losses)
        return Pair(
            a=a,
            b=b,
            # Rounded, as the last bits differ between machines and might have a sign.
            difference=round(differences.mean, 12) + 0.0,
            ci_low=differences.ci_low,
            ci_high=differences.ci_high,
            n=int(both.sum()),
            seeds=min(map(len, found)),
            z=rank_sum.statistic,
            p_rank_sum=rank_sum.p,
            p_signed_rank=compare("signed_rank", *sides).p,
            p_holm=self.holm.get(key, float("nan")),
        )

    def ratio(self, a: Quantity, b: Quantity, metric: str) -> Estimate:
        """The mean of one over that of another, paired as in `pair`."""
        found = self._shared(a, b, metric)
        if len(found[0]) != len(found[1]):
            found = [mean_of(values, axis=0)[np.newaxis] for values in found]
        return ratio(*found)

    def _shared(self, a: Quantity, b: Quantity, metric: str) -> list[_Floats]:
        """Values of two quantities for the seeds that both have."""
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
        """One value a seed and case, (seeds, cases)."""
        variant = self._variant(quantity)
        if metric == EXTREMES:
            return _extremes(self.study, variant, self.target)
        if quantity.threshold is None:
            return self.study.measures(variant, self.target, self._column(metric))
        index = _THRESHOLDS.index(quantity.threshold)
        found = self.study.at_thresholds(variant, self.target)
        return found[metric][:, :, index]


def _difference(a: _Floats, b: _Floats) -> Estimate:
    """Mean of a - b over cases and seeds, (seeds, cases) each, as in the tables.

    Without a seed in common the losses are averaged first, and how much seeds differ
    is not in the interval.
    """
    if len(a) == len(b):
        return estimate(a - b)
    return estimate((mean_of(a, axis=0) - mean_of(b, axis=0))[np.newaxis])


def _extremes(study: Study, variant: Variant, target: str) -> _Floats:
    """`EXTREMES` of each seed and case, (seeds, cases), from the histograms."""
    by_bin, low = study.counts(variant, target).sum(axis=2), study.edges[:-1]
    between = (low >= _THRESHOLDS[0]) & (low < _THRESHOLDS[-1])
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
