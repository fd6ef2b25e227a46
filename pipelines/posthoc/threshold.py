"""A softmax threshold chosen on a run's validation cases, from its own files."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from data_io.errors import InputError
from pipelines.measure import decisions, histograms
from pipelines.runs import run as runs

OF_RUN = {"split": "validation", "region": "image", "reference": "observer1"}
"""What a threshold is chosen on."""


class NoCase(InputError):
    """No validation case with foreground: nothing to choose a threshold on."""


@dataclass(frozen=True)
class Choice:
    """A threshold and what it was chosen by.

    Attributes:
        threshold: one of `histograms.THRESHOLDS`.
        dice: mean Dice there of the validation cases with foreground, in [0, 1].
        cases: these cases.
        of: all validation cases.
        without: mean Dice of the most probable class; NaN where it is not known.
    """

    threshold: float
    dice: float
    cases: int
    of: int
    without: float = float("nan")

    def __str__(self) -> str:
        return (
            f"  threshold {self.threshold:g}: the best of 0.05 to 0.95, mean Dice "
            f"{self.dice:.3f} (most probable class: {self.without:.3f}) on the "
            f"validation cases; {counted(self.cases, self.of)}"
        )


def counted(cases: int, of: int) -> str:
    """Say how many cases a mean Dice is of, such as "1 of 10 cases has foreground"."""
    return f"{cases} of {of} cases {'has' if cases == 1 else 'have'} foreground"


def choose(run: runs.Run) -> Choice:
    """Choose the threshold with the best mean Dice on a run's validation cases.

    Each class is compared with all others together, p >= threshold, as in
    `thresholds.csv`; Dice is averaged as `decisions.best_threshold` says. Of equal
    thresholds the one nearest to 0.5 is taken.

    Args:
        run: an evaluated run; its `histograms.npz` and `cases.csv` are all that is
            read.

    Raises:
        InputError: a run that is not evaluated, or whose files are others; `NoCase`.
    """
    run.require("evaluated", f"dscpp evaluate --run {run.folder}")
    run.require_measures()
    histogram = histograms.load(run.path("histograms.npz"))
    return replace(best_of(histogram, run.folder), without=_without(run))


def best_of(histogram: histograms.Histograms, source: object) -> Choice:
    """Choose a threshold as `choose` does, from the validation part of histograms.

    Args:
        histogram: counts of voxels.
        source: where they are from, for the message.

    Raises:
        NoCase: no validation case with foreground.
    """
    rows = histogram.where(**OF_RUN)
    counts, target = histogram.counts[rows], histogram.target[rows]
    classes = [counts[target == name] for name in np.unique(target)]
    best = decisions.best_threshold(classes, histogram.edges)
    if best is None:
        raise NoCase(
            f"{source}: expected validation cases with foreground to choose a "
            "threshold on, found none; give other cases, or choose a number yourself"
        )
    case = histogram.case[rows]
    used = np.unique(case[decisions.has_foreground(counts)])
    return Choice(*best, cases=len(used), of=len(np.unique(case)))


def _without(run: runs.Run) -> float:
    """Average Dice of the most probable class over the same cases, from `cases.csv`."""
    rows = pd.read_csv(run.path("cases.csv"), dtype={"case": str})
    for key, value in OF_RUN.items():
        rows = rows[rows[key] == value]
    rows = rows[rows["n_foreground"] > 0]
    return float(rows.groupby("target")["dice"].mean().mean())
