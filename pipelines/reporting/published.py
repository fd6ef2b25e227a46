"""What the paper prints: its tables, p values and figures at softmax thresholds."""

import contextlib
import csv
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_io.errors import InputError
from pipelines.measure import metrics
from pipelines.reporting.study import STANDARD_GAMMA, Variant

__all__ = [
    "PAPER_TABLES",
    "Cell",
    "paper_folder",
    "partner_of",
    "printed_p",
    "published_cells",
    "published_p_values",
    "published_thresholds",
    "read_rows",
]

PAPER_TABLES = ("table4", "table5", "table6", "table3")
"""Files in `results/paper/`; losses are listed in the order in which they occur."""

# Table 3 prints .05; the value's neighbours and Table 4's cell of the same network
# say .005. The files keep what is printed; the verdict takes the stricter one.
MISPRINTS: Mapping[tuple[str, str, float | None, str], float] = {
    ("table3", "DSC++", 1.0, "jaccard"): 0.005,
    ("table3", "DSC++", 2.5, "jaccard"): 0.005,
}


@dataclass(frozen=True)
class Cell:
    """One published value.

    Attributes:
        table: such as "table4".
        dataset: the data set's title in the paper, such as "DRIVE".
        loss: such as "DSC++".
        gamma: the ++ exponent of a ++ loss, else None.
        target: such as "kidney"; "" where the table has only one.
        metric: the column of `cases.csv` it is compared with, such as "nll_published".
        value: the mean as printed.
        standard_error: its standard error as printed.
    """

    table: str
    dataset: str
    loss: str
    gamma: float | None
    target: str
    metric: str
    value: float
    standard_error: float

    @property
    def variant(self) -> Variant:
        """The variant that was trained for it."""
        return Variant(self.loss, self.gamma)

    @property
    def judged_error(self) -> float:
        """The standard error that the verdict takes: misprints put right."""
        key = (self.table, self.loss, self.gamma, self.metric)
        return MISPRINTS.get(key, self.standard_error)


def paper_folder(results: Path) -> Path:
    """Folder of the published values: `<results>/paper`, or as the project has them.

    Raises:
        InputError: neither is there.
    """
    own = Path(__file__).resolve().parents[2] / "results" / "paper"
    for folder in (Path(results) / "paper", own, *_installed()):
        if (folder / "table4.csv").is_file():
            return folder
    raise InputError(
        f"{Path(results) / 'paper'}: expected the published values (table3.csv to "
        "table6.csv), found none; restore results/paper/ from the repository"
    )


def _installed() -> Iterator[Path]:
    """The folder of the values that came with the package, where it is installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("dscpp") or ():
            if file.match("share/dscpp/paper/table4.csv"):
                yield Path(str(file.locate())).parent


def published_cells(folder: Path) -> tuple[Cell, ...]:
    """Read all published values.

    Args:
        folder: `results/paper`.

    Raises:
        InputError: a table is missing or is not as expected.
    """
    cells: list[Cell] = []
    for table in PAPER_TABLES:
        path = Path(folder) / f"{table}.csv"
        try:
            with path.open(newline="", encoding="utf-8") as file:
                cells += [_cell(table, row) for row in csv.DictReader(file)]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: expected published values, found a file that cannot be read "
                f"as such ({error!r}); restore it from the repository"
            ) from error
    return tuple(cells)


def published_thresholds(folder: Path) -> list[dict[str, str]]:
    """Read the figures at softmax thresholds that the paper's text prints.

    Args:
        folder: `results/paper`.

    Returns:
        Mappings with dataset, loss, threshold, metric and value, all text.

    Raises:
        InputError: `thresholds.csv` is missing or is not as expected.
    """
    columns = ("dataset", "loss", "threshold", "metric", "value")
    return read_rows(Path(folder) / "thresholds.csv", columns)


def published_p_values(folder: Path) -> list[dict[str, str]]:
    """Read the p values that the paper's text prints.

    Args:
        folder: `results/paper`.

    Returns:
        Mappings with dataset, target, metric, loss_a, loss_b and p, all text.

    Raises:
        InputError: `pvalues.csv` is missing or is not as expected.
    """
    columns = ("dataset", "target", "metric", "loss_a", "loss_b", "p")
    return read_rows(Path(folder) / "pvalues.csv", columns)


def printed_p(
    folder: Path, title: str, pair: tuple[str, str]
) -> dict[tuple[str, str], str]:
    """What the text prints of p for two losses on a data set, by target and metric.

    Args:
        folder: `results/paper`.
        title: of the data set, as "DRIVE".
        pair: names of the losses, in the order of the text.

    Raises:
        InputError: see `published_p_values`.
    """
    return {
        (row["target"], row["metric"]): row["p"]
        for row in published_p_values(folder)
        if (row["dataset"], row["loss_a"], row["loss_b"]) == (title, *pair)
    }


def partner_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The cell to compare with: ++ with its plain form, the others with DSC++.

    In Table 3 every gamma is compared with the standard one, and that with gamma 1.

    Args:
        cell: a cell.
        cells: all of its table and data set.

    Returns:
        The other cell; None where there is none.
    """
    plain = cell.loss.removesuffix("++")
    wanted = [
        Variant(cell.loss, STANDARD_GAMMA) if cell.gamma is not None else None,
        Variant(plain) if cell.gamma is not None else None,
        Variant(cell.loss, 1.0) if cell.gamma is not None else None,
        Variant(f"{plain}++", STANDARD_GAMMA),
        Variant("DSC++", STANDARD_GAMMA),
    ]
    for variant in wanted:
        if variant is None or variant == cell.variant:
            continue
        for other in cells:
            same = (other.metric, other.target) == (cell.metric, cell.target)
            if same and other.variant == variant:
                return other
    return None


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a file of published values that has at least these columns."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"no column {', '.join(missing)}")
            return list(reader)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected published values, found a file that cannot be read "
            f"({error}); restore it from the repository"
        ) from error


def _cell(table: str, row: Mapping[str, str]) -> Cell:
    plus = row["loss"].endswith("++")
    return Cell(
        table=table,
        dataset=row["dataset"],
        loss=row["loss"],
        gamma=float(row.get("gamma") or STANDARD_GAMMA) if plus else None,
        target=row.get("target", ""),
        metric=metrics.PAPER_COLUMN[row["metric"]],
        value=float(row["value"]),
        standard_error=float(row["standard_error"]),
    )
