"""What the paper prints: its tables, p values and figures at softmax thresholds."""

import contextlib
import importlib.metadata
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import pandas as pd

from data_io.errors import InputError
from pipelines import loss_names
from pipelines.measure import histograms, metrics

KEYS = ("loss", "gamma", "method")
"""Columns that every table over the runs has: they join one to another."""

PAPER_TABLES = ("table4", "table5", "table6", "table3")
"""Files in `results/paper/`; losses are listed in the order in which they occur."""

STANDARD_GAMMA = 2.0
"""The exponent of the ++ losses in Tables 4 to 6 (Table 2 of the paper)."""

SAME_TEST_IMAGES = ("DRIVE",)
"""Data sets whose test images are the paper's; its other splits are random, unknown."""

THRESHOLDS = [round(float(one), 9) for one in histograms.THRESHOLDS]
"""Softmax thresholds that are measured."""

_PUBLISHED = ("published values", "restore it from the repository")
_T = TypeVar("_T")
_WRITTEN = re.compile(
    r"(?P<loss>.+?)(?: g=(?P<gamma>[\d.]+))?"
    r"(?: \+ (?P<method>[\w+ -]+))?(?:@(?P<at>[\d.]+))?"
)

# Table 3 prints .05; the value's neighbours and Table 4's cell of the same network
# say .005. The files keep what is printed; the verdict takes the stricter one.
_MISPRINTS: Mapping[tuple[str, str, str], float] = {
    ("table3", "DSC++ g=1", "jaccard"): 0.005,
    ("table3", "DSC++ g=2.5", "jaccard"): 0.005,
}


@dataclass(frozen=True, order=True)
class Variant:
    """What was trained, whatever the seed: one row of a readable table.

    Attributes:
        loss: as the paper writes it, such as "DSC++"; "" where nothing was trained.
        gamma: the ++ exponent of a ++ loss; None for every other loss.
        method: what was done after training, such as "temperature"; "" for nothing.
        backend: the Keras backend, where it is not the study's own; else "".
        settings: of own images the overrides, where not all runs of the study have
            them, such as "epochs=3"; else "".
        threshold: the softmax threshold of `THRESHOLDS` it is cut at; None for argmax.
    """

    loss: str
    gamma: float | None = None
    method: str = ""
    backend: str = ""
    settings: str = ""
    threshold: float | None = None

    @classmethod
    def standard(cls, loss: str, gamma: float = STANDARD_GAMMA) -> Self:
        """Make a loss with the paper's exponent or another; only ++ losses have one."""
        return cls(loss, gamma if loss.endswith("++") else None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "DSC", "DSC++ g=2.5", "DSC++@0.8" or "DSC + ensemble-3 + temperature".

        Raises:
            InputError: written otherwise, or a threshold that is not measured.
        """
        match = _WRITTEN.fullmatch(text)
        threshold = float(match["at"]) if match and match["at"] else None
        if match is None or (threshold is not None and threshold not in THRESHOLDS):
            raise InputError(
                f"{text!r}: expected a loss such as DSC, DSC++ g=2.5 or DSC++@0.8 "
                "(thresholds 0.05 to 0.95 in steps of 0.05); correct claims.csv"
            )
        plain = cls.standard(match["loss"], float(match["gamma"] or STANDARD_GAMMA))
        return replace(plain, method=match["method"] or "", threshold=threshold)

    @property
    def trained(self) -> Self:
        """Return it without a method or a threshold: what was trained."""
        return replace(self, method="", threshold=None)

    @property
    def before(self) -> Self:
        """Return it without its last method."""
        return replace(self, method=self.method.rpartition(" + ")[0])

    @property
    def label(self) -> str:
        """Return such as "DSC++", "DSC++ g=2.5" or "DSC + temperature [torch]"."""
        text = self.loss
        if self.gamma is not None and self.gamma != STANDARD_GAMMA:
            text += f" g={self.gamma:g}"
        text = " + ".join(part for part in (text, self.method) if part)
        more = ", ".join(part for part in (self.backend, self.settings) if part)
        at = "" if self.threshold is None else f"@{self.threshold:g}"
        return text + (f" [{more}]" if more else "") + at

    @property
    def columns(self) -> dict[str, object]:
        """Return its `KEYS` in every table; NaN for no gamma."""
        name = replace(self, gamma=None, method="").label
        # None in every row would make a column of objects, which no table can join.
        gamma = float("nan") if self.gamma is None else self.gamma
        return dict(zip(KEYS, (name, gamma, self.method), strict=True))

    def rows(self, table: pd.DataFrame, side: str = "") -> pd.DataFrame:
        """Return its rows of a table; `side`, such as "_a", ends the keys' names."""
        kept = table
        for key, value in self.columns.items():
            if f"{key}{side}" in table:
                column = kept[f"{key}{side}"]
                kept = kept[column.eq(value) | (column.isna() & (value != value))]
        return kept

    @property
    def is_main(self) -> bool:
        """Whether the paper could have a cell for it.

        It has no method, the usual backend, and a loss of the paper's family.
        """
        return not self.method and not self.backend and self.is_of_the_family

    @property
    def is_of_the_family(self) -> bool:
        """Whether the loss is the paper's: others have rows and no part in verdicts."""
        return self.loss not in loss_names.BEYOND


class Cell(NamedTuple):
    """One published mean and its error as printed: a row of `Paper.cells`.

    Attributes:
        table: such as "table4".
        dataset: the data set's title in the paper, such as "DRIVE".
        gamma: the ++ exponent of a ++ loss, else NaN.
        target: such as "kidney"; "" where the table has only one.
        metric: the column of `cases.csv` it is compared with, such as "nll_published".
        judged_error: the standard error that the verdict takes: misprints put right.
    """

    table: str
    dataset: str
    loss: str
    gamma: float
    target: str
    metric: str
    value: float
    standard_error: float
    judged_error: float
    variant: Variant

    @property
    def key(self) -> tuple[object, ...]:
        """Return what no other cell of its data set and table has."""
        return self.variant, self.target, self.metric


@dataclass(frozen=True)
class Paper:
    """What the paper prints; each file of the folder is read when first asked for.

    Raises:
        InputError: by each property: a file is missing or is not as expected.
    """

    folder: Path

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Read all published values, with the columns of `Cell`."""
        rows = chain(*(self._cells(table, "standard_error") for table in PAPER_TABLES))
        return pd.DataFrame(rows, columns=list(Cell._fields))

    @cached_property
    def thresholds(self) -> list[Cell]:
        """Read the values at softmax thresholds that the text prints."""
        return self._cells("thresholds", "threshold")

    def _cells(self, table: str, column: str) -> list[Cell]:
        columns = ("dataset", "loss", "metric", "value", column)
        return _parsed(self.folder / f"{table}.csv", columns, partial(_cell, table))

    @cached_property
    def p_values(self) -> list[dict[str, str]]:
        """Read the p values that the text prints, as text."""
        columns = ("dataset", "target", "metric", "loss_a", "loss_b", "p")
        return _parsed(self.folder / "pvalues.csv", columns, _p_value)

    def printed_p(
        self, dataset: str, target: str, metric: str, pair: tuple[str, str]
    ) -> str:
        """Return p as the text prints it for two losses; "" for nothing.

        The metric is the paper's word, such as "nll"; target "" is the only class.
        """
        wanted = {"dataset": dataset, "metric": metric}
        wanted |= {"loss_a": pair[0], "loss_b": pair[1]}
        for row in self.p_values:
            if wanted.items() <= row.items() and target in ("", row["target"]):
                return row["p"]
        return ""

    @cached_property
    def _printed_means(self) -> dict[tuple[object, ...], Cell]:
        """Index cells by data set and `Cell.key`; the first table counts."""
        means: dict[tuple[object, ...], Cell] = {}
        for cell in chain(each_cell(self.cells), self.thresholds):
            means.setdefault((cell.dataset, *cell.key), cell)
        return means

    def printed_means(
        self, dataset: str, target: str, variants: Sequence[Variant], metric: str
    ) -> dict[Variant, Cell]:
        """Return the printed means; with two classes argmax is threshold 0.5."""
        column = metrics.PAPER_COLUMN.get(metric, metric)
        means = {}
        for variant in variants:
            at = None if variant.threshold == 0.5 else variant.threshold
            plain = replace(variant, threshold=at)
            if figure := self._printed_means.get((dataset, plain, target, column)):
                means[variant] = figure
        return means


def paper_folder(results: Path) -> Path:
    """Find the published values: `<results>/paper`, else those of the project.

    Raises:
        InputError: neither is there.
    """
    committed = Path(__file__).resolve().parents[2] / "results" / "paper"
    for folder in (Path(results) / "paper", committed, *_installed()):
        if (folder / "table4.csv").is_file():
            return folder
    raise InputError(
        f"{Path(results) / 'paper'}: expected the published values (table3.csv to "
        "table6.csv), found none; restore results/paper/ from the repository"
    )


def _installed() -> Iterator[Path]:
    """Find the folder of the values that came with an installed package."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("dscpp") or ():
            if file.match("share/dscpp/paper/table4.csv"):
                yield Path(str(file.locate())).parent


def partner_of(cell: Cell, cells: Mapping[tuple[object, ...], Cell]) -> Cell | None:
    """Find the cell to compare with: ++ with its plain form, others with DSC++.

    In Table 3 every gamma is compared with the standard one, and that with gamma 1.
    `cells` are those of the table and data set, by `key`; None where there is none.
    """
    loss, compared = cell.variant.loss, cell.variant
    plain = loss.removesuffix("++")
    wanted = [Variant(f"{plain}++", STANDARD_GAMMA), Variant("DSC++", STANDARD_GAMMA)]
    if compared.gamma is not None:
        wanted[1:1] = [Variant(plain), Variant(loss, 1.0)]
    keys = ((variant, *cell.key[1:]) for variant in wanted if variant != compared)
    return next((cells[key] for key in keys if key in cells), None)


def each_cell(cells: pd.DataFrame) -> Iterator[Cell]:
    """Iterate over the rows of `Paper.cells`, or of a part of it."""
    return map(Cell._make, cells.itertuples(index=False, name=None))


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a file of published values that has at least these columns, as text."""
    return read_table(path, columns, (), *_PUBLISHED).to_dict("records")


def read_table(
    path: Path,
    texts: Sequence[str],
    numbers: Sequence[str],
    expected: str,
    remedy: str,
) -> pd.DataFrame:
    """Read a CSV that has the columns `texts` and `numbers`.

    Numbers that are empty are NaN; so are NA and N/A, which R and spreadsheets write.

    Raises:
        InputError: it cannot be read, lacks a column, or has another text for a number;
            says what was `expected`, and the `remedy`.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        if missing := [name for name in (*texts, *numbers) if name not in rows]:
            raise ValueError(f"no column {', '.join(missing)}")
        return rows.assign(
            **rows[[*numbers]].replace(["", "NA", "N/A"], "nan").astype(float)
        )
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error), expected, remedy) from error


def _parsed(
    path: Path, columns: Sequence[str], parse: Callable[[dict[str, str]], _T]
) -> list[_T]:
    """Parse every row of a file of published values; name the line that cannot be."""
    parsed = []
    for number, row in enumerate(read_rows(path, columns), start=2):
        try:
            parsed.append(parse(row))
        except (KeyError, ValueError) as error:
            text = ",".join(row.values())
            raise _unreadable(path, f"line {number}: {text}", *_PUBLISHED) from error
    return parsed


def _p_value(row: dict[str, str]) -> dict[str, str]:
    if not 0 <= float(row["p"]) <= 1:
        raise ValueError("p")
    _ = metrics.PAPER_COLUMN[row["metric"]]
    return row


def _unreadable(path: Path, reason: str, expected: str, remedy: str) -> InputError:
    return InputError(
        f"{path}: expected {expected}, found a file that cannot be read ({reason}); "
        f"{remedy}"
    )


def _cell(table: str, row: dict[str, Any]) -> Cell:
    variant = Variant.standard(row["loss"], float(row.get("gamma") or STANDARD_GAMMA))
    if "threshold" in row:
        variant = Variant.parse(f"{row['loss']}@{row['threshold']}")
    metric = metrics.PAPER_COLUMN[row["metric"]]
    error = float(row.get("standard_error", math.nan))
    return Cell(
        table=table,
        dataset=row["dataset"],
        loss=variant.loss,
        gamma=float("nan") if variant.gamma is None else variant.gamma,
        target=row.get("target", ""),
        metric=metric,
        value=float(row["value"]),
        standard_error=error,
        judged_error=_MISPRINTS.get((table, variant.label, metric), error),
        variant=variant,
    )
