"""The table of benchmarks/README.md: what is wanted, what was measured.

`python -m benchmarks.page --write benchmarks/README.md`; `make bench` ends with it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import timing
from pipelines.reporting.markdown import replace_marked

__all__ = ["MARKER", "table"]

MARKER = "benchmarks"
ORDER = ("samples", "step", "losses", "port", "epoch", "evaluation", "start")
_HEAD = (
    "| what | backend | input | ours | beside | of | ratio | wanted | met |",
    "|---|---|---|--:|--:|---|--:|--:|---|",
)


def table(rows: Sequence[timing.Row]) -> str:
    """Write rows that have a target as a Markdown table; losses as their largest share.

    Args:
        rows: of `results.csv`.
    """
    wanted = [row for row in rows if row.target and row.part != "losses"]
    wanted += _largest([row for row in rows if row.target and row.part == "losses"])
    wanted.sort(key=lambda row: ORDER.index(row.part))
    marks = _marks(wanted)
    machines = "; ".join(f"{mark} {', '.join(p)}" for p, mark in marks.items())
    note = f"Machine: {machines.strip()}. Ratio: ours over the other's, of "
    note += "medians, for samples of means; met where it is at most what is wanted."
    lines = [_line(row, marks[_place(row)]) for row in wanted]
    return "\n".join([*_HEAD, *lines, "", note])


def _place(row: timing.Row) -> tuple[str, ...]:
    """What a row was measured on: the machine, and a device beside its processor."""
    return (row.machine,) if row.device == "CPU" else (row.device, row.machine)


def _marks(rows: Sequence[timing.Row]) -> dict[tuple[str, ...], str]:
    """A mark for each place, for that of most rows none."""
    places = Counter(map(_place, rows)).most_common()
    return {place: r"\*" * number for number, (place, _) in enumerate(places)}


def _largest(rows: Sequence[timing.Row]) -> list[timing.Row]:
    """Of each backend's losses on a device that of the largest share of a step."""
    found: dict[tuple[str, str], timing.Row] = {}
    for row in rows:
        other = found.get((row.backend, row.device))
        if other is None or float(row.ratio) > float(other.ratio):
            found[row.backend, row.device] = row
    return list(found.values())


def _line(row: timing.Row, mark: str) -> str:
    ours, theirs = row.ours, row.peer_median
    if row.by == "mean":
        ours, theirs = row.ours_mean, row.peer_mean
    beside = f"{theirs} {row.unit}" if row.peer else ""
    what = f"loss {row.what}" if row.part == "losses" else row.what
    cells = [
        what + mark, row.backend, row.shape, f"{ours} {row.unit}", beside, row.peer,
        _percent(row.ratio) if row.part == "losses" else row.ratio,
        _percent(row.target) if row.part == "losses" else row.target,
        row.met,
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _percent(share: str) -> str:
    return f"{float(share) * 100:.2g} %"


def main() -> None:
    """Print the table, or put it between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=timing.RESULTS)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    content = table(timing.read(arguments.results))
    if arguments.write is None:
        print(content)
        return
    text = arguments.write.read_text(encoding="utf-8")
    text = replace_marked(arguments.write, text, MARKER, content)
    arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
