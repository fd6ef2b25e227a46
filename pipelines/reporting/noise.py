"""Which published differences are larger than what two trainings differ by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from pipelines.measure import metrics
from pipelines.reporting.estimates import mean_of
from pipelines.reporting.published import Cell, partner_of
from pipelines.reporting.study import Study, Variant

__all__ = ["COLUMNS", "TABLE", "rows", "summary"]

TABLE = "noise.csv"
COLUMNS = (
    "table", "loss", "gamma", "target", "metric", "partner", "partner_gamma",
    "published_difference", "noise", "df", "limit", "exceeds",
)  # fmt: skip

_Row = dict[str, object]


def rows(study: Study, cells: Sequence[Cell]) -> list[_Row]:
    """Hold each published difference against the spread over seeds, with `COLUMNS`.

    The noise is what two single trainings that differ in nothing but the seed differ
    by, one standard deviation: sqrt(2) s, where s^2 is the variance over seeds of the
    mean over test cases, pooled over the losses with several seeds, with `df` degrees
    of freedom. A difference exceeds it beyond the 97.5 % quantile of Student's t for
    these, times the noise (`limit`).

    Args:
        study: the runs.
        cells: the published cells of its data set; each is compared with its
            `partner_of`.

    Returns:
        A row for each published difference, once, in the order of the tables; none
        where no loss has several seeds.
    """
    found: list[_Row] = []
    seen = set()
    for cell in cells:
        own = [other for other in cells if other.table == cell.table]
        partner = partner_of(cell, own)
        target = cell.target or study.targets[0]
        if partner is None or target not in study.targets:
            continue
        key = frozenset((cell, partner))
        if key in seen:
            continue
        seen.add(key)
        df, noise = _noise(study, target, cell.metric)
        if not df:
            continue
        limit = float(stats.t.ppf(0.975, df)) * noise
        # Rounded, as the difference of printed decimals has last bits of its own.
        difference = round(cell.value - partner.value, 12) + 0.0
        found.append(
            {
                "table": cell.table.removeprefix("table"),
                "loss": cell.loss,
                "gamma": cell.gamma,
                "target": target,
                "metric": cell.metric,
                "partner": partner.loss,
                "partner_gamma": partner.gamma,
                "published_difference": difference,
                "noise": noise,
                "df": df,
                "limit": limit,
                "exceeds": "yes" if abs(difference) > limit else "no",
            }
        )
    return found


def _noise(study: Study, target: str, metric: str) -> tuple[int, float]:
    """Degrees of freedom, and what two trainings differ by; 0 and NaN: not known."""
    df, squares = 0, 0.0
    for variant in _repeated(study):
        means = mean_of(study.measures(variant, target, metric), axis=1)
        means = means[~np.isnan(means)]
        if len(means) > 1:
            df += len(means) - 1
            squares += float(((means - means.mean()) ** 2).sum())
    return df, math.sqrt(2 * squares / df) if df else math.nan


def _repeated(study: Study) -> list[Variant]:
    """The trainings, as they were, of which there are several."""
    return [
        variant
        for variant in study.runs
        if not variant.method and len(study.seeds(variant)) > 1
    ]


def summary(found: Sequence[_Row]) -> list[list[str]]:
    """How many of each table's differences exceed the noise, by metric.

    Args:
        found: of `rows`, of one study.

    Returns:
        Lines of cells, the header first: a line for each table, then the noise.
    """
    names = list(dict.fromkeys(str(row["metric"]) for row in found))
    words = {column: word for word, column in metrics.PAPER_COLUMN.items()}
    lines = [["", *(_heading(words[name]) for name in names)]]
    for table in sorted({str(row["table"]) for row in found}):
        line = [f"Table {table}"]
        for name in names:
            own = [
                row["exceeds"] == "yes"
                for row in found
                if (row["table"], row["metric"]) == (table, name)
            ]
            line.append(f"{sum(own)} of {len(own)}")
        lines.append(line)
    noises = {str(row["metric"]): row["noise"] for row in found}
    lines.append(["noise", *(f"{noises[name]:.4f}" for name in names)])
    return lines


def _heading(word: str) -> str:
    return "NLL" if word == "nll" else word.capitalize()
