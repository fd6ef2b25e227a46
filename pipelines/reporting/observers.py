"""Two observers of the same images: how far they agree, and what networks say there.

The second observer against the first is the human reference for the networks' Dice. The
pair shows what one observer cannot: whether p is near one half where people disagree.
All of it comes from counts and `cases.csv`; no image is read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipelines.measure import calibration
from pipelines.measure.metrics import overlap_scores
from pipelines.reporting.calibration import (
    EITHER,
    Binned,
    Reader,
    identity,
    spread,
)
from pipelines.reporting.markdown import table
from pipelines.reporting.study import Study, Variant

__all__ = ["COLUMNS", "HUMAN", "NEAR_HALF", "TABLE", "markdown", "rows"]

TABLE = "observers.csv"
COLUMNS = (
    "who", "gamma", "target", "region", "reference", "measure", "mean",
    "standard_error", "ci_low", "ci_high", "n", "seeds", "n_undefined",
)  # fmt: skip

HUMAN = "observer2"
"""In the column `who`: the second annotator in the place of a network."""

NEAR_HALF = (0.25, 0.75)
"""p in [low, high) is called near one half; both are edges of the histograms."""

_OBSERVERS = ("observer1", "observer2")
_OVERLAP = ("dice", "jaccard", "precision", "recall")
_SCORES = ("nll", "brier")
# Rows of `count_pair`: 00, 01, 10, 11.
_WHERE = {"both": (3,), "one": (1, 2), "none": (0,)}
_Array = npt.NDArray[np.float64]
_Row = dict[str, object]


def rows(study: Study) -> list[_Row]:
    """Compare observers and networks, with `COLUMNS`; none without two observers.

    First the second observer against the first, then each variant against both, with
    mean, error and interval over cases as in `estimate`.
    """
    found: list[_Row] = []
    for variant in study.runs:
        reader = Reader(study, variant)
        for target, region, reference in reader.places():
            if reference != EITHER:
                continue
            pairs = reader.pairs(target, region)
            about: _Row = {"target": target, "region": region}
            if not any(_same(row, about) for row in found):
                found += [about | row for row in _human(pairs)]
            who = identity(variant)
            about = {"who": who["loss"], "gamma": who["gamma"]} | about
            rest = [
                *_against_each(study, variant, target, region),
                *_against_both(reader.binned(target, region, EITHER), pairs),
            ]
            found += [about | row for row in rest]
    # What people do stands first, whatever was trained.
    return sorted(found, key=lambda row: row["who"] != HUMAN)


def _same(row: _Row, about: _Row) -> bool:
    return row["who"] == HUMAN and all(row[key] == about[key] for key in about)


def _human(pairs: _Array) -> Iterator[_Row]:
    """The second observer, measured as if it were a network's prediction."""
    none, second, first, both = np.moveaxis(pairs[:1].sum(axis=-1), -1, 0)
    voxels = _or_nan(none + second + first + both)
    scores = overlap_scores(both, second, first)
    # 0 and 1 in the place of p: the Brier score is the share that they disagree on.
    scores["brier"] = (first + second) / voxels
    own = {"who": HUMAN, "gamma": None}
    for measure, values in scores.items():
        yield _row("observer1", measure, values) | own
    for name, part in (("both", both), ("one", first + second), ("none", none)):
        yield _row(EITHER, f"share_{name}", part / voxels) | own


def _against_each(
    study: Study, variant: Variant, target: str, region: str
) -> Iterator[_Row]:
    """One variant against each observer, and what to expect of one drawn at random."""
    for measure in (*_OVERLAP, *_SCORES):
        each = [
            study.measures_in(variant, target, measure, region, one)
            for one in _OBSERVERS
        ]
        for one, values in zip(_OBSERVERS, each, strict=True):
            yield _row(one, measure, values)
        if measure in _SCORES:
            yield _row(EITHER, measure, np.mean(each, axis=0))


def _against_both(binned: Binned, pairs: _Array) -> Iterator[_Row]:
    """One variant against the mean of both labels, and p by what they say."""
    bins = binned.bins()
    yield _row(EITHER, "ece", calibration.ece(bins))
    yield _row(EITHER, "ace", calibration.ace(bins))
    low, high = (np.abs(binned.edges - edge).argmin() for edge in NEAR_HALF)
    for name, which in _WHERE.items():
        counts = pairs[..., list(which), :].sum(axis=-2)
        voxels = _or_nan(counts.sum(axis=-1))
        # A bin's mean p is that of all its voxels, whatever their labels: what comes
        # out is off by less than the width of a bin.
        mean = (counts * binned.confidence).sum(axis=-1) / voxels
        yield _row(EITHER, f"mean_p_{name}", mean)
        near = counts[..., low:high].sum(axis=-1) / voxels
        yield _row(EITHER, f"near_half_{name}", near)


def _or_nan(voxels: _Array) -> _Array:
    """A number to divide by: none is undefined, not infinite."""
    return np.where(voxels > 0, voxels, np.nan)


def _row(reference: str, measure: str, values: _Array) -> _Row:
    return {"reference": reference, "measure": measure} | spread(values)


def markdown(study: Study) -> str:
    """Say for the README how far observers agree, and what p is where they do not."""
    found = [row for row in rows(study) if row["region"] == "image"]
    if not found:
        return "*These images have one observer.*"
    return "\n\n".join(_said(study, found, target) for target in study.targets)


def _said(study: Study, found: list[_Row], target: str) -> str:
    """A sentence and a table on one class."""
    values: dict[tuple[object, ...], _Row] = {
        (row["who"], row["gamma"], row["reference"], row["measure"]): row
        for row in found
        if row["target"] == target
    }
    pm, plain = "{mean:.3f} ± {standard_error:.3f}", "{mean:.2f}"
    columns = (
        ("observer1", "dice", pm), ("observer2", "dice", pm),
        (EITHER, "mean_p_one", plain), (EITHER, "near_half_one", plain),
    )  # fmt: skip
    header = [
        target, "Dice, first observer", "Dice, second", "mean p where they disagree",
        "share of that with p from 0.25 to 0.75",
    ]  # fmt: skip
    lines = []
    for variant in study.main:
        who = tuple(identity(variant).values())
        cells = [
            form.format(**values[*who, reference, measure])
            for reference, measure, form in columns
        ]
        lines.append([variant.label, *cells])
    human = values[HUMAN, None, "observer1", "dice"]
    apart = values[HUMAN, None, EITHER, "share_one"]
    return (
        f"Against the first observer's {target}, the second has Dice "
        f"{pm.format(**human)}. The two disagree on "
        f"{100 * float(str(apart['mean'])):.1f} % of the image.\n\n"
        + table(header, lines)
    )
