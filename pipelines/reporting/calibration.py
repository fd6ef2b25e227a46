"""How well probabilities are calibrated: tables from the histograms of the runs.

In every region and against every observer: the far background is easy for any loss and
outnumbers the rest, so that over the whole image all of them look calibrated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.measure import calibration, histograms
from pipelines.measure.calibration import Bins
from pipelines.measure.histograms import Histograms
from pipelines.measure.regions import BAND
from pipelines.reporting.estimates import estimate, mean_of
from pipelines.reporting.markdown import table
from pipelines.reporting.study import Study, Variant

__all__ = [
    "COLUMNS",
    "DIAGRAM",
    "DIAGRAM_COLUMNS",
    "EITHER",
    "TABLE",
    "Binned",
    "Reader",
    "diagram_rows",
    "identity",
    "markdown",
    "rows",
    "spread",
]

TABLE = "calibration.csv"
COLUMNS = (
    "loss", "gamma", "target", "region", "reference", "measure", "mean",
    "standard_error", "ci_low", "ci_high", "n", "seeds", "n_undefined", "pooled",
    "p_in_bins",
)  # fmt: skip
DIAGRAM = "reliability.csv"
DIAGRAM_COLUMNS = (
    "loss", "gamma", "target", "region", "reference", "bin_low", "bin_high",
    "confidence", "frequency", "n_voxels", "n_cases", "frequency_p10", "frequency_p90",
    "share_both", "share_one", "share_none", "seeds", "p_in_bins",
)  # fmt: skip

EITHER = "mean of both"
"""The reference where both observers' labels are averaged."""

ENOUGH = 10
"""A case counts in the spread of a bin from this many voxels on."""

_REGIONS = ("image", "field of view", BAND)
_PAIR = ("observer1", "observer2")
_Array = npt.NDArray[np.float64]
_Row = dict[str, object]


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

    @property
    def p_in_bins(self) -> str:
        """Where the bins' mean p is from: "mean" or "centre"."""
        return "mean" if self.exact else "centre"


class Reader:
    """The histograms of one variant of a study, each file read once.

    Args:
        study: the runs.
        variant: one of the study's.
    """

    def __init__(self, study: Study, variant: Variant) -> None:
        self._study, self.variant = study, variant
        self._files = [
            histograms.load(run.path("histograms.npz")) for run in study.runs[variant]
        ]
        self.edges = self._files[0].edges

    def places(self) -> Iterator[tuple[str, str, str]]:
        """Target, region and reference of what every seed has, in order."""
        each = [
            set(zip(one.target, one.region, one.reference, strict=True))
            for one in self._files
        ]
        shared = set.intersection(*each)
        for target in self._study.targets:
            for region in _REGIONS:
                found = [r for r in _PAIR if (target, region, r) in shared]
                yield from ((target, region, one) for one in found)
                if len(found) == len(_PAIR) and self._paired(target, region):
                    yield target, region, EITHER

    def _paired(self, target: str, region: str) -> bool:
        return all(
            np.any((one.pair_target == target) & (one.pair_region == region))
            for one in self._files
        )

    def binned(self, target: str, region: str, reference: str) -> Binned:
        """Gather what `places` named."""
        # What p says in a bin does not depend on whose labels stand beside it.
        labels = _PAIR[0] if reference == EITHER else reference
        found = [self._of(one, target, region, labels) for one in self._files]
        counts, confidence = (np.stack(part) for part in zip(*found, strict=True))
        if reference == EITHER:
            counts = calibration.mean_label(self.pairs(target, region))
        exact = all(one.means is not None for one in self._files)
        return Binned(counts, confidence, self.edges, exact)

    def pairs(self, target: str, region: str) -> _Array:
        """Voxels by the labels of both observers, (seeds, cases, 4, B).

        Only where `places` gives `EITHER`.
        """
        return np.stack([self._pairs_of(one, target, region) for one in self._files])

    def _of(
        self, found: Histograms, target: str, region: str, reference: str
    ) -> tuple[_Array, _Array]:
        """Counts, (cases, 2, B), and confidence, (cases, B), of one run."""
        where = found.where(
            split="test", target=target, region=region, reference=reference
        )
        names = found.case[where]
        return (
            self._placed(found.counts[where].astype(np.float64), names),
            self._placed(found.confidence()[where], names),
        )

    def _pairs_of(self, found: Histograms, target: str, region: str) -> _Array:
        where = (found.pair_split == "test") & (found.pair_target == target)
        where &= found.pair_region == region
        counts = found.pair_counts[where].astype(np.float64)
        return self._placed(counts, found.pair_case[where])

    def _placed(self, values: _Array, names: npt.NDArray[np.str_]) -> _Array:
        """Put rows in the order of the study's cases; 0 where a case has none."""
        result = np.zeros((len(self._study.cases), *values.shape[1:]))
        place = {case: index for index, case in enumerate(self._study.cases)}
        for name, value in zip(names, values, strict=True):
            result[place[str(name)]] = value
        return result


def identity(variant: Variant) -> _Row:
    """How tables name a variant: `loss` with method and backend, and `gamma`."""
    name = Variant(variant.loss, None, variant.method, variant.backend).label
    return {"loss": name, "gamma": variant.gamma}


def _everywhere(
    study: Study,
) -> Iterator[tuple[Variant, Reader, tuple[str, str, str], _Row]]:
    """Every variant in each class, region and reference, with the columns of that."""
    for variant in study.runs:
        reader = Reader(study, variant)
        for place in reader.places():
            names = zip(("target", "region", "reference"), place, strict=True)
            yield variant, reader, place, identity(variant) | dict(names)


def rows(study: Study) -> list[_Row]:
    """Estimate every measure of every variant, in all regions, with `COLUMNS`.

    `mean` is over cases, with the error and interval of `estimate`; `pooled` is that of
    all test cases' voxels together, the mean over seeds.
    """
    found = []
    for variant, reader, place, about in _everywhere(study):
        binned = reader.binned(*place)
        for measure, (cases, pooled) in _measured(
            study, variant, place, binned
        ).items():
            row = about | {"measure": measure} | spread(cases)
            row |= {"pooled": pooled, "p_in_bins": binned.p_in_bins}
            found.append(row)
    return found


def spread(values: _Array) -> _Row:
    """Mean, error, interval and counts of (seeds, cases), by column."""
    return dict(vars(estimate(values)))


def _measured(
    study: Study, variant: Variant, place: tuple[str, str, str], binned: Binned
) -> Mapping[str, tuple[_Array, float]]:
    """Each measure by case, (seeds, cases), and of the pooled voxels."""
    wide, fine = binned.bins(), binned.bins(None)
    scores = {name: _score(study, variant, place, name) for name in ("nll", "brier")}
    by_case = dict(scores)
    pooled = {name: _weighted(wide, values) for name, values in scores.items()}
    for function in (calibration.ece, calibration.ace, calibration.mce):
        by_case[function.__name__] = function(wide)
        pooled[function.__name__] = function(wide.pooled(axis=1))
    by_case |= calibration.murphy(fine, by_case["brier"])
    pooled |= calibration.murphy(fine.pooled(axis=1), pooled["brier"])
    return {
        name: (values, float(mean_of(pooled[name], axis=0)))
        for name, values in by_case.items()
    }


def _score(
    study: Study, variant: Variant, place: tuple[str, str, str], metric: str
) -> _Array:
    """NLL or Brier score by case, (seeds, cases); both observers': their mean.

    That is what to expect of an observer drawn at random, and what the halves of
    `calibration.mean_label` count.
    """
    target, region, reference = place
    wanted = _PAIR if reference == EITHER else (reference,)
    values = [study.measures_in(variant, target, metric, region, one) for one in wanted]
    return np.mean(values, axis=0)


def _weighted(bins: Bins, values: _Array) -> _Array:
    """Mean of a measure over all voxels of a seed, (seeds,), from cases' means."""
    n = np.where(np.isnan(values), 0.0, bins.n.sum(axis=-1))
    total = (n * np.nan_to_num(values)).sum(axis=-1)
    empty = np.full(len(values), np.nan)
    return np.divide(total, n.sum(axis=-1), out=empty, where=n.sum(axis=-1) > 0)


def diagram_rows(study: Study) -> list[_Row]:
    """Make the reliability diagrams of every variant, with `DIAGRAM_COLUMNS`.

    A row is a bin of width 0.05, with the voxels of all test cases and seeds; beside it
    how far the cases lie apart.
    """
    found = []
    for _, reader, place, about in _everywhere(study):
        binned = reader.binned(*place)
        about |= {"seeds": len(binned.counts), "p_in_bins": binned.p_in_bins}
        columns = _diagram(binned)
        if place[-1] == EITHER:
            columns |= _agreement(reader.pairs(*place[:2]), binned.edges)
        found += [
            about | {name: values[index] for name, values in columns.items()}
            for index in range(len(calibration.WIDE) - 1)
        ]
    return found


def _diagram(binned: Binned) -> dict[str, Sequence[float] | _Array]:
    """The columns of one reliability diagram, a value for each bin."""
    bins = binned.bins()
    everything = bins.pooled(axis=(0, 1))
    return {
        "bin_low": calibration.WIDE[:-1],
        "bin_high": calibration.WIDE[1:],
        "confidence": everything.confidence,
        "frequency": everything.frequency,
        "n_voxels": [int(n) for n in everything.n],
        **_between_cases(bins.pooled(axis=0)),
    }


def _between_cases(cases: Bins) -> dict[str, Sequence[float]]:
    """How many cases have voxels in each bin, and the 10th and 90th percentile."""
    frequency = cases.frequency
    low, high, held = [], [], []
    for index in range(frequency.shape[-1]):
        values = frequency[cases.n[:, index] >= ENOUGH, index]
        enough = values.size > 0
        low.append(float(np.percentile(values, 10)) if enough else float("nan"))
        high.append(float(np.percentile(values, 90)) if enough else float("nan"))
        held.append(int((cases.n[:, index] > 0).sum()))
    return {"n_cases": held, "frequency_p10": low, "frequency_p90": high}


def _agreement(pairs: _Array, edges: _Array) -> dict[str, _Array]:
    """Shares of voxels in each bin that both, one or no observer marked."""
    rows = pairs.sum(axis=(0, 1))
    parts = {"both": rows[3], "one": rows[1] + rows[2], "none": rows[0]}
    shares = {}
    for name, part in parts.items():
        # As if these voxels were the target.
        counts = np.stack([rows.sum(axis=0) - part, part])
        joined = calibration.join(counts, histograms.centres(edges), edges)
        shares[f"share_{name}"] = joined.frequency
    return shares


_SHOWN = ("ace", "reliability", "resolution")


def markdown(study: Study) -> str:
    """Lay out calibration for the README: a row a loss and class, first observer.

    ECE of the whole image beside the measures of the narrowest region that all of the
    losses were measured in.
    """
    values: dict[tuple[object, ...], _Row] = {
        (row["loss"], row["gamma"], row["target"], row["region"], row["measure"]): row
        for row in rows(study)
        if row["reference"] == _PAIR[0]
    }
    region = _narrowest(study, {(key[0], key[1], key[3]) for key in values})
    regions = [one for one in _REGIONS if one in {key[3] for key in values}]
    shown = [*((one, "ece") for one in regions), *((region, one) for one in _SHOWN)]
    heads = ["loss", *(f"ECE, {one}" for one in regions), "ACE", *_SHOWN[1:]]
    lines = []
    for variant in study.main:
        for target in study.targets:
            own = (*identity(variant).values(), target)
            name = variant.label
            name += f", {target}" if len(study.targets) > 1 else ""
            cells = [_cell(values.get((*own, *one))) for one in shown]
            lines.append([name, *cells])
    note = (
        "Mean over test images ± standard error, first observer. ECE, ACE: 20 bins of "
        "0.05. Reliability (lower is better) and resolution (higher is better): "
        f"Murphy's parts of the Brier score. Without another word: {region}."
    )
    return f"{table(heads, lines)}\n\n{note}"


def _narrowest(study: Study, measured: set[tuple[object, ...]]) -> str:
    """The last of the regions that every main variant has."""
    return next(
        region
        for region in reversed(_REGIONS)
        if all((*identity(v).values(), region) in measured for v in study.main)
    )


def _cell(row: _Row | None) -> str:
    if row is None:
        return ""
    digits = 3 if row["measure"] in ("ece", "ace") else 4
    return "{mean:.{d}f} ± {standard_error:.{d}f}".format(**row, d=digits)
