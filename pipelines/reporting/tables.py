"""Tables of the paper beside ours, tests and thresholds: CSV files from run files.

Needs neither the images nor a backend: everything comes from `run.json`, `cases.csv`
and `histograms.npz`. What every column means is in `results/README.md`.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from data_io.errors import InputError
from pipelines.measure import histograms, metrics, statistics
from pipelines.reporting import (
    calibration,
    claims,
    costs,
    decisions,
    noise,
    observers,
    other_sets,
    overview,
    summary,
    temperatures,
)
from pipelines.reporting.estimates import Estimate, estimate, mean_of
from pipelines.reporting.published import (
    Cell,
    paper_folder,
    partner_of,
    published_cells,
)
from pipelines.reporting.study import Study, Variant, groups, open_study
from pipelines.run import write_csv

__all__ = [
    "OVERVIEW_COLUMNS",
    "TABLE_COLUMNS",
    "TEST_COLUMNS",
    "TEST_METRICS",
    "THRESHOLD_COLUMNS",
    "THRESHOLD_METRICS",
    "Estimate",
    "comparison_rows",
    "estimate",
    "study_of",
    "table_rows",
    "threshold_rows",
    "verdict",
    "write_tables",
]

TABLE_COLUMNS = (
    "loss",
    "gamma",
    "target",
    "metric",
    "mean",
    "standard_error",
    "ci_low",
    "ci_high",
    "n",
    "seeds",
    "published",
    "published_se",
    "difference",
    "verdict",
    "direction",
    "n_undefined",
)
OVERVIEW_COLUMNS = ("dataset", "preset", *TABLE_COLUMNS)
TEST_COLUMNS = (
    "metric",
    "loss_a",
    "loss_b",
    "test",
    "n",
    "statistic",
    "p",
    "p_holm",
    "target",
)
THRESHOLD_COLUMNS = (
    "loss",
    "threshold",
    "metric",
    "mean",
    "ci_low",
    "ci_high",
    "target",
)
TEST_METRICS = ("nll_published", "brier_published", "nll", "brier", "dice", "jaccard")
THRESHOLD_METRICS = ("precision", "recall", "dice")

EXTRA_TABLE = "table.csv"
"""For what no table of the paper has a cell for: phantoms, other gammas, backends."""

_OPTIONAL = {
    EXTRA_TABLE,
    noise.TABLE,
    observers.TABLE,
    other_sets.TABLE,
    temperatures.TABLE,
}

_Z = 1.96  # two-sided 95 %
_NAN = float("nan")
_Row = dict[str, object]
_Files = dict[str, tuple[Sequence[str], list[_Row]]]


def study_of(folder: Path) -> tuple[Study, tuple[Cell, ...]]:
    """Join the runs of one folder, with the published cells of its data set.

    Args:
        folder: `results/<dataset>/<preset>`.

    Raises:
        InputError: see `open_study` and `published_cells`.
    """
    everything = published_cells(paper_folder(Path(folder).parents[1]))
    order = tuple(dict.fromkeys(cell.loss for cell in everything))
    study = open_study(folder, order)
    # A simulated data set has no cells, whatever title it was given.
    cells = () if study.simulated else everything
    return study, tuple(cell for cell in cells if cell.dataset == study.title)


def verdict(
    preset: str, ours: Estimate | None, published: float, published_se: float
) -> str:
    """Say whether a published value was reproduced.

    Args:
        preset: only "paper" can be within or outside.
        ours: our estimate; None where nothing was trained.
        published: the printed mean.
        published_se: its standard error.

    Returns:
        "not run"; "reduced" for any other preset, where only `direction` is judged;
        "within" where |ours - published| <= 1.96 sqrt(SE^2 + SE_published^2); else
        "outside", also where ours is undefined.
    """
    if ours is None:
        return "not run"
    if preset != "paper":
        return "reduced"
    # One test image has no standard error: the paper's alone is left.
    error = 0.0 if math.isnan(ours.standard_error) else ours.standard_error
    limit = _Z * math.hypot(error, published_se)
    # The last bits of a difference of printed decimals must not decide.
    return "within" if abs(ours.mean - published) <= limit + 1e-12 else "outside"


class _Estimates:
    """Estimates of one study, made once each: Tables 3 and 4 share a row."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._made: dict[tuple[Variant, str, str], Estimate] = {}

    def get(self, variant: Variant, target: str, metric: str) -> Estimate | None:
        """Return the estimate, or None where the variant was not run."""
        trained = self.study.standing_in(variant)
        if trained is None or target not in self.study.targets:
            return None
        key = (trained, target, metric)
        if key not in self._made:
            self._made[key] = estimate(self.study.measures(*key))
        return self._made[key]


def table_rows(study: Study, cells: Sequence[Cell]) -> dict[str, list[_Row]]:
    """Make the rows of every table of one study.

    Args:
        study: the runs.
        cells: the published cells of its data set; may be empty.

    Returns:
        Rows with `TABLE_COLUMNS` by file name: "table3.csv" to "table6.csv" where the
        data set is in that table of the paper, and `EXTRA_TABLE` where variants are
        left that are in none. Corrected metrics follow the published ones.
    """
    estimates, tables = _Estimates(study), {}
    for table in sorted({cell.table for cell in cells}):
        own = [cell for cell in cells if cell.table == table]
        tables[f"{table}.csv"] = _published_rows(study, estimates, own)
    covered = {cell.variant for cell in cells}
    rest = [variant for variant in study.runs if variant not in covered]
    if rest:
        tables[EXTRA_TABLE] = [
            _row(variant, target, metric, estimates.get(variant, target, metric))
            for variant in rest
            for target in study.targets
            for metric in metrics.METRICS
        ]
    return tables


def _published_rows(
    study: Study, estimates: _Estimates, cells: Sequence[Cell]
) -> list[_Row]:
    """Rows of one table of the paper: published cells, then corrected metrics."""
    found = {(cell.variant, _target(study, cell), cell.metric): cell for cell in cells}
    rows: list[_Row] = []
    for variant, target in dict.fromkeys(key[:2] for key in found):
        for metric in metrics.METRICS:
            ours = estimates.get(variant, target, metric)
            cell = found.get((variant, target, metric))
            if cell is not None:
                row = _row(variant, target, metric, ours)
                row |= _judged(study, cell, ours)
                row["direction"] = _direction(cell, cells, target, estimates)
                rows.append(row)
            elif ours is not None:
                rows.append(_row(variant, target, metric, ours))
    return rows


def _target(study: Study, cell: Cell) -> str:
    """The class a cell is about; tables of binary data sets do not name it."""
    return cell.target or study.targets[0]


def _row(variant: Variant, target: str, metric: str, ours: Estimate | None) -> _Row:
    # The label without gamma, which has a column of its own.
    name = Variant(variant.loss, None, variant.method, variant.backend).label
    row: _Row = {
        "loss": name,
        "gamma": variant.gamma,
        "target": target,
        "metric": metric,
    }
    return row if ours is None else row | vars(ours)


def _judged(study: Study, cell: Cell, ours: Estimate | None) -> _Row:
    # Rounded, as 0.3 - 0.1 - 0.2 is not 0, and what it is differs between machines.
    difference = _NAN if ours is None else round(ours.mean - cell.value, 12) + 0.0
    return {
        "published": cell.value,
        "published_se": cell.standard_error,
        "difference": difference,
        "verdict": verdict(study.preset, ours, cell.value, cell.judged_error),
    }


def _direction(
    cell: Cell, cells: Sequence[Cell], target: str, estimates: _Estimates
) -> str:
    """Say whether we differ from the cell's partner the way the paper does.

    Returns:
        "same" or "opposite"; "" where there is no partner, where the paper's own
        difference is not beyond 1.96 sqrt(SE^2 + SE^2), or where one was not run.
    """
    partner = partner_of(cell, cells)
    if partner is None:
        return ""
    published = cell.value - partner.value
    limit = _Z * math.hypot(cell.judged_error, partner.judged_error)
    ours = estimates.get(cell.variant, target, cell.metric)
    theirs = estimates.get(partner.variant, target, cell.metric)
    if abs(published) <= limit + 1e-12 or ours is None or theirs is None:
        return ""
    return "same" if published * (ours.mean - theirs.mean) > 0 else "opposite"


def comparison_rows(study: Study) -> list[_Row]:
    """Compare all pairs of the study's main variants, with `TEST_COLUMNS`.

    Each case is averaged over the seeds that both have. Both tests take the cases that
    are defined for both losses. Holm's correction is over the pairs of one metric,
    target and test.
    """
    rows: list[_Row] = []
    for target in study.targets:
        for metric in TEST_METRICS:
            for test in (statistics.rank_sum, statistics.signed_rank):
                rows += _family(study, target, metric, test.__name__)
    return rows


def _family(study: Study, target: str, metric: str, test: str) -> list[_Row]:
    function = getattr(statistics, test)
    rows: list[_Row] = []
    for a, b in combinations(study.main, 2):
        values_a, values_b = (
            mean_of(study.measures(variant, target, metric)[own], axis=0)
            for variant, own in zip((a, b), study.shared(a, b), strict=True)
        )
        both = ~np.isnan(values_a) & ~np.isnan(values_b)
        result = function(values_a[both], values_b[both])
        rows.append(
            {
                "metric": metric,
                "loss_a": a.label,
                "loss_b": b.label,
                "test": test,
                "n": int(both.sum()),
                "statistic": result.statistic,
                "p": result.p,
                "target": target,
            }
        )
    adjusted = statistics.holm([float(str(row["p"])) for row in rows])
    return [row | {"p_holm": float(p)} for row, p in zip(rows, adjusted, strict=True)]


def threshold_rows(study: Study) -> list[_Row]:
    """Measure the main variants at each softmax threshold, with `THRESHOLD_COLUMNS`.

    From the histograms alone; mean and interval as in `estimate`.
    """
    rows: list[_Row] = []
    for target in study.targets:
        for variant in study.main:
            values = study.at_thresholds(variant, target)
            for index, threshold in enumerate(histograms.THRESHOLDS):
                for metric in THRESHOLD_METRICS:
                    found = estimate(values[metric][:, :, index])
                    rows.append(
                        {
                            "loss": variant.label,
                            "threshold": float(threshold),
                            "metric": metric,
                            "mean": found.mean,
                            "ci_low": found.ci_low,
                            "ci_high": found.ci_high,
                            "target": target,
                        }
                    )
    return rows


def write_tables(results: Path) -> list[Path]:
    """Write the tables of every `results/<dataset>/<preset>/` with a finished run.

    Where one of them has cells of the paper, also what stands over all data sets, in
    `results` itself: every published cell, every claim of the text, and their numbers.

    Args:
        results: the folder of all results.

    Returns:
        The files written, in order. A run that is not evaluated yet is left out, and
        so are runs with overrides (`custom-...`).

    Raises:
        InputError: no finished run at all; runs that cannot be joined (both are named).
    """
    folders = groups(results)
    if not folders:
        raise InputError(
            f"{results}: expected evaluated runs in <dataset>/<preset>/runs/, found "
            "none; make some with `make demo` or `make reproduce-drive DATA=...`"
        )
    # All are joined before any is written: an error leaves the old tables together.
    made = [_tables_of(folder) for folder in folders]
    over_all = _over_all(results, made)
    written = []
    for study, files in made:
        for name in _OPTIONAL - files.keys():
            (study.folder / name).unlink(missing_ok=True)
        written += _write(study.folder, files)
    return written + _write(Path(results), over_all)


def _write(folder: Path, files: _Files) -> list[Path]:
    return [
        write_csv(folder / name, columns, _rounded(rows))
        for name, (columns, rows) in files.items()
    ]


def _tables_of(folder: Path) -> tuple[Study, _Files]:
    """Columns and rows of every file beside `runs/`, by name."""
    study, cells = study_of(folder)
    files: _Files = {
        name: (TABLE_COLUMNS, rows) for name, rows in table_rows(study, cells).items()
    }
    files["tests.csv"] = (TEST_COLUMNS, comparison_rows(study))
    files["thresholds.csv"] = (THRESHOLD_COLUMNS, threshold_rows(study))
    files[calibration.TABLE] = (calibration.COLUMNS, calibration.rows(study))
    files[calibration.DIAGRAM] = (
        calibration.DIAGRAM_COLUMNS,
        calibration.diagram_rows(study),
    )
    files[costs.TABLE] = (costs.COLUMNS, costs.rows(study))
    pair = observers.rows(study)
    if pair:
        files[observers.TABLE] = (observers.COLUMNS, pair)
    elsewhere = other_sets.rows(run for runs in study.runs.values() for run in runs)
    if elsewhere:
        files[other_sets.TABLE] = (other_sets.COLUMNS, elsewhere)
    beyond = noise.rows(study, cells)
    if beyond:
        files[noise.TABLE] = (noise.COLUMNS, beyond)
    scaled = temperatures.rows(study)
    if scaled:
        files[temperatures.TABLE] = (temperatures.COLUMNS, scaled)
    return study, files


def _over_all(results: Path, made: Sequence[tuple[Study, _Files]]) -> _Files:
    """Columns and rows of the files in `results` itself, by name."""
    paper = paper_folder(results)
    cells = published_cells(paper)
    titles = {cell.dataset for cell in cells}
    if not any(not study.simulated and study.title in titles for study, _ in made):
        return {}
    own = [(s, {name: rows for name, (_, rows) in files.items()}) for s, files in made]
    tables = overview.overview_rows(cells, own)
    decided = decisions.claim_rows(paper, [(s, rows["tests.csv"]) for s, rows in own])
    files: _Files = {name: (OVERVIEW_COLUMNS, rows) for name, rows in tables.items()}
    files[claims.FILE] = (decisions.COLUMNS, decided)
    files[summary.FILE] = (summary.COLUMNS, summary.summary_rows(tables, decided))
    return files


def _rounded(rows: Iterable[_Row]) -> list[dict[str, object]]:
    """Floats to 6 significant digits: more would differ between machines."""
    return [
        {
            key: f"{value:.6g}"
            if isinstance(value, float) and value == value
            else value
            for key, value in row.items()
        }
        for row in rows
    ]
