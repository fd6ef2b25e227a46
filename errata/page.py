"""The page `docs/errata.md`: its tables, put between markers from the CSV file."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

from data_io.errors import InputError
from pipelines.reporting.markdown import replace_marked
from pipelines.run import write_atomically

__all__ = ["entries", "table", "update"]

_FROM = {
    "paper": "The paper's printed values",
    "constructed": "Constructed",
    "run": "Committed runs",
    "data": "Real data",
    "training": "A training",
}
_MARKER = re.compile(r"^<!-- ([a-z0-9-]+):begin -->$", re.MULTILINE)


def entries(text: str) -> list[str]:
    """The entries that a page has markers for, in order."""
    return _MARKER.findall(text)


def update(page: Path, rows: list[dict[str, str]]) -> None:
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
    for name in named:
        own = [row for row in rows if row["entry"] == name]
        text = replace_marked(page, text, name, table(name, own))
    write_atomically(page, lambda aside: aside.write_text(text, "utf-8"))


def table(entry: str, rows: list[dict[str, str]]) -> str:
    """Lay out one entry's rows, a table for each source, and its command."""
    blocks = []
    for (source, on), group in groupby(
        rows, lambda row: (row["source"], row["measured_on"])
    ):
        lines = [
            f"{_FROM[source]}: {on}.",
            "",
            "| | published | corrected |",
            "|---|--:|--:|",
            *(_line(row) for row in group),
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join([*blocks, f"`python -m errata {entry}`"])


def _line(row: dict[str, str]) -> str:
    what = row["quantity"] + (f" ({row['unit']})" if row["unit"] else "")
    return f"| {what} | {row['published']} | {row['corrected']} |".replace("  ", " ")
