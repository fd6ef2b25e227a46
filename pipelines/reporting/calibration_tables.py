"""How well probabilities are calibrated, and what two observers of an image say of it.

From the histograms of the runs, in every region and against every observer: the far
background is easy for any loss and outnumbers the rest, so that over the whole image
all of them look calibrated. The second observer against the first is the human
reference for the networks' Dice. The pair shows what one observer cannot: whether p is
near one half where people disagree.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from pipelines.measure import calibration, histograms
from pipelines.measure.calibration import Bins
from pipelines.measure.histograms import Histograms
from pipelines.measure.metrics import overlap_scores
from pipelines.measure.regions import BAND
from pipelines.reporting.estimates import by_seed, estimate, mean_of
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Variant
from pipelines.reporting.tables import framed

_GROUP = ("target", "region", "reference")

MEAN_OF_BOTH = "mean of both"
"""The reference where both observers' labels are averaged."""

ENOUGH = 10
"""A case counts in the spread of a bin from this many voxels on."""

HUMAN = Variant("", method="observer2")
"""The second annotator in the place of a network."""

NEAR_HALF = (0.25, 0.75)
"""p in [low, high) is called near one half; both are edges of the histograms."""

OBSERVERS = ("observer1", "observer2")
REGIONS = ("image", "field of view", BAND)
_OVERLAP = ("dice", "jaccard", "precision", "recall")
_SCORES = ("nll", "brier")
# Rows of two observers: 00, 01, 10, 11.
_LABEL_ROWS = {"both": (3,), "one": (1, 2), "none": (0,)}
_Array = npt.NDArray[np.float64]
_Row = dict[str, Any]
_Group = tuple[str, str, str]
_Values = dict[tuple[str, str], _Array]
"""Values by training and case, of each reference and measure."""


class Reader:
    """The histograms of one variant of a study.

    Older runs counted less: no band around the target, no pairs of labels, no mean p.
    Where a training of the variant counted more, those that counted less are left out
    here; the column `seeds` of the tables says how many seeds there are. Values have a
    row for each training, of `seeds`; `by_seed` averages replicates.
    """

    def __init__(self, study: Study, variant: Variant) -> None:
        self.study, self.variant = study, variant
        files = [study.histograms[str(run.folder)] for run in study.runs[variant]]
        counted = [_counted(file) for file in files]
        every_group = set().union(*counted)
        whole = [row for row, has in enumerate(counted) if has == every_group]
        self.rows = whole or list(range(len(files)))
        self.seeds = [study.trainings(variant)[row][0] for row in self.rows]
        self._files = [files[row] for row in self.rows]
        self._shared = set.intersection(*(counted[row] for row in self.rows))
        exact = all(file.means is not None for file in self._files)
        self.p_in_bins = "mean" if exact else "centre"

    def groups(self) -> Iterator[_Group]:
        """Yield target, region and reference that every training has, in order."""
        every = product(self.study.targets, REGIONS, (*OBSERVERS, MEAN_OF_BOTH))
        return (group for group in every if group in self._shared)

    def binned(self, group: _Group) -> tuple[_Array, _Array]:
        """Return the counts of the trainings for one of `groups`.

        Returns:
            Voxels by truth and fine bin, (trainings, cases, 2, B), 0 throughout where a
            case has none of the region, halves against `MEAN_OF_BOTH`; mean p in each
            fine bin, (trainings, cases, B).
        """
        target, region, reference = group
        # What p says in a bin does not depend on whose labels stand beside it.
        labels = OBSERVERS[0] if reference == MEAN_OF_BOTH else reference
        where = {"target": target, "region": region, "reference": labels}
        rows = [(file, file.where(split="test", **where)) for file in self._files]
        placed = self.study.placed
        p = np.stack(
            [placed(file.confidence()[at], file.case[at]) for file, at in rows]
        )
        if reference == MEAN_OF_BOTH:
            return calibration.mean_label(self.pairs(target, region)), p
        counts = self.study.counts(self.variant, **where)[self.rows]
        return counts.astype(np.float64), p

    def pairs(self, target: str, region: str) -> _Array:
        """Count voxels by the labels of both observers, (trainings, cases, 4, B)."""
        result = []
        for file in self._files:
            where = (file.pair_split == "test") & (file.pair_target == target)
            where &= file.pair_region == region
            counts = file.pair_counts[where].astype(np.float64)
            result.append(self.study.placed(counts, file.pair_case[where]))
        return np.stack(result)

    def score(self, group: _Group, metric: str) -> _Array:
        """Return one metric by case, (trainings, cases).

        Against `MEAN_OF_BOTH` it is the mean over the observers: of NLL and Brier score
        what to expect of an observer drawn at random.
        """
        target, region, reference = group
        wanted = OBSERVERS if reference == MEAN_OF_BOTH else (reference,)
        measure, variant = self.study.of_trainings, self.variant
        values = [
            measure(variant, target, metric, region, observer) for observer in wanted
        ]
        return np.mean(values, axis=0)[self.rows]


def _counted(file: Histograms) -> set[_Group]:
    """Target, region and reference that a run counted; ("", "", "mean p") if it did."""
    groups = set(zip(file.target, file.region, file.reference, strict=True))
    for group in set(zip(file.pair_target, file.pair_region, strict=True)):
        if all((*group, observer) in groups for observer in OBSERVERS):
            groups.add((*group, MEAN_OF_BOTH))
    return groups | ({("", "", "mean p")} if file.means is not None else set())


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """Make the tables of measures, diagrams and observers of a study, by file name.

    Errors and intervals are those of `estimate` by the loss's own seeds: with one of
    them they are over cases alone. "observers.csv" has no row where there is one
    observer; else first the second against the first, then each variant against both.
    """
    measured: list[_Row] = []
    diagrams: list[_Row] = []
    people: dict[tuple[str, str], list[_Row]] = {}
    networks: list[_Row] = []
    readers = (Reader(study, variant) for variant in study.runs)
    for reader, group in ((r, group) for r in readers for group in r.groups()):
        counts, p = reader.binned(group)
        wide, fine = (
            calibration.join(counts, p, study.edges, wanted)
            for wanted in (calibration.WIDE, None)
        )
        columns: _Row = reader.variant.columns | dict(zip(_GROUP, group, strict=True))
        columns |= {"p_in_bins": reader.p_in_bins}
        measured += [columns | row for row in _measured(reader, group, wide, fine)]
        columns["seeds"] = len(set(reader.seeds))
        pairs = reader.pairs(*group[:2]) if group[-1] == MEAN_OF_BOTH else None
        diagrams += [columns | row for row in _diagram(wide, pairs, study.edges)]
        if pairs is None:
            continue
        if group[:2] not in people:
            people[group[:2]] = _estimates(columns | HUMAN.columns, _human(pairs), [0])
        values = _against_each(reader, group)
        values |= _against_both(wide, p, pairs, study.edges)
        networks += _estimates(columns, values, reader.seeds)
    return {
        "calibration.csv": framed(measured, "calibration"),
        "reliability.csv": framed(diagrams, "reliability"),
        "observers.csv": framed([*chain(*people.values()), *networks], "observers"),
    }


def _estimates(columns: _Row, measures: _Values, seeds: Sequence[int]) -> list[_Row]:
    """Make a row for each reference and measure, from values by training and case."""
    return [
        columns
        | {"reference": reference, "measure": measure}
        | vars(estimate(by_seed(values, seeds)))
        for (reference, measure), values in measures.items()
    ]


def _measured(reader: Reader, group: _Group, wide: Bins, fine: Bins) -> Iterator[_Row]:
    """Yield a row for each measure, over cases and of the pooled voxels."""
    by_case = {name: reader.score(group, name) for name in _SCORES}
    pooled = {}
    for name, values in by_case.items():
        # Over all voxels of a seed, from cases' means.
        n = np.where(np.isnan(values), 0.0, wide.n.sum(axis=-1))
        whole = (n * np.nan_to_num(values)).sum(axis=-1)
        pooled[name] = whole / _or_nan(n.sum(axis=-1))
    for function in (calibration.ece, calibration.ace, calibration.mce):
        by_case[function.__name__] = function(wide)
        pooled[function.__name__] = function(wide.pooled(axis=1))
    by_case |= calibration.murphy(fine, by_case["brier"])
    pooled |= calibration.murphy(fine.pooled(axis=1), pooled["brier"])
    for name, values in by_case.items():
        together = float(mean_of(by_seed(pooled[name], reader.seeds), axis=0))
        over_cases = estimate(by_seed(values, reader.seeds))
        yield {"measure": name, "pooled": together} | vars(over_cases)


def _diagram(bins: Bins, pairs: _Array | None, edges: _Array) -> list[_Row]:
    """Make a row for each bin of a reliability diagram; `pairs`: by two observers."""
    everything, cases = bins.pooled(axis=(0, 1)), bins.pooled(axis=0)
    low, high = frequency_spread(cases)
    columns = {
        "bin_low": calibration.WIDE[:-1],
        "bin_high": calibration.WIDE[1:],
        "confidence": everything.confidence,
        "frequency": everything.frequency,
        "n_voxels": everything.n.astype(np.int64),
        "n_cases": (cases.n > 0).sum(axis=0),
        "frequency_p10": low,
        "frequency_p90": high,
    }
    # Shares of voxels that both, one or no observer marked.
    for name, which in _LABEL_ROWS.items():
        if pairs is not None:
            rows = pairs.sum(axis=(0, 1))
            # As if these voxels were the target.
            part = rows[list(which)].sum(axis=0)
            counts = np.stack([rows.sum(axis=0) - part, part])
            joined = calibration.join(counts, histograms.centres(edges), edges)
            columns[f"share_{name}"] = joined.frequency
    return pd.DataFrame(columns).to_dict("records")


def frequency_spread(cases: Bins) -> _Array:
    """Compute the 10th and 90th percentile over cases with `ENOUGH` voxels, (2, M).

    `cases` are the bins of every case, (cases, M).
    """
    kept = pd.DataFrame(cases.frequency).where(cases.n >= ENOUGH)
    return kept.quantile([0.1, 0.9]).to_numpy()


def frequency_interval(cases: Bins) -> _Array:
    """Compute the 95 % interval of the share of all cases in each bin, (2, M).

    A case is the unit: its voxels depend on each other. The share is a ratio of two
    sums over cases; its standard error is that of Cochran (1977, section 2.11), used
    with Student's t. NaN where fewer than two cases have voxels.

    Args:
        cases: the bins of every case, (cases, M).
    """
    together = cases.pooled(axis=0)
    voxels = np.where(together.n > 0, together.n, np.nan)
    residuals = (cases.target - together.frequency * cases.n) / voxels
    of_use = np.sum(cases.n > 0, axis=0)
    n = np.where(of_use > 1, of_use, np.nan)
    error = np.sqrt(n / (n - 1) * np.nansum(residuals**2, axis=0))
    reach = special.stdtrit(n - 1, 0.975) * error
    return np.clip(together.frequency + np.array([[-1.0], [1.0]]) * reach, 0, 1)


def _human(pairs: _Array) -> _Values:
    """Measure the second observer as if it were a network's prediction."""
    none, second, first, both = np.moveaxis(pairs[:1].sum(axis=-1), -1, 0)
    voxels = _or_nan(none + second + first + both)
    scores = overlap_scores(both, second, first)
    # 0 and 1 in the place of p: the Brier score is the share that they disagree on.
    scores["brier"] = (first + second) / voxels
    marked = {"both": both, "one": first + second, "none": none}
    shares = {
        (MEAN_OF_BOTH, f"share_{name}"): part / voxels for name, part in marked.items()
    }
    return {(OBSERVERS[0], name): value for name, value in scores.items()} | shares


def _against_each(reader: Reader, group: _Group) -> _Values:
    """Measure one variant against each observer, and against one drawn at random."""
    return {
        (observer, measure): reader.score((*group[:2], observer), measure)
        for measure in (*_OVERLAP, *_SCORES)
        for observer in (*OBSERVERS, *([MEAN_OF_BOTH] if measure in _SCORES else []))
    }


def _against_both(bins: Bins, p: _Array, pairs: _Array, edges: _Array) -> _Values:
    """Measure one variant against the mean of both labels, and p by both labels."""
    values = {(MEAN_OF_BOTH, "ece"): calibration.ece(bins)}
    values |= {(MEAN_OF_BOTH, "ace"): calibration.ace(bins)}
    low, high = (np.abs(edges - edge).argmin() for edge in NEAR_HALF)
    for name, which in _LABEL_ROWS.items():
        counts = pairs[..., list(which), :].sum(axis=-2)
        voxels = _or_nan(counts.sum(axis=-1))
        # A bin's mean p is that of all its voxels, whatever their labels: what comes
        # out is off by less than the width of a bin.
        values[MEAN_OF_BOTH, f"mean_p_{name}"] = (counts * p).sum(axis=-1) / voxels
        near = counts[..., low:high].sum(axis=-1)
        values[MEAN_OF_BOTH, f"near_half_{name}"] = near / voxels
    return values


def _or_nan(voxels: _Array) -> _Array:
    """Replace 0 by NaN, so that a division by it is undefined, not infinite."""
    return np.where(voxels > 0, voxels, np.nan)
