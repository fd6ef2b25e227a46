"""The entries of the errata: what is measured, by which function, on what data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "results"

SOURCES = {
    "paper": "The paper's printed values",
    "constructed": "Constructed",
    "run": "Committed runs",
    "data": "Real data",
    "training": "A training",
}
"""What a number comes from, as the page calls it: the printed tables, an example made
for it, the files of a committed run, real images or label maps, a training."""

COLUMNS = (
    "entry", "source", "measured_on", "quantity", "published", "corrected", "unit",
)  # fmt: skip

Value = float | np.generic | str | None


@dataclass(frozen=True)
class Row:
    """One number, as published and corrected.

    Attributes:
        quantity: what is measured.
        published: the paper's printed value or that of its released code; None where
            there is none.
        corrected: the value by theory or by the corrected form; None likewise.
        unit: unit of both; "" for a pure number.
    """

    quantity: str
    published: Value
    corrected: Value
    unit: str = field(default="", kw_only=True)

    def cells(self) -> dict[str, str]:
        """Return quantity, values and unit as text; numbers to 4 significant digits."""
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


Measure = Callable[..., Iterator[Row]]


@dataclass(frozen=True)
class Measurement:
    """The part of an entry that one function measures.

    Attributes:
        entry: the entry's name, such as "foreground-nll".
        source: one of `SOURCES`.
        measured_on: what exactly it is measured on, as printed for the reader.
        measure: returns the rows; takes the data set's folder where one is needed.
        needs: the data set that it needs, such as "drive"; "" for none.
        slow: whether it takes more than a few seconds.
    """

    entry: str
    source: str
    measured_on: str
    measure: Measure
    needs: str = ""
    slow: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Return entry and source, which are unique to a part."""
        return self.entry, self.source

    def rows(self, root: Path | None = None) -> list[dict[str, str]]:
        """Measure, and return the rows as in the CSV file.

        Args:
            root: the folder of the data set that it needs.
        """
        results = self.measure(root) if self.needs else self.measure()
        values = (self.entry, self.source, self.measured_on)
        named = dict(zip(COLUMNS, values, strict=False))
        return [{**named, **row.cells()} for row in results]


_MEASUREMENTS: list[Measurement] = []


def measured(
    entry: str, source: str, measured_on: str, needs: str = "", slow: bool = False
) -> Callable[[Measure], Measure]:
    """Register a function as a part of an entry; arguments as in `Measurement`.

    Raises:
        ValueError: no such source, or the entry has a part of that source already.
    """
    if source not in SOURCES:
        raise ValueError(f"source: expected one of {list(SOURCES)}, received {source}")
    if any(part.key == (entry, source) for part in _MEASUREMENTS):
        raise ValueError(f"{entry}: expected one part from {source}, received two")

    def register(measure: Measure) -> Measure:
        slowly = slow or bool(needs)
        _MEASUREMENTS.append(
            Measurement(entry, source, measured_on, measure, needs, slowly)
        )
        return measure

    return register


def measurements() -> list[Measurement]:
    """Return all parts, grouped by entry; entries in the order of registration."""
    entries = list(dict.fromkeys(part.entry for part in _MEASUREMENTS))
    return sorted(_MEASUREMENTS, key=lambda part: entries.index(part.entry))
