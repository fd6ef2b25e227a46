"""Write the tables of README.md: targets, measurements, soak and damage.

`python -m benchmarks.page` writes them; `make bench` does so at its end.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks import timing
from pipelines.reporting import markdown

PAGE = Path(__file__).with_name("README.md")
ORDER = ("samples", "step", "losses", "port", "epoch", "evaluation")
HEADER = ("what", "backend", "input", "ours", "beside", "of", "ratio", "wanted", "met")


def table(rows: Sequence[timing.Row]) -> str:
    """Lay out rows with a target as a Markdown table; of losses only the slowest.

    Args:
        rows: rows of `results.csv`.
    """
    wanted = [row for row in rows if row.target and row.part != "losses"]
    wanted += _largest([row for row in rows if row.target and row.part == "losses"])
    wanted.sort(key=lambda row: ORDER.index(row.part))
    # A mark for each machine and device; none for that of most rows.
    places = Counter(map(_machine, wanted)).most_common()
    marks = {machine: r"\*" * number for number, (machine, _) in enumerate(places)}
    machines = "; ".join(f"{mark} {machine}".strip() for machine, mark in marks.items())
    cells = (_cells(row, marks[_machine(row)]) for row in wanted)
    return (
        f"{markdown.table(HEADER, cells)}\n\n"
        f"Machine: {machines}. Ratio: ours over the other's, of medians, for "
        "samples of means; met where it is at most what is wanted."
    )


def _machine(row: timing.Row) -> str:
    return row.machine if row.device == "CPU" else f"{row.device}, {row.machine}"


def _largest(rows: Sequence[timing.Row]) -> list[timing.Row]:
    """Return, by backend and device, the loss with the largest share of a step."""
    by_share = sorted(rows, key=lambda row: float(row.ratio))
    by_device = {(row.backend, row.device): row for row in by_share}
    return sorted(by_device.values(), key=lambda row: row.key)


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


def growth(rows: pd.DataFrame) -> str:
    """Lay out `growth.csv`: seconds and MB of each part, a column a number."""
    lines = [
        [*key, *(f"{p.number:,.0f}: {p.seconds:g} s, {p.peak_mb:g} MB"
                 for p in points.itertuples())]
        for key, points in rows.groupby(["part", "of"], sort=False)
    ]  # fmt: skip
    width = max(map(len, lines))
    lines = [line + [""] * (width - len(line)) for line in lines]
    heads = ["part", "of", *["number: processor, peak memory"] * (width - 2)]
    return markdown.table(heads, lines)


def soak(rows: pd.DataFrame) -> str:
    """Lay out `soak.csv`, with a line for each stage."""
    lines = []
    for stage, kills in rows.groupby("stage", sort=False):
        full = kills["disk"] == "full"
        refused = (kills["ended"] != "SIGKILL").sum()
        runs = kills.drop_duplicates("run")["same"]
        same = f"{(runs == 'yes').sum()} of {len(runs)}"
        lines.append([stage, len(kills), full.sum(), refused, same])
    heads = ["stage", "disturbed", "on a full disk", "of these refused by itself",
             "runs that ended the same to the bit"]  # fmt: skip
    return markdown.table(heads, lines)


def damage(rows: pd.DataFrame) -> str:
    """Lay out `damage.csv`, with a line of sums."""
    counts = rows.columns[2:]
    sums = {"file": "all", "command": "", **rows[counts].sum()}
    shown = pd.concat([rows, pd.DataFrame([sums])])[["file", *counts]]
    return markdown.table(shown, shown.to_numpy())


def update(page: Path = PAGE) -> None:
    """Put the tables of the CSVs between the markers of a page."""
    parts = {"benchmarks": lambda: table(timing.read())}
    for make in (growth, soak, damage):
        path = PAGE.with_name(f"{make.__name__}.csv")
        if path.exists():
            rows = pd.read_csv(path, keep_default_na=False)
            parts[make.__name__] = partial(make, rows)
    markdown.fill(page, parts)


if __name__ == "__main__":
    update()
