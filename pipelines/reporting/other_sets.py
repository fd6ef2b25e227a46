"""Runs measured on other sets of images (out of distribution): a table of their own."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_io.errors import InputError
from pipelines.measure import metrics
from pipelines.reporting.estimates import estimate
from pipelines.run import OTHER_SETS, Run

__all__ = ["COLUMNS", "TABLE", "rows", "summary"]

TABLE = "other-sets.csv"
COLUMNS = (
    "loss",
    "gamma",
    "seed",
    "backend",
    "set",
    "target",
    "metric",
    "mean",
    "standard_error",
    "ci_low",
    "ci_high",
    "n",
    "n_undefined",
)
_SHOWN = ("nll", "brier", "dice", "jaccard")


def rows(runs: Iterable[Run]) -> list[dict[str, object]]:
    """A row for each run, other set, class and metric; none where nothing was measured.

    Seeds are not joined: each row is one network on all images of one set.
    """
    return [
        {key: run.record[key] for key in ("loss", "gamma", "seed", "backend")} | row
        for run in runs
        for path in sorted(run.path(OTHER_SETS).glob("*/cases.csv"))
        for row in _of_set(path)
    ]


def summary(path: Path) -> list[str]:
    """What a `cases.csv` of one set says, in a line for each class."""
    found = _of_set(path)
    lines = []
    for target in dict.fromkeys(str(row["target"]) for row in found):
        own = {row["metric"]: row for row in found if row["target"] == target}
        values = [
            f"{name} {own[name]['mean']:.3f} ± {own[name]['standard_error']:.3f}"
            for name in _SHOWN
        ]
        lines.append(f"{target}: {', '.join(values)} ({own['nll']['n']} images)")
    return lines


def _of_set(path: Path) -> list[dict[str, object]]:
    """Means of one set by class and metric.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            # As in the tables: all of the image, and not its band once more.
            found = [row for row in csv.DictReader(file) if row["region"] == "image"]
        return [
            _row(path.parent.name, target, metric, found)
            for target in dict.fromkeys(row["target"] for row in found)
            for metric in metrics.METRICS
        ]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: expected the measures of a set, found a file that cannot be read "
            f"({error}); give `dscpp evaluate --run … --images … --masks …` again"
        ) from error


def _row(
    name: str, target: str, metric: str, cases: list[dict[str, str]]
) -> dict[str, object]:
    texts = [case[metric] for case in cases if case["target"] == target]
    found = estimate(np.array([[float(text or "nan") for text in texts]]))
    return {
        "set": name,
        "target": target,
        "metric": metric,
        "mean": found.mean,
        "standard_error": found.standard_error,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "n": found.n,
        "n_undefined": found.n_undefined,
    }
