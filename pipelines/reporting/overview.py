"""Every published cell once, whichever preset fills it: the tables over all data sets.

The tables of one folder have the cells of one data set at one preset. Here all cells
that the paper prints stand together, also those of data sets that have no run.
"""

from collections.abc import Mapping, Sequence

from pipelines.reporting.published import PAPER_TABLES, Cell
from pipelines.reporting.study import Study

__all__ = ["PRESETS", "overview_rows"]

PRESETS = ("paper", "reduced")
"""What may fill a published cell, the first first; demonstrations never do."""

_Row = dict[str, object]
_Tables = Mapping[str, Sequence[_Row]]


def overview_rows(
    cells: Sequence[Cell], made: Sequence[tuple[Study, _Tables]]
) -> dict[str, list[_Row]]:
    """Collect the rows of all published cells, by file name.

    Args:
        cells: all published cells.
        made: each study with its own tables by file name, as `tables.table_rows` makes
            them. Simulated ones and other presets than `PRESETS` are left out.

    Returns:
        Rows with `dataset`, `preset` and the columns of the study's own row, in the
        order of `cells`. A cell that no preset was run for has its published values
        alone and the verdict "not run".
    """
    usable = sorted(
        ((s, own) for s, own in made if not s.simulated and s.preset in PRESETS),
        key=lambda item: PRESETS.index(item[0].preset),
    )
    return {
        f"{table}.csv": [_row(cell, usable) for cell in cells if cell.table == table]
        for table in sorted(PAPER_TABLES)
    }


def _row(cell: Cell, made: Sequence[tuple[Study, _Tables]]) -> _Row:
    for study, own in made:
        if study.title != cell.dataset:
            continue
        row = _find(cell, cell.target or study.targets[0], own)
        if row is not None and row["verdict"] != "not run":
            return {"dataset": cell.dataset, "preset": study.preset} | row
    return {
        "dataset": cell.dataset,
        "loss": cell.loss,
        "gamma": cell.gamma,
        "target": cell.target,
        "metric": cell.metric,
        "published": cell.value,
        "published_se": cell.standard_error,
        "verdict": "not run",
    }


def _find(cell: Cell, target: str, own: _Tables) -> _Row | None:
    wanted = (cell.loss, cell.gamma, target, cell.metric)
    for row in own.get(f"{cell.table}.csv", ()):
        if tuple(row[key] for key in ("loss", "gamma", "target", "metric")) == wanted:
            return row
    return None
