"""Write `docs/errata.csv`, and its tables on the page `docs/errata.md`."""

from __future__ import annotations

import re
from functools import partial
from itertools import groupby
from pathlib import Path

from data_io.errors import InputError
from errata.registry import COLUMNS, PROJECT, SOURCES, measurements
from pipelines.reporting import markdown
from pipelines.reporting.published import read_rows
from pipelines.runs.run import write_csv

CSV = PROJECT / "docs" / "errata.csv"
PAGE = CSV.with_suffix(".md")
_MARKER = re.compile(r"^<!-- ([a-z0-9-]+):begin -->$", re.MULTILINE)
Rows = list[dict[str, str]]


def read() -> Rows:
    """Return the rows of the CSV file."""
    return read_rows(CSV, COLUMNS)


def write(new: Rows) -> None:
    """Put measured rows into the CSV file, and all rows into the page."""
    rows = merge(read(), new)
    write_csv(CSV, COLUMNS, rows)
    update(PAGE, rows)


def merge(old: Rows, new: Rows) -> Rows:
    """Replace the older rows of each measured part.

    A part that was not measured keeps its rows; one that no longer exists loses them.
    """

    def key(row: dict[str, str]) -> tuple[str, str]:
        return row["entry"], row["source"]

    again = {key(row) for row in new}
    order = {part.key: number for number, part in enumerate(measurements())}
    rows = [*(row for row in old if key(row) not in again), *new]
    return sorted((r for r in rows if key(r) in order), key=lambda r: order[key(r)])


def entries(text: str) -> list[str]:
    """Return the entries that have markers on a page, in order."""
    return _MARKER.findall(text)


def update(page: Path, rows: Rows) -> None:
    """Put the rows of each entry between its markers.

    Args:
        page: a Markdown file with `<!-- ENTRY:begin -->` and `<!-- ENTRY:end -->`.
        rows: as in the CSV file.

    Raises:
        InputError: an entry without markers, or markers without an entry.
    """
    text = page.read_text("utf-8")
    named, known = entries(text), {row["entry"] for row in rows}
    if len(named) != len(set(named)) or set(named) != known:
        odd = sorted(set(named) ^ known) or ["an entry twice"]
        raise InputError(
            f"{page}: expected markers for each entry and none besides, found a "
            f"difference in {', '.join(odd)}; write or remove its section"
        )
    of = {name: [row for row in rows if row["entry"] == name] for name in named}
    markdown.fill(page, {name: partial(table, name, of[name]) for name in named})


def table(entry: str, rows: Rows) -> str:
    """Lay out one entry's rows, a table for each source, and its command."""
    blocks = [
        f"{SOURCES[source]}: {on}.\n\n{_table(list(group))}"
        for (source, on), group in groupby(
            rows, lambda row: (row["source"], row["measured_on"])
        )
    ]
    return "\n\n".join([*blocks, f"`python -m errata {entry}`"])


def _table(rows: Rows) -> str:
    cells = [
        (
            row["quantity"] + (f" ({row['unit']})" if row["unit"] else ""),
            row["published"],
            row["corrected"],
        )
        for row in rows
    ]
    text = markdown.table(("", "published", "corrected"), cells)
    return text.replace("  ", " ")  # of empty cells
