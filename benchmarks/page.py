"""The table of `results.csv` in README.md: what is wanted, what was measured.

`python -m benchmarks.page` writes it; `make bench` does so at its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import timing
from pipelines.reporting import markdown

PAGE = Path(__file__).with_name("README.md")
ORDER = ("samples", "step", "losses", "port", "epoch", "evaluation")
HEADER = ("what", "backend", "input", "ours", "beside", "of", "ratio", "wanted", "met")


def table(rows: Sequence[timing.Row]) -> str:
    """Write rows that have a target as a Markdown table; losses as their largest share.

    Args:
        rows: of `results.csv`.
    """
    wanted = [row for row in rows if row.target and row.part != "losses"]
    wanted += _largest([row for row in rows if row.target and row.part == "losses"])
    wanted.sort(key=lambda row: ORDER.index(row.part))
    # A mark for each machine and device, for that of most rows none.
    places = Counter(map(_place, wanted)).most_common()
    marks = {place: r"\*" * number for number, (place, _) in enumerate(places)}
    machines = "; ".join(f"{mark} {place}".strip() for place, mark in marks.items())
    return "\n".join(
        (
            markdown.table(HEADER, [_cells(row, marks[_place(row)]) for row in wanted]),
            "",
            f"Machine: {machines}. Ratio: ours over the other's, of medians, for "
            "samples of means; met where it is at most what is wanted.",
        )
    )


def _place(row: timing.Row) -> str:
    return row.machine if row.device == "CPU" else f"{row.device}, {row.machine}"


def _largest(rows: Sequence[timing.Row]) -> list[timing.Row]:
    """Of each backend's losses on a device that of the largest share of a step."""
    by_share = sorted(rows, key=lambda row: float(row.ratio))
    found = {(row.backend, row.device): row for row in by_share}
    return sorted(found.values(), key=lambda row: row.key)


def _cells(row: timing.Row, mark: str) -> list[str]:
    ours, theirs = row.values
    what, ratios = row.what, [row.ratio, row.target]
    if row.part == "losses":
        what, ratios = f"loss {what}", [f"{float(r) * 100:.2g} %" for r in ratios]
    beside = f"{theirs} {row.unit}" if row.peer else ""
    return [
        what + mark, row.backend, row.shape, f"{ours} {row.unit}", beside, row.peer,
        *ratios, row.met,
    ]  # fmt: skip


def update(page: Path = PAGE) -> None:
    """Put the table of `results.csv` between the markers of a page."""
    text, content = page.read_text(encoding="utf-8"), table(timing.read())
    text = markdown.replace_marked(page, text, "benchmarks", content)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update()
