"""How well probabilities are calibrated, and what two observers of an image say of it.

From the histograms of the runs, in every region and against every observer: the far
background is easy for any loss and outnumbers the rest, so that over the whole image
all of them look calibrated. The second observer against the first is the human
reference for the networks' Dice. The pair shows what one observer cannot: whether p is
near one half where people disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipelines.measure import calibration, histograms
from pipelines.measure.calibration import Bins
from pipelines.measure.histograms import Histograms
from pipelines.measure.metrics import overlap_scores
from pipelines.measure.regions import BAND
from pipelines.reporting.estimates import by_seed, estimate, mean_of
from pipelines.reporting.frame import Study
from pipelines.reporting.published import Variant

__all__ = [
    "EITHER", "ENOUGH", "HUMAN", "NEAR_HALF", "OBSERVERS", "REGIONS", "Binned",
    "Reader", "diagrams", "measures", "observers",
]  # fmt: skip

_SPREAD = ("mean", "standard_error", "ci_low", "ci_high", "n", "seeds", "n_undefined")
_PLACE = ("target", "region", "reference")
_COLUMNS = ("loss", "gamma", *_PLACE, "measure", *_SPREAD, "pooled", "p_in_bins")
_OBSERVER_COLUMNS = ("who", "gamma", *_PLACE, "measure", *_SPREAD)
_DIAGRAM_COLUMNS = (
    "loss", "gamma", *_PLACE, "bin_low", "bin_high", "confidence", "frequency",
    "n_voxels", "n_cases", "frequency_p10", "frequency_p90", "share_both", "share_one",
    "share_none", "seeds", "p_in_bins",
)  # fmt: skip

EITHER = "mean of both"
"""The reference where both observers' labels are averaged."""

ENOUGH = 10
"""A case counts in the spread of a bin from this many voxels on."""

HUMAN = "observer2"
"""In the column `who`: the second annotator in the place of a network."""

NEAR_HALF = (0.25, 0.75)
"""p in [low, high) is called near one half; both are edges of the histograms."""

OBSERVERS = ("observer1", "observer2")
REGIONS = ("image", "field of view", BAND)
_OVERLAP = ("dice", "jaccard", "precision", "recall")
_SCORES = ("nll", "brier")
# Rows of `count_pair`: 00, 01, 10, 11.
_SAID = {"both": (3,), "one": (1, 2), "none": (0,)}
_Array = npt.NDArray[np.float64]
_Row = dict[str, Any]
_Place = tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Binned:
    """The histograms of one variant's test cases: one region, reference and target.

    Attributes:
        counts: voxels by truth and fine bin, (seeds, cases, 2, B); 0 throughout where a
            case has none of the region. Against `EITHER` there are halves.
        confidence: mean p in each fine bin, (seeds, cases, B).
        edges: of the fine bins, (B + 1,).
        exact: whether `confidence` was measured; else it is the bins' centres.
    """

    counts: _Array
    confidence: _Array
    edges: _Array
    exact: bool

    def bins(self, wanted: _Array | None = calibration.WIDE) -> Bins:
        """Bins of every seed and case, (seeds, cases, M); see `calibration.join`."""
        return calibration.join(self.counts, self.confidence, self.edges, wanted)


class Reader:
    """The histograms of one variant of a study.

    Older runs counted less: no band around the target, no pairs of labels, no mean p.
    Where a training of the variant counted more, those that counted less are left out
    here; the column `seeds` of the tables says how many seeds there are. Values have a
    row for each training, of `seeds`; `by_seed` averages replicates.
    """

    def __init__(self, study: Study, variant: Variant) -> None:
        self.study, self.variant = study, variant
        files = [study.histograms[run.name] for run in study.runs[variant]]
        each = [_counted(one) for one in files]
        everything = set().union(*each)
        whole = [row for row, has in enumerate(each) if has == everything]
        self.rows = whole or list(range(len(files)))
        self.runs = [study.runs[variant][row] for row in self.rows]
        self.seeds = [study.trainings(variant)[row][0] for row in self.rows]
        self._files = [files[row] for row in self.rows]
        self._shared = set.intersection(*(each[row] for row in self.rows))
        self._binned: dict[_Place, Binned] = {}

    def places(self) -> Iterator[_Place]:
        """Target, region and reference of what every training has, in order."""
        for target in self.study.targets:
            for region in REGIONS:
                for one in (*OBSERVERS, EITHER):
                    if (target, region, one) in self._shared:
                        yield target, region, one

    def binned(self, place: _Place) -> Binned:
        """Gather what `places` named."""
        if place not in self._binned:
            self._binned[place] = self._gather(*place)
        return self._binned[place]

    def _gather(self, target: str, region: str, reference: str) -> Binned:
        # What p says in a bin does not depend on whose labels stand beside it.
        labels = OBSERVERS[0] if reference == EITHER else reference
        where = {"target": target, "region": region, "reference": labels}
        confidence = []
        for one in self._files:
            rows = one.where(split="test", **where)
            placed = self.study.placed(one.confidence()[rows], one.case[rows])
            confidence.append(placed)
        if reference == EITHER:
            counts = calibration.mean_label(self.pairs(target, region))
        else:
            whole = self.study.counts(self.variant, **where)[self.rows]
            counts = whole.astype(np.float64)
        exact = all(one.means is not None for one in self._files)
        return Binned(counts, np.stack(confidence), self.study.edges, exact)

    def pairs(self, target: str, region: str) -> _Array:
        """Voxels by the labels of both observers, (seeds, cases, 4, B)."""
        result = []
        for one in self._files:
            where = (one.pair_split == "test") & (one.pair_target == target)
            where &= one.pair_region == region
            counts = one.pair_counts[where].astype(np.float64)
            result.append(self.study.placed(counts, one.pair_case[where]))
        return np.stack(result)


def _counted(one: Histograms) -> set[_Place]:
    """Target, region and reference that a run counted; ("", "", "mean p") if it did."""
    found = set(zip(one.target, one.region, one.reference, strict=True))
    for place in set(zip(one.pair_target, one.pair_region, strict=True)):
        if all((*place, observer) in found for observer in OBSERVERS):
            found.add((*place, EITHER))
    return found | ({("", "", "mean p")} if one.means is not None else set())


def measures(read: list[Reader]) -> pd.DataFrame:
    """Estimate every measure of every variant, in all regions: `calibration.csv`.

    `mean` is over cases, with the error and interval of `estimate` by the loss's own
    seeds: with one of them they are over cases alone. `pooled` is that of all test
    cases' voxels together, the mean over seeds.
    """
    found = []
    for reader in read:
        for place in reader.places():
            binned = reader.binned(place)
            about = _about(reader, place)
            for name, (cases, pooled) in _measured(reader, place, binned).items():
                row = about | {"measure": name, "pooled": pooled}
                found.append(row | vars(estimate(by_seed(cases, reader.seeds))))
    return pd.DataFrame(found, columns=list(_COLUMNS))


def _about(reader: Reader, place: _Place) -> _Row:
    source = "mean" if reader.binned(place).exact else "centre"
    row = reader.variant.columns | dict(zip(_PLACE, place, strict=True))
    return row | {"p_in_bins": source}


def _measured(
    reader: Reader, place: _Place, binned: Binned
) -> dict[str, tuple[_Array, float]]:
    """Each measure by case, (seeds, cases), and of the pooled voxels."""
    wide, fine = binned.bins(), binned.bins(None)
    by_case = {name: _score(reader, place, name) for name in _SCORES}
    pooled = {name: _weighted(wide, values) for name, values in by_case.items()}
    for function in (calibration.ece, calibration.ace, calibration.mce):
        by_case[function.__name__] = function(wide)
        pooled[function.__name__] = function(wide.pooled(axis=1))
    by_case |= calibration.murphy(fine, by_case["brier"])
    pooled |= calibration.murphy(fine.pooled(axis=1), pooled["brier"])
    return {
        name: (values, float(mean_of(by_seed(pooled[name], reader.seeds), axis=0)))
        for name, values in by_case.items()
    }


def _score(reader: Reader, place: _Place, metric: str) -> _Array:
    """NLL or Brier score by case, (seeds, cases); both observers': their mean.

    That is what to expect of an observer drawn at random, as of `mean_label`.
    """
    target, region, reference = place
    wanted = OBSERVERS if reference == EITHER else (reference,)
    places = [(target, region, one) for one in wanted]
    each = [[reader.study.of_run(r, at, metric) for r in reader.runs] for at in places]
    return np.mean(each, axis=0)


def _weighted(bins: Bins, values: _Array) -> _Array:
    """Mean of a measure over all voxels of a seed, (seeds,), from cases' means."""
    n = np.where(np.isnan(values), 0.0, bins.n.sum(axis=-1))
    total = (n * np.nan_to_num(values)).sum(axis=-1)
    empty = np.full(len(values), np.nan)
    return np.divide(total, n.sum(axis=-1), out=empty, where=n.sum(axis=-1) > 0)


def diagrams(read: list[Reader]) -> pd.DataFrame:
    """Make the reliability diagrams of every variant: `reliability.csv`.

    A row is a bin of width 0.05, with the voxels of all test cases and seeds; beside it
    how far the cases lie apart.
    """
    found: list[_Row] = []
    for reader in read:
        for place in reader.places():
            binned = reader.binned(place)
            columns = _diagram(binned)
            if place[-1] == EITHER:
                columns |= _agreement(reader.pairs(*place[:2]), binned.edges)
            about = _about(reader, place) | {"seeds": len(set(reader.seeds))}
            each = zip(*columns.values(), strict=True)
            found += [about | dict(zip(columns, row, strict=True)) for row in each]
    return pd.DataFrame(found, columns=list(_DIAGRAM_COLUMNS))


def _diagram(binned: Binned) -> dict[str, npt.NDArray[Any]]:
    """The columns of one reliability diagram, a value for each bin."""
    bins = binned.bins()
    everything, cases = bins.pooled(axis=(0, 1)), bins.pooled(axis=0)
    low, high = frequency_spread(cases)
    return {
        "bin_low": calibration.WIDE[:-1],
        "bin_high": calibration.WIDE[1:],
        "confidence": everything.confidence,
        "frequency": everything.frequency,
        "n_voxels": everything.n.astype(np.int64),
        "n_cases": (cases.n > 0).sum(axis=0),
        "frequency_p10": low,
        "frequency_p90": high,
    }


def frequency_spread(cases: Bins) -> _Array:
    """The 10th and 90th percentile over cases in each bin, (2, M), of `ENOUGH` voxels.

    `cases` are the bins of every case, (cases, M).
    """
    ends = np.full((2, cases.n.shape[-1]), np.nan)
    for index, (share, n) in enumerate(zip(cases.frequency.T, cases.n.T, strict=True)):
        if (n >= ENOUGH).any():
            ends[:, index] = np.percentile(share[n >= ENOUGH], [10, 90])
    return ends


def _agreement(pairs: _Array, edges: _Array) -> dict[str, _Array]:
    """Shares of voxels in each bin that both, one or no observer marked."""
    rows, shares = pairs.sum(axis=(0, 1)), {}
    for name, which in _SAID.items():
        # As if these voxels were the target.
        part = rows[list(which)].sum(axis=0)
        counts = np.stack([rows.sum(axis=0) - part, part])
        joined = calibration.join(counts, histograms.centres(edges), edges)
        shares[f"share_{name}"] = joined.frequency
    return shares


def observers(read: list[Reader]) -> pd.DataFrame:
    """Compare observers and networks: `observers.csv`; no row without two observers.

    First the second observer against the first, then each variant against both, with
    mean, error and interval over cases as in `estimate`.
    """
    people: dict[tuple[str, str], list[_Row]] = {}
    networks: list[_Row] = []
    for reader in read:
        for target, region, reference in reader.places():
            if reference != EITHER:
                continue
            about: _Row = {"target": target, "region": region}
            pairs = reader.pairs(target, region)
            if (target, region) not in people:
                people[target, region] = [about | row for row in _human(pairs)]
            own = reader.variant.columns
            about |= {"who": own["loss"], "gamma": own["gamma"]}
            networks += [about | row for row in _against_each(reader, target, region)]
            binned = reader.binned((target, region, EITHER))
            both = _against_both(binned, pairs, reader.seeds)
            networks += [about | row for row in both]
    rows = [row for found in people.values() for row in found] + networks
    return pd.DataFrame(rows, columns=list(_OBSERVER_COLUMNS))


def _human(pairs: _Array) -> Iterator[_Row]:
    """The second observer, measured as if it were a network's prediction."""
    none, second, first, both = np.moveaxis(pairs[:1].sum(axis=-1), -1, 0)
    voxels = _or_nan(none + second + first + both)
    scores = overlap_scores(both, second, first)
    # 0 and 1 in the place of p: the Brier score is the share that they disagree on.
    scores["brier"] = (first + second) / voxels
    for measure, values in scores.items():
        yield _row(OBSERVERS[0], measure, values, [0]) | {"who": HUMAN}
    for name, part in (("both", both), ("one", first + second), ("none", none)):
        yield _row(EITHER, f"share_{name}", part / voxels, [0]) | {"who": HUMAN}


def _against_each(reader: Reader, target: str, region: str) -> Iterator[_Row]:
    """One variant against each observer, and what to expect of one drawn at random."""
    for measure in (*_OVERLAP, *_SCORES):
        places = [(target, region, one) for one in OBSERVERS]
        each = [_score(reader, place, measure) for place in places]
        for one, values in zip(OBSERVERS, each, strict=True):
            yield _row(one, measure, values, reader.seeds)
        if measure in _SCORES:
            yield _row(EITHER, measure, np.mean(each, axis=0), reader.seeds)


def _against_both(
    binned: Binned, pairs: _Array, seeds: Sequence[int]
) -> Iterator[_Row]:
    """One variant against the mean of both labels, and p by what they say."""
    bins = binned.bins()
    yield _row(EITHER, "ece", calibration.ece(bins), seeds)
    yield _row(EITHER, "ace", calibration.ace(bins), seeds)
    low, high = (np.abs(binned.edges - edge).argmin() for edge in NEAR_HALF)
    for name, which in _SAID.items():
        counts = pairs[..., list(which), :].sum(axis=-2)
        voxels = _or_nan(counts.sum(axis=-1))
        # A bin's mean p is that of all its voxels, whatever their labels: what comes
        # out is off by less than the width of a bin.
        mean = (counts * binned.confidence).sum(axis=-1) / voxels
        yield _row(EITHER, f"mean_p_{name}", mean, seeds)
        near = counts[..., low:high].sum(axis=-1) / voxels
        yield _row(EITHER, f"near_half_{name}", near, seeds)


def _or_nan(voxels: _Array) -> _Array:
    """A number to divide by: none is undefined, not infinite."""
    return np.where(voxels > 0, voxels, np.nan)


def _row(reference: str, measure: str, values: _Array, seeds: Sequence[int]) -> _Row:
    found = estimate(by_seed(values, seeds))
    return {"reference": reference, "measure": measure} | vars(found)
