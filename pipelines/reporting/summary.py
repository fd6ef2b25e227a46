"""How many cells and claims came out how."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data_io.errors import InputError
from pipelines.reporting.rules import FAILS, HOLDS, NOT_RUN, UNDECIDED

__all__ = ["CELLS", "CLAIMS", "COLUMNS", "FILE", "read_counts", "summary_rows"]

FILE = "summary.csv"
COLUMNS = ("kind", "group", "verdict", "count")

CELLS = (
    "within",
    "outside",
    "reduced, same direction",
    "reduced, opposite direction",
    "reduced, no direction",
    NOT_RUN,
)
"""What can become of a published cell: a reduced one is judged on direction only."""

CLAIMS = (HOLDS, FAILS, UNDECIDED, NOT_RUN)
"""What can become of a claim of the text."""

_Row = dict[str, object]


def summary_rows(
    tables: Mapping[str, Iterable[_Row]], claims: Sequence[_Row]
) -> list[_Row]:
    """Count verdicts, with `COLUMNS`: for each table, each section and for all.

    Args:
        tables: rows of `overview.overview_rows`.
        claims: rows of `decisions.claim_rows`.
    """
    cells = [
        (f"Table {name.removesuffix('.csv')[-1]}", _of_cell(row))
        for name, rows in tables.items()
        for row in rows
    ]
    said = [(f"section {row['section']}", str(row["verdict"])) for row in claims]
    return [*_counted("cells", cells, CELLS), *_counted("claims", said, CLAIMS)]


def _of_cell(row: _Row) -> str:
    if row["verdict"] != "reduced":
        return str(row["verdict"])
    return f"reduced, {row['direction'] or 'no'} direction"


def _counted(
    kind: str, found: Sequence[tuple[str, str]], verdicts: Sequence[str]
) -> list[_Row]:
    count = Counter(found)
    groups = list(dict.fromkeys(group for group, _ in found))
    rows: list[_Row] = [
        {"kind": kind, "group": group, "verdict": one, "count": count[group, one]}
        for group in groups
        for one in verdicts
    ]
    for one in verdicts:
        total = sum(count[group, one] for group in groups)
        rows.append({"kind": kind, "group": "all", "verdict": one, "count": total})
    return rows


def read_counts(results: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Read `summary.csv`: counts by kind, group and verdict.

    Raises:
        InputError: it cannot be read as such.
    """
    path = Path(results) / FILE
    counts: dict[str, dict[str, dict[str, int]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                group = counts.setdefault(row["kind"], {}).setdefault(row["group"], {})
                group[row["verdict"]] = int(row["count"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected counts of verdicts, found a file that cannot be read as "
            f"such ({error!r}); write it anew with `dscpp tables`"
        ) from error
    return counts
