"""The entries of the errata: what is measured, by which function, from what."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.run import write_csv

__all__ = [
    "COLUMNS",
    "SOURCES",
    "Part",
    "Row",
    "measured",
    "merge",
    "parts",
    "parts_of",
    "read",
    "write",
]

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "results"

SOURCES = ("paper", "constructed", "run", "data", "training")
"""What a number comes from: the printed tables, an example made for it, the files of a
committed run, real images or label maps, a training made for it."""

COLUMNS = (
    "entry",
    "source",
    "measured_on",
    "quantity",
    "published",
    "corrected",
    "unit",
)

Value = float | str | None


@dataclass(frozen=True)
class Row:
    """One number, as published and corrected.

    Attributes:
        quantity: what is measured.
        published: as the paper prints it or its released code gives it; None where it
            has no such number.
        corrected: as theory, or the corrected form, has it; None likewise.
        unit: of both; "" for a pure number.
    """

    quantity: str
    published: Value
    corrected: Value
    unit: str = field(default="", kw_only=True)

    def cells(self) -> dict[str, str]:
        """The row's own columns as text; numbers with 4 significant digits."""
        return {
            "quantity": self.quantity,
            "published": _text(self.published),
            "corrected": _text(self.corrected),
            "unit": self.unit,
        }


def _text(value: Value) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int | np.integer):
        return str(value)
    # Adding 0 turns -0 into 0.
    return "NaN" if value != value else f"{float(f'{value:.4g}') + 0:.4g}"


@dataclass(frozen=True)
class Part:
    """The part of an entry that one function measures.

    Attributes:
        entry: the entry's name, such as "foreground-nll".
        source: one of `SOURCES`.
        measured_on: what exactly, for the reader.
        measure: gives the rows; takes the data set's folder where one is needed.
        needs: the data set that it needs, such as "drive"; "" for none.
        slow: whether it takes more than some seconds.
    """

    entry: str
    source: str
    measured_on: str
    measure: Callable[..., Iterator[Row]]
    needs: str = ""
    slow: bool = False

    def rows(self, root: Path | None = None) -> list[dict[str, str]]:
        """Measure, and give the rows as they stand in the CSV file.

        Args:
            root: the folder of the data set that it needs.
        """
        found = self.measure(root) if self.needs else self.measure()
        about = {
            "entry": self.entry,
            "source": self.source,
            "measured_on": self.measured_on,
        }
        return [{**about, **row.cells()} for row in found]


_PARTS: list[Part] = []


def measured(
    entry: str, source: str, measured_on: str, needs: str = "", slow: bool = False
) -> Callable[[Callable[..., Iterator[Row]]], Callable[..., Iterator[Row]]]:
    """Register a function as a part of an entry; arguments as in `Part`.

    Raises:
        ValueError: no such source, or the entry has a part of that source already.
    """
    if source not in SOURCES:
        raise ValueError(f"source: expected one of {SOURCES}, received {source!r}")
    if any((part.entry, part.source) == (entry, source) for part in _PARTS):
        raise ValueError(f"{entry}: expected one part from {source}, received two")

    def register(measure: Callable[..., Iterator[Row]]) -> Callable[..., Iterator[Row]]:
        _PARTS.append(
            Part(entry, source, measured_on, measure, needs, slow or bool(needs))
        )
        return measure

    return register


def parts() -> list[Part]:
    """All parts, in the order in which they were registered."""
    return list(_PARTS)


def parts_of(entry: str) -> list[Part]:
    """The parts of an entry; none where there is no such entry."""
    return [part for part in _PARTS if part.entry == entry]


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def merge(old: list[dict[str, str]], new: list[dict[str, str]]) -> list[dict[str, str]]:
    """Put measured rows in the place of their part's older ones.

    A part that was not measured keeps its rows; one that no longer exists loses them.
    """
    measured = {_key(row) for row in new}
    kept = [row for row in old if _key(row) not in measured]
    order = {(part.entry, part.source): place for place, part in enumerate(_by_entry())}
    rows = [row for row in [*kept, *new] if _key(row) in order]
    return sorted(rows, key=lambda row: order[_key(row)])


def _key(row: dict[str, str]) -> tuple[str, str]:
    return row["entry"], row["source"]


def _by_entry() -> list[Part]:
    """The parts, those of one entry together."""
    names = list(dict.fromkeys(part.entry for part in _PARTS))
    return [part for name in names for part in parts_of(name)]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as a CSV file."""
    write_csv(path, COLUMNS, rows)
