"""Uses of each loss's probabilities: thresholds, decoding, volumes.

Only the histograms of validation and test cases are used. Choices are made on the
validation cases of each training, and measured on its test cases.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipelines.measure import calibration, decisions
from pipelines.measure.histograms import Histograms, bin_of_threshold
from pipelines.measure.metrics import ratio
from pipelines.measure.regions import BAND
from pipelines.posthoc import maps
from pipelines.reporting import data, markdown, tables
from pipelines.reporting.estimates import estimate
from pipelines.reporting.frame import Study
from pipelines.reporting.published import KEYS, Variant
from pipelines.reporting.tables import framed

FILE = "practice.csv"
ALPHA = 0.1
"""The highest share of missed voxels that the conformal threshold allows."""

COLUMNS = tables.COLUMNS["practice"]
_Floats = npt.NDArray[np.float64]
_HALF = 0.5


@dataclass(frozen=True)
class _Cases:
    """Cases of one training: names (cases,), (cases, 2, B), (cases, B)."""

    case: npt.NDArray[Any]
    counts: npt.NDArray[Any]
    confidence: _Floats

    def after(self, method: str, fitted: list[float]) -> Self:
        return type(self)(
            self.case, *maps.of_bins(method, self.counts, self.confidence, fitted)
        )


def table(study: Study) -> pd.DataFrame:
    """Return a row for each variant, class and measure; means over cases and seeds.

    `results/README.md` explains each measure. Thresholds, the conformal one (rate
    `ALPHA`) included, are chosen on the validation cases of each training. For `nll`
    and `brier` each voxel counts with the mean p of its bin.

    The losses in `SHOWN` also have rows after each method of `maps` that no run has:
    fitted on the validation histograms of each training, applied to all its histograms.
    """
    standard = (Variant.standard(loss) for loss in SHOWN)
    plain = [variant for variant in standard if variant in study.runs]
    mapped = [
        replace(variant, method=name) for variant, name in product(plain, maps.METHODS)
    ]
    variants = dict.fromkeys([*study.runs, *mapped])
    rows = (
        variant.columns | {"target": target, "measure": name} | vars(estimate(values))
        for variant, target in product(variants, study.targets)
        for name, values in _measures(study, variant, target).items()
    )
    return framed(rows, "practice")


def _measures(study: Study, variant: Variant, target: str) -> dict[str, _Floats]:
    """Return each measure, (seeds, cases); of a threshold and the AURC (seeds, 1)."""
    by_name: dict[str, list[_Floats]] = {}
    trained = variant if variant in study.runs else variant.trained
    for run in study.runs[trained]:
        file = study.histograms[str(run.folder)]
        selections = ("validation", "image"), ("test", "image"), ("test", BAND)
        parts = [_cases(file, *selection, target) for selection in selections]
        if trained != variant:
            if maps.lacking(parts[0].counts):
                return {}
            fit = maps.fit(variant.method, parts[0].counts, parts[0].confidence)
            parts = [part.after(variant.method, fit) for part in parts]
        validation, test, band = parts
        for name, values in _of_training(validation, test, band, study.edges):
            by_name.setdefault(name, []).append(np.atleast_1d(values))
    return {name: study.by_seed(trained, np.stack(v)) for name, v in by_name.items()}


def _cases(file: Histograms, split: str, region: str, target: str) -> _Cases:
    where = {"split": split, "region": region, "target": target}
    rows = file.where(reference="observer1", **where)
    return _Cases(file.case[rows], file.counts[rows], file.confidence()[rows])


def _of_training(
    validation: _Cases, test: _Cases, band: _Cases, edges: _Floats
) -> Iterator[tuple[str, npt.ArrayLike]]:
    """Yield measures of one training: of its test cases, (cases,), or one number."""
    fine = calibration.join(test.counts, test.confidence, edges, None)
    yield from calibration.scores(fine).items()
    ece = calibration.ece(calibration.join(band.counts, band.confidence, edges))
    yield "ece_band", pd.Series(ece, band.case).reindex(test.case).to_numpy()
    dice, half = decisions.dice(test.counts), bin_of_threshold(edges, _HALF)
    true = test.counts[:, 1].sum(axis=-1)
    expected = decisions.expected_dice(test.counts, test.confidence)
    yield "dice_half", dice[:, half]
    # Without a case to choose on, the threshold is 0.5.
    chosen, _ = decisions.best_threshold([validation.counts], edges) or (_HALF, None)
    yield "threshold_chosen", chosen
    yield "dice_chosen", dice[:, bin_of_threshold(edges, chosen)]
    decoded = np.nan_to_num(expected, nan=-1).argmax(axis=-1)
    yield "dice_expected", np.take_along_axis(dice, decoded[:, None], -1)[:, 0]
    volume = decisions.expected_volume(test.counts, test.confidence)
    positive = decisions.positives(test.counts)
    yield "volume_expected", ratio(volume, true) - 1
    yield "volume_half", ratio(positive[:, half], true) - 1
    missed = decisions.false_negatives(test.counts)
    cut = decisions.conformal(decisions.false_negatives(validation.counts), ALPHA)
    undefined = np.full(len(true), np.nan)
    yield "threshold_conformal", np.nan if cut is None else float(edges[cut])
    yield "missed", undefined if cut is None else missed[:, cut]
    yield "set_size", undefined if cut is None else ratio(positive[:, cut], true)
    yield "aurc", decisions.aurc(1 - dice[:, half], expected[:, half])


SHOWN = ("CE", "Focal", "DSC", "DSC++")
_CELLS: Mapping[str, Sequence[Any]] = data("pages")["practice"]
_Files = Mapping[str, pd.DataFrame]


def described(study: Study, files: _Files) -> str:
    """Lay out the losses of Table 4, each unscaled and after a temperature."""
    rows = files[FILE]
    last = rows["method"].str.rpartition(" + ")[2]
    rows = rows[~last.isin(maps.METHODS)]
    return _laid_out(study, rows, list(_CELLS)[3:])


def scaled(study: Study, files: _Files) -> str:
    """Lay out the losses of Table 4, each unscaled and after every method."""
    rows = files[FILE]
    rows = rows[rows["loss"].isin(SHOWN)]
    rows = rows.sort_values(
        "loss", key=lambda names: names.map(SHOWN.index), kind="stable"
    )
    return _laid_out(study, rows, list(_CELLS)[:6])


def _laid_out(study: Study, measures: pd.DataFrame, shown: Sequence[str]) -> str:
    """Lay out a row for each loss and method, with columns of measures, in Markdown."""
    kept = measures[
        measures["loss"].isin(SHOWN) & measures["gamma"].isin([2.0, np.nan])
    ]
    known = [name for name in shown if kept.loc[kept["measure"] == name, "mean"].any()]
    rows = []
    keys = [*KEYS, "target"]
    for (loss, _, method, target), part in kept.groupby(keys, sort=False, dropna=False):
        name = " + ".join(filter(None, (loss, method)))
        several = f", {target}" if len(study.targets) > 1 else ""
        values = part.set_index("measure")
        cells = [_cell(values.loc[measure], *_CELLS[measure]) for measure in known]
        rows.append([name + several, *cells])
    return markdown.table(["", *(_CELLS[name][0] for name in known)], rows)


def _cell(row: pd.Series, _: str, form: str, interval: bool = False) -> str:
    """Return a mean in its format, with its `interval` where there is one."""
    if row["mean"] != row["mean"]:
        return ""
    text = f"{row['mean']:{form}}"
    if not interval or row["n"] == 1:
        return text
    # A bias begins at -100 %. What else has an interval begins at 0; only the NLL has
    # no upper limit.
    limits = (-1, math.inf) if form.endswith("%") else (0, 1)
    if row.name == "nll":
        limits = (0, math.inf)
    return text + markdown.interval((row["ci_low"], row["ci_high"]), form, limits)
