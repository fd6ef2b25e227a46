"""The claims of the paper's text, as `results/paper/claims.csv` has them.

What a claim compares, and which of the `rules` decides it. `decisions` puts them to the
runs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from data_io.errors import InputError
from pipelines.measure import metrics
from pipelines.reporting.evidence import EXTREMES, Quantity
from pipelines.reporting.published import read_rows
from pipelines.reporting.rules import (
    FAILS,
    HOLDS,
    NOT_RUN,
    RULES,
    UNDECIDED,
    Part,
    Rule,
)

__all__ = ["FILE", "Claim", "published_claims"]

FILE = "claims.csv"
_PAPER_COLUMNS = (
    "id",
    "section",
    "claim",
    "dataset",
    "rule",
    "metric",
    "a",
    "b",
    "sense",
    "value",
    "at_least",
    "reading",
)
_METRICS = (*metrics.PAPER_COLUMN, EXTREMES)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper's text.

    Attributes:
        row: its row of `results/paper/claims.csv`.
        rule: what decides each of its parts.
        parts: what is compared.
        at_least: how many of the parts have to hold.
    """

    row: Mapping[str, str]
    rule: Rule
    parts: tuple[Part, ...]
    at_least: int

    @classmethod
    def parse(cls, row: Mapping[str, str]) -> Self:
        """Read a row.

        Lists are separated by "; ". A data set with several classes names one in
        brackets: "KiTS19 (kidney)".

        Raises:
            InputError: an unknown rule, metric or loss, or lists that do not fit it.
        """
        try:
            rule_type = RULES[row["rule"]]
            unknown = [m for m in _list(row["metric"]) if m not in _METRICS]
            if unknown:
                raise KeyError(*unknown)
            rule = rule_type(row["sense"], float(row["value"] or "nan"))
            at_least = int(row["at_least"] or 0)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"claims.csv: claim {row['id']}: expected a rule out of "
                f"{', '.join(RULES)}, metrics out of {', '.join(_METRICS)} "
                f"and numbers, found {error}; correct it"
            ) from error
        a, b = (tuple(map(Quantity.parse, _list(row[side]))) for side in ("a", "b"))
        parts = tuple(
            Part(dataset, target, metric, one, other)
            for dataset, target in map(_dataset, _list(row["dataset"]))
            for metric in _list(row["metric"]) or [""]
            for one, other in rule.split(a, b)
        )
        if not parts:
            raise InputError(
                f"claims.csv: claim {row['id']}: expected something to compare, found "
                "no data set, metric or loss; correct it"
            )
        return cls(row, rule, parts, at_least or len(parts))

    def combined(self, verdicts: Sequence[str]) -> str:
        """The claim's verdict out of those of its parts.

        It holds where enough parts hold, fails where too many fail, is not run where
        none was run, and is undecided otherwise.
        """
        count = Counter(verdicts)
        if count[HOLDS] >= self.at_least:
            return HOLDS
        if count[FAILS] > len(self.parts) - self.at_least:
            return FAILS
        return NOT_RUN if count[NOT_RUN] == len(self.parts) else UNDECIDED


def _list(text: str) -> list[str]:
    return [item for item in text.split("; ") if item]


def _dataset(text: str) -> tuple[str, str]:
    """Split "KiTS19 (kidney)" into data set and class."""
    title, _, target = text.removesuffix(")").partition(" (")
    return title, target


def published_claims(folder: Path) -> tuple[Claim, ...]:
    """Read the claims of the paper's text.

    Args:
        folder: `results/paper`.

    Raises:
        InputError: `claims.csv` is missing or is not as expected.
    """
    rows = read_rows(Path(folder) / FILE, _PAPER_COLUMNS)
    return tuple(Claim.parse(row) for row in rows)
